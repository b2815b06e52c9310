"""How many live sessions this machine holds: a recording at its own pace in 1, 2, 4, 8 … sessions at once.

    python benchmarks/live.py --models starter --seconds 60 --sessions 1,2,4,8 --json out.json

Each session begins a second after the one before, so that utterances do not end together. A number of sessions is held
if finals come within a second of what they take alone: the silence that ends an utterance is included in all delays.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from pathlib import Path

import numpy as np

from vermilion import PipelineOptions
from vermilion.audio import load_audio
from vermilion.live import Final, LiveOptions, load_live
from vermilion.live.sources import paced

TOUR = Path(__file__).parent.parent / "examples" / "tour.ogg"
LAG = 1.0
"""seconds that finals may lag behind those of one session"""


def play(live, audio: np.ndarray, options: LiveOptions, delay: float, results: list) -> None:
    time.sleep(delay)
    session, finals, partials = live.session(options), [], 0
    for samples, rate in paced((audio, 16000)):
        for event in session.accept(samples, rate):
            if isinstance(event, Final):
                finals.append(event)
            partials += type(event).__name__ == "Partial"
    finals += [e for e in session.finish() if isinstance(e, Final)]
    results.append((session.report(), [f.delay for f in finals], partials))


def measure(live, audio: np.ndarray, options: LiveOptions, sessions: int) -> dict:
    results: list = []
    busy, dropped, began = live.engine.busy, live.engine.dropped, time.monotonic()
    threads = [threading.Thread(target=play, args=(live, audio, options, i * 1.0, results)) for i in range(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.monotonic() - began
    delays = [d for _, own, _ in results for d in own]
    first = [r.first_partial.median for r, *_ in results if r.first_partial.median is not None]
    partial = [r.partial.median for r, *_ in results if r.partial.median is not None]
    shown, changed = (sum(getattr(r, k) for r, *_ in results) for k in ("shown_words", "changed_words"))
    return {
        "sessions": sessions,
        "finals": len(delays),
        "final_p50": statistics.median(delays),
        "final_p95": float(np.percentile(delays, 95)),
        "first_partial_p50": statistics.median(first) if first else None,
        "partial_p50": statistics.median(partial) if partial else None,
        "partials_per_minute": sum(p for *_, p in results) / sessions / (len(audio) / 16000 / 60),
        "partials_dropped": live.engine.dropped - dropped,
        "changed_share": changed / shown if shown else 0.0,
        "rtf_per_session": statistics.median(r.real_time_factor for r, *_ in results),
        "networks_busy": (live.engine.busy - busy) / spent,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="starter")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--sessions", default="1,2,4,8,16")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tour = load_audio(TOUR)
    audio = np.tile(tour, arguments.seconds * 16000 // len(tour) + 1)[: arguments.seconds * 16000]
    options = LiveOptions(events=False)
    rows = []
    with load_live(arguments.models, options=PipelineOptions(precision=arguments.precision, events=False)) as live:
        measure(live, audio[: 10 * 16000], options, 1)  # warm
        for count in map(int, arguments.sessions.split(",")):
            row = measure(live, audio, options, count)
            row["held"] = row["final_p95"] <= (rows[0]["final_p95"] if rows else row["final_p95"]) + LAG
            rows.append(row)
            print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}), flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(rows, indent=1))
            if not row["held"]:
                break
    print(f"{max(r['sessions'] for r in rows if r['held'])} sessions are held")


if __name__ == "__main__":
    main()
