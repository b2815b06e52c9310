"""Tiny corpora for recipes: every token is a tone of its own, so that a small network can learn them in seconds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from vermilion.manifests import Utterance, write_manifest
from vermilion.training.augment import AugmentOptions
from vermilion.training.options import AedOptions, DataOptions, TrainingOptions

TONES = {"一": 400, "二": 900, "三": 1700, "四": 2800, "YES": 550, "NO": 1250}
TINY = AedOptions(width=32, heads=2, encoder_layers=2, decoder_layers=1, dropout=0.1, label_smoothing=0.05)
DATA = DataOptions(max_frames=1200, max_items=8, workers=1, buckets=3)
QUIET = AugmentOptions.none()


def options(folder: Path, steps: int, **more) -> TrainingOptions:
    base = TrainingOptions(
        output_dir=folder, steps=steps, warmup_steps=5, learning_rate=3e-3, schedule="constant", save_every=1000,
        validate_every=0, log_every=5, threads=1, device="cpu",
    )  # fmt: skip
    return replace(base, **more)


def sound(words: list[str], seed: int) -> np.ndarray:
    """0.2 s per word."""
    rng = np.random.default_rng(seed)
    time = np.arange(3200) / 16000
    tones = [np.sin(2 * np.pi * TONES[w] * time) * np.hanning(3200) * 0.4 for w in words]
    signal = np.concatenate(tones)
    return (signal + rng.normal(0, 0.005, len(signal))).astype(np.float32)


def corpus(folder: Path, count: int = 24, seed: int = 0, *, language: bool = False) -> Path:
    """Write recordings of 2 to 4 tones and their manifest."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    utterances = []
    for i in range(count):
        chinese = i % 2 == 0
        choice = list("一二三四") if chinese else ["YES", "NO"]
        words = [str(w) for w in rng.choice(choice, int(rng.integers(2, 5)))]
        path = folder / f"u{seed}-{i}.wav"
        samples = sound(words, 1000 * seed + i)
        soundfile.write(path, samples, 16000)
        label = ("zh mandarin" if i % 4 == 0 else "zh yue") if chinese else "en"
        text = "".join(words) if chinese else " ".join(words).lower() + "."
        utterances.append(
            Utterance(
                path.stem, str(path), duration=len(samples) / 16000, text=text, language=label if language else None
            )
        )
    manifest = folder / f"manifest{seed}.jsonl"
    write_manifest(manifest, utterances)
    return manifest
