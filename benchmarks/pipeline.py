"""The whole pipeline at the published sizes on a 5-minute recording, against the published implementation.

    python benchmarks/full_size.py /tmp/full          # and FireRedVAD put into it
    pip install --no-deps fireredasr kaldi-native-fbank
    python benchmarks/pipeline.py /tmp/full --json out.json
    python benchmarks/pipeline.py /tmp/full --memory int8          # peak memory alone, twice: 5 and 20 minutes

Ours: voice activity, language, recognition with beam 3, CTC times, punctuation. Published: features, encoder twice
(language and recognition), beam 3, one segment at a time, on every n-th segment by length, scaled to all of them;
its voice activity and punctuation are left out in its favour. 4.5 tokens per second of speech on both sides.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from vermilion import PipelineOptions, load
from vermilion.audio import load_audio
from vermilion.decoding import beam, draft

TOKENS_PER_SECOND = 4.5
TOUR = Path(__file__).parent.parent / "examples" / "tour.ogg"


def paced(lengths, options, max_steps=None):
    """Limits of 4.5 tokens per second of each utterance; the labels of a language stay two."""
    if max_steps is not None:
        return torch.as_tensor(max_steps)
    return torch.tensor([math.ceil(TOKENS_PER_SECOND * 0.04 * n) for n in lengths.tolist()])


def recording(seconds: int) -> np.ndarray:
    tour = load_audio(TOUR)
    return np.tile(tour, seconds * 16000 // len(tour) + 1)[: seconds * 16000]


def build(folder: Path, precision: str, search: str = "beam"):
    from vermilion.decoding import DecodingOptions

    beam.step_limits = draft.step_limits = paced
    options = PipelineOptions(precision=precision, route="never", decoding=DecodingOptions(search=search))
    pipeline = load(folder, options=options)
    pipeline.recognizer._forbidden |= {pipeline.recognizer.eos}
    return pipeline


def published_seconds(theirs, audio: np.ndarray, spans: list, every: int) -> float:
    """Estimated seconds for all segments."""
    ordered = sorted(spans, key=lambda s: s.duration)[every // 2 :: every]
    spent = 0.0
    for span in ordered:
        piece = audio[int(span.start * 16000) : int(span.end * 16000)]
        start = time.perf_counter()
        for steps in (2, math.ceil(TOKENS_PER_SECOND * span.duration)):  # language, then text
            theirs.search(theirs.encode([piece]), steps)
        spent += time.perf_counter() - start
    return spent * sum(s.duration for s in spans) / sum(s.duration for s in ordered)


def compare(arguments: argparse.Namespace) -> None:
    from recogniser import Theirs

    audio = recording(arguments.seconds)
    sides = {p: build(arguments.folder, p) for p in arguments.precisions.split(",")}
    theirs = Theirs(arguments.folder / "FireRedASR2-AED")
    spans = next(iter(sides.values())).detector.detect((audio, 16000)).segments
    speech = sum(s.duration for s in spans)
    print(f"{arguments.seconds} s, {len(spans)} segments, {speech:.0f} s of speech", flush=True)
    times: dict[str, list[float]] = {"published": [], **{p: [] for p in sides}}
    for _ in range(arguments.rounds):
        times["published"].append(published_seconds(theirs, audio, spans, arguments.every))
        for name, pipeline in sides.items():
            start = time.perf_counter()
            transcript = pipeline.transcribe((audio, 16000))
            times[name].append(time.perf_counter() - start)
            assert not transcript.failures, transcript.failures[:1]
        for name, values in times.items():
            ratios = sorted(b / a for a, b in zip(values, times["published"], strict=True))
            middle, span = statistics.median(ratios), f"{ratios[0]:.1f}..{ratios[-1]:.1f}, n={len(ratios)}"
            rtf = statistics.median(values) / arguments.seconds
            print(f"{name:10} RTF {rtf:.3f}, per second of speech {statistics.median(values) / speech:.3f}, "
                  f"ratio {middle:.1f} ({span})", flush=True)  # fmt: skip
        if arguments.json:
            arguments.json.write_text(json.dumps({"seconds": arguments.seconds, "speech": speech, "times": times}))


def memory(folder: Path, precision: str, seconds: int) -> None:
    start = time.perf_counter()
    pipeline = build(folder, precision)
    loaded, ready = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    for length in (seconds, 4 * seconds):
        pipeline.transcribe((recording(length), 16000))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{precision}: {length} s: peak {peak:.2f} GB (loaded in {loaded:.1f} s, {ready:.2f} GB)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--precisions", default="float32,int8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--every", type=int, default=5, help="the published side runs every n-th segment")
    parser.add_argument("--memory", help="measure the peak memory of one precision instead")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    if arguments.memory:
        memory(arguments.folder, arguments.memory, arguments.seconds)
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
