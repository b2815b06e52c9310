"""The recogniser against the published implementation at the published size: encoder, decoder, and both together.

    python benchmarks/full_size.py /tmp/full
    pip install --no-deps fireredasr kaldi-native-fbank
    python benchmarks/recogniser.py /tmp/full/FireRedASR2-AED --json out.json

Random weights, 4.5 tokens per second of audio, beam 3. All sides take turns in one process; every figure is the median
of its runs, every ratio the median of the ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path

import kaldi_native_fbank as knf
import numpy as np
import torch
from published import Published

from vermilion.asr import AedRecognizer, DecodingOptions
from vermilion.decoding.beam import beam_search
from vermilion.encoding import Utterance

TOKENS_PER_SECOND = 4.5
OPTIONS = DecodingOptions()


def published_features(samples: np.ndarray) -> torch.Tensor:
    """kaldi-native-fbank frame by frame, as the published code uses it."""
    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.mel_opts.num_bins = 80
    options.mel_opts.high_freq = 0
    online = knf.OnlineFbank(options)
    online.accept_waveform(16000, (samples * 32768).tolist())
    return torch.from_numpy(np.stack([online.get_frame(i) for i in range(online.num_frames_ready)]))


class Theirs:
    def __init__(self, folder: Path) -> None:
        self.published = Published(folder)

    def features(self, audio: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [published_features(a) for a in audio]
        return torch.stack(rows), torch.tensor([len(r) for r in rows])

    def encode(self, audio: list[np.ndarray]):
        return self.published.encode(*self.features(audio))

    def search(self, encoded, steps: int) -> None:
        self.published.search(*encoded, OPTIONS.beam_size, steps)


class Ours:
    def __init__(self, folder: Path, precision: str) -> None:
        self.recognizer = AedRecognizer.from_pretrained(folder, precision=precision)

    def encode(self, audio: list[np.ndarray]):
        return self.recognizer.front.encode_all([Utterance(a) for a in audio])

    def search(self, encoded, steps: int) -> None:
        r = self.recognizer
        forbidden = r._forbidden | {r.eos}
        limits = [steps] * len(encoded[0])
        beam_search(r.decoder, *encoded, OPTIONS, sos=r.sos, eos=r.eos, forbidden=forbidden, max_steps=limits)


def timed(work, *arguments):
    start = time.perf_counter()
    result = work(*arguments)
    return time.perf_counter() - start, result


def measure(sides: dict, seconds: float, batch: int, steps: int, rounds: int) -> list[dict]:
    """Rounds in which every side encodes and searches the same noise in turn; times in seconds."""
    generator = np.random.default_rng(0)
    rows = []
    for index in range(rounds + 1):
        audio = [(generator.standard_normal(int(seconds * 16000)) * 0.1).astype(np.float32) for _ in range(batch)]
        row = {}
        for name, side in sides.items():
            if batch > 1 and name == "published":
                first, encoded = timed(side.encode, audio[:1])  # it is measured one by one: batches cost it the same
                second, _ = timed(side.search, encoded, steps)
                row[name] = (first * batch, second * batch)
            else:
                first, encoded = timed(side.encode, audio)
                second, _ = timed(side.search, encoded, steps)
                row[name] = (first, second)
        if index:  # the first round warms up
            rows.append(row)
    return rows


def report(rows: list[dict], seconds: float, batch: int, steps: int) -> list[dict]:
    wanted = math.ceil(TOKENS_PER_SECOND * seconds)
    found = []
    print(f"\n{batch} x {seconds:g} s, {steps} of {wanted} steps run, {len(rows)} rounds")
    print(f"{'':12}{'encoder ms/s':>14}{'ratio':>16}{'step ms/utt':>14}{'ratio':>16}{'RTF':>8}{'ratio':>18}")
    for name in rows[0]:
        audio = seconds * batch
        encoder = [1000 * row[name][0] / audio for row in rows]
        step = [1000 * row[name][1] / steps / batch for row in rows]
        total = [(e * seconds + s * wanted) / 1000 / seconds for e, s in zip(encoder, step, strict=True)]
        base_e = [1000 * row["published"][0] / audio for row in rows]
        base_s = [1000 * row["published"][1] / steps / batch for row in rows]
        base = [(e * seconds + s * wanted) / 1000 / seconds for e, s in zip(base_e, base_s, strict=True)]
        ratios = [
            [b / a for a, b in zip(*pair, strict=True)] for pair in ((encoder, base_e), (step, base_s), (total, base))
        ]
        cells = [statistics.median(v) for v in (encoder, step, total)]
        shown = [f"{statistics.median(r):.1f} ({min(r):.1f}..{max(r):.1f})" for r in ratios]
        print(f"{name:12}{cells[0]:14.0f}{shown[0]:>16}{cells[1]:14.1f}{shown[1]:>16}{cells[2]:8.3f}{shown[2]:>18}")
        found.append(
            {
                "side": name,
                "seconds": seconds,
                "batch": batch,
                "rounds": len(rows),
                "encoder_ms_per_s": cells[0],
                "step_ms_per_utterance": cells[1],
                "rtf": cells[2],
                "ratios": {
                    k: [min(r), statistics.median(r), max(r)]
                    for k, r in zip(("encoder", "step", "whole"), ratios, strict=True)
                },
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precisions", default="float32,int8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="decoder steps run per round")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    sides = {"published": Theirs(arguments.folder)}
    sides |= {p: Ours(arguments.folder, p) for p in arguments.precisions.split(",")}
    found = []
    for seconds, batch in ((5.0, 1), (10.0, 1), (10.0, 8)):
        rows = measure(sides, seconds, batch, arguments.steps, arguments.rounds)
        found += report(rows, seconds, batch, arguments.steps)
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
