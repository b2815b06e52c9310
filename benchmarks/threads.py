"""Default threads on an idle and on a busy machine: voice activity of a long recording, a corpus of short files.

    python benchmarks/threads.py --models FOLDER --rounds 3
    python benchmarks/threads.py --against OTHER/src      # another version of the package, in turns with this one

The busy half runs beside one process per core that computes without end. Every measurement is a fresh command with
its default options; what others do on the machine changes seconds, so compare ratios within a run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile

from vermilion.audio import load_audio
from vermilion.runtime import usable_cores

ROOT = Path(__file__).parents[1]
TOUR = ROOT / "examples" / "tour.ogg"
RATE = 16000


@contextmanager
def beside(processes: int) -> Iterator[None]:
    """Run so many processes that compute without end."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def material(folder: Path, minutes: float, files: int) -> tuple[Path, Path]:
    """The example recording again and again, as one long file and as a manifest of short ones."""
    tour = load_audio(TOUR)
    long = folder / "long.wav"
    soundfile.write(long, np.resize(tour, int(minutes * 60 * RATE)), RATE)
    lines = []
    for i in range(files):
        start = (i * 7 * RATE) % (len(tour) - 6 * RATE)
        path = folder / f"short{i}.wav"
        soundfile.write(path, tour[start : start + (4 + i % 3) * RATE], RATE)
        lines.append(json.dumps({"audio_filepath": str(path), "id": str(i)}))
    manifest = folder / "short.jsonl"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return long, manifest


def seconds(source: Path, arguments: list[str]) -> float:
    """Wall clock of a command with its default options, under one version of the package."""
    left_out = ("OMP_", "OPENBLAS_", "MKL_", "KMP_", "GOMP_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(left_out)} | {"PYTHONPATH": str(source)}
    began = time.monotonic()
    command = [sys.executable, "-m", "vermilion", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}: {done.stderr}")
    return time.monotonic() - began


def main() -> None:
    """Measure in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", default="mini", help="for the corpus")
    parser.add_argument("--against", type=Path, help="folder `src` of another version")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--files", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sources = {"here": ROOT / "src"} | ({"against": options.against} if options.against else {})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        long, manifest = material(folder, options.minutes, options.files)
        works = {"vad": ["vad", str(long), "--json"], "corpus": ["transcribe", "--manifest", str(manifest)]}
        found: dict[tuple[str, str, str], list[float]] = {}
        for turn in range(options.rounds):
            for load, processes in (("idle", 0), ("busy", usable_cores())):
                for work, arguments in works.items():
                    for version, source in sources.items():
                        out = folder / f"{turn}-{load}-{version}"
                        more = ["--models", options.models, "-o", str(out)] if work == "corpus" else []
                        with beside(processes):
                            taken = seconds(source, [*arguments, *more])
                        found.setdefault((work, load, version), []).append(taken)
                        print(f"{work} {load} {version} {taken:.1f} s", file=sys.stderr, flush=True)
    for (work, load, version), values in found.items():
        each = ", ".join(f"{v:.1f}" for v in sorted(values))
        print(f"{work:7} {load:5} {version:8} {statistics.median(values):7.1f} s  ({each})")


if __name__ == "__main__":
    main()
