"""Log-Mel features: ours against kaldi-native-fbank, milliseconds per second of audio on one thread.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 python benchmarks/features.py

Both get the same 60 seconds of int16 noise; runs are interleaved and the median of the paired ratios is what counts.
kaldi-native-fbank is measured as it is used: its frames end up in one numpy array.
"""

from __future__ import annotations

import argparse
import statistics
import time

import kaldi_native_fbank as knf
import numpy as np

from vermilion.audio import FeatureExtractor


def reference(samples: np.ndarray) -> np.ndarray:
    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = 80
    options.mel_opts.high_freq = 0
    online = knf.OnlineFbank(options)
    online.accept_waveform(16000, samples.astype(np.float32))
    online.input_finished()
    return np.stack([online.get_frame(i) for i in range(online.num_frames_ready)])


def timed(work, samples: np.ndarray) -> float:
    start = time.perf_counter()
    work(samples)
    return (time.perf_counter() - start) * 1000 / (len(samples) / 16000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--runs", type=int, default=15)
    arguments = parser.parse_args()
    samples = (np.random.default_rng(0).standard_normal(arguments.seconds * 16000) * 3000).astype(np.int16)
    ours = FeatureExtractor(np.zeros(80), np.ones(80))
    difference = np.abs(ours.log_mel(samples) - reference(samples)).max()
    pairs = [(timed(ours, samples), timed(reference, samples)) for _ in range(arguments.runs)]
    mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = sorted(b / a for a, b in pairs)
    print(f"largest difference        {difference:.1e}")
    print(f"ours, with normalisation  {mine:.2f} ms per second of audio")
    print(f"kaldi-native-fbank        {theirs:.2f} ms per second of audio")
    span = f"{ratios[0]:.1f} .. {ratios[-1]:.1f}, n={len(ratios)}"
    print(f"ratio                     {statistics.median(ratios):.1f} ({span})")


if __name__ == "__main__":
    main()
