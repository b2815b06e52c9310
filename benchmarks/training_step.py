"""CPU time of a training step of the recogniser, with and without dropout, and of preparing an utterance.

python benchmarks/training_step.py [--preset mini] [--seconds 2.8] [--items 14] [--threads 1]
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from vermilion.audio import FeatureExtractor
from vermilion.manifests import Utterance
from vermilion.training.aed import AedNetwork, set_dropout
from vermilion.training.augment import AugmentOptions
from vermilion.training.loop import adamw
from vermilion.training.options import AedOptions, DataOptions, TrainingOptions
from vermilion.training.speech import SpeechData

VOCABULARY, TOKENS = 1864, 14


def step_seconds(network: AedNetwork, seconds: float, items: int, repeats: int = 5) -> float:
    frames = round(100 * seconds)
    features, lengths = torch.randn(items, frames, 80), torch.full((items,), frames)
    lengths[items // 4 :] -= 10
    tokens, counts = torch.randint(6, VOCABULARY, (items, TOKENS)), torch.full((items,), TOKENS)
    optimizer = adamw(network.train(), TrainingOptions())
    for i in range(repeats + 1):
        if i == 1:
            began = time.process_time()
        network(features, lengths, tokens, counts)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return (time.process_time() - began) / repeats


def preparing_seconds(seconds: float, augment: AugmentOptions | None, count: int = 100) -> float:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.flac"
        soundfile.write(path, rng.normal(0, 0.1, int(16000 * seconds)), 16000)
        data = SpeechData(
            [Utterance("a", str(path), duration=seconds)], [[6]], FeatureExtractor(np.zeros(80), np.ones(80)),
            DataOptions(), augment=augment,
        )  # fmt: skip
        began = time.process_time()
        for epoch in range(count):
            data.features(epoch, 0)
        return (time.process_time() - began) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--seconds", type=float, default=2.8)
    parser.add_argument("--items", type=int, default=14)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    options = AedOptions(preset=chosen.preset)
    network = AedNetwork(options.sizes, VOCABULARY, options)
    audio = chosen.seconds * chosen.items
    print(f"{sum(p.numel() for p in network.parameters()) / 1e6:.1f} M parameters, {audio:.1f} s of audio a step")
    for dropout in (options.dropout, 0.0):
        set_dropout(network, dropout)
        took = step_seconds(network, chosen.seconds, chosen.items)
        print(f"dropout {dropout}: {took:.2f} CPU-seconds, {audio / took:.0f} times real time")
    for name, augment in {"nothing": None, "all augmentation": AugmentOptions()}.items():
        print(f"preparing {chosen.seconds} s with {name}: {1000 * preparing_seconds(chosen.seconds, augment):.1f} ms")


if __name__ == "__main__":
    main()
