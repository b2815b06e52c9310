"""The server under load: five times as many clients as it can serve at once, every answer checked.

  python benchmarks/server.py                        engines of fakes: the server's own cost
  python benchmarks/server.py --models starter       real models (a minute or two of warm-up)

Each client sends tones (fakes) or cuts of a recording (real models), waits as `Retry-After` says when it is refused,
and tries again, until all of its recordings are answered. First one client alone per engine, then the overload; the
throughput of both and the latencies are printed as a table and, with --json, as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from server_helpers import tones, wait_ready, wav

from vermilion.server.running import bind

SERVER = """
import sys
from pathlib import Path
from vermilion.pipeline import PipelineOptions
from vermilion.server.building import LoadModels
from vermilion.server.options import Limits, ServerOptions
from vermilion.server.running import Running, serve
from vermilion.testing import FakeModels
name, delay, port, data, slots, workers = sys.argv[1:]
models = FakeModels(float(delay)) if name == "fake" else LoadModels(name, PipelineOptions())
limits = Limits(requests=int(slots), per_client=10_000)
options = ServerOptions(models, port=int(port), data=Path(data), limits=limits, workers=int(workers))
serve(options, Running(verbose=False))
"""
EXAMPLE = Path(__file__).parents[1] / "examples" / "tour.ogg"


@dataclass
class Outcome:
    """What happened in a phase."""

    seconds: float = 0.0
    audio: float = 0.0
    latencies: list[float] = field(default_factory=list)
    """of accepted requests, from their last attempt"""
    waits: list[float] = field(default_factory=list)
    """from the first attempt to the answer"""
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    lost: int = 0

    def row(self, name: str) -> dict:
        """For the table."""
        return {
            "phase": name,
            "answers": len(self.latencies),
            "audio_s_per_s": round(self.audio / self.seconds, 2),
            "p50_s": round(statistics.median(self.latencies), 3),
            "p95_s": round(float(np.percentile(self.latencies, 95)), 3),
            "wait_p95_s": round(float(np.percentile(self.waits, 95)), 3),
            "refused": self.refused,
            "wrong": len(self.wrong),
            "lost": self.lost,
        }


def fake_recordings(count: int) -> list[tuple[bytes, float, str]]:
    """Tones, each with the answer that it must get."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(count):
        pitches = [int(p) * 50 for p in rng.integers(4, 120, size=int(rng.integers(1, 9)))]
        text = " ".join(f"Tone {p} hertz." for p in pitches)
        found.append((wav(tones(*pitches)), float(len(pitches)), text))
    return found


async def real_recordings(url: str, count: int) -> list[tuple[bytes, float, str]]:
    """Cuts of the example; the right answer is what the idle server says."""
    from vermilion.audio import load_audio

    samples = load_audio(EXAMPLE)
    cuts = [samples[at * 16000 : (at + 6) * 16000] for at in range(2, 60, 6)]
    async with httpx.AsyncClient(timeout=600) as client:
        known = [(wav(cut), 6.0, (await ask(client, url, wav(cut))).json()["text"]) for cut in cuts]
    return [known[i % len(known)] for i in range(count)]


async def ask(client: httpx.AsyncClient, url: str, content: bytes) -> httpx.Response:
    """One request."""
    return await client.post(
        f"{url}/v1/audio/transcriptions",
        data={"model": "vermilion"},
        files={"file": ("a.wav", content, "audio/wav")},
    )


async def client(url: str, work: list, outcome: Outcome) -> None:
    """Takes recordings until none is left."""
    async with httpx.AsyncClient(timeout=600) as session:
        while work:
            content, seconds, text = work.pop()
            first = time.monotonic()
            while True:
                began = time.monotonic()
                answer = await ask(session, url, content)
                if answer.status_code not in (429, 503):
                    break
                outcome.refused += 1
                await asyncio.sleep(min(5.0, float(answer.headers["retry-after"])))
            if answer.status_code != 200:
                outcome.lost += 1
                continue
            outcome.latencies.append(time.monotonic() - began)
            outcome.waits.append(time.monotonic() - first)
            outcome.audio += seconds
            if answer.json()["text"] != text:
                outcome.wrong.append(f"{answer.json()['text']!r} instead of {text!r}")


async def phase(url: str, recordings: list, clients: int) -> Outcome:
    """All recordings, by so many clients."""
    outcome, work = Outcome(), list(recordings)
    began = time.monotonic()
    await asyncio.gather(*(client(url, work, outcome) for _ in range(clients)))
    outcome.seconds = time.monotonic() - began
    return outcome


async def run(url: str, arguments: argparse.Namespace, slots: int) -> list[dict]:
    """The phases in turn, twice, so that a change of the machine's mood shows."""
    fake = arguments.models == "fake"
    recordings = fake_recordings(arguments.requests) if fake else await real_recordings(url, arguments.requests)
    rows = []
    for turn in range(arguments.turns):
        for name, clients in (("full", slots), ("overload", 5 * slots)):
            outcome = await phase(url, recordings, clients)
            rows.append(outcome.row(f"{name} {turn + 1}: {clients} clients"))
            print(json.dumps(rows[-1]), file=sys.stderr)
            for wrong in outcome.wrong[:3]:
                print("wrong:", wrong, file=sys.stderr)
    return rows


def main() -> int:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="fake")
    parser.add_argument("--delay", type=float, default=0.02, help="of the fakes: seconds per second of audio")
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--slots", type=int, default=16, help="requests that are let in at once")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with bind("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    with TemporaryDirectory() as folder:
        given = (arguments.models, arguments.delay, port, folder, arguments.slots, arguments.workers)
        server = subprocess.Popen([sys.executable, "-c", SERVER, *map(str, given)])
        url = f"http://127.0.0.1:{port}"
        wait_ready(url, seconds=300)
        rows = asyncio.run(run(url, arguments, arguments.slots))
        left = list((Path(folder) / "spool").iterdir())
        server.terminate()
        code = server.wait(60)
    for row in rows:
        print(json.dumps(row) if arguments.json else "  ".join(f"{k} {v}" for k, v in row.items()))
    print(f"temporary files left: {len(left)}", file=sys.stderr)
    return 1 if code or left or any(row["wrong"] or row["lost"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
