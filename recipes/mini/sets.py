"""What was spoken and gathered → the manifests that the recipes train on.

    python recipes/mini/sets.py --speech data/speech --sounds data/sounds --out data/sets

asr-{train,dev,test}.jsonl: Mandarin and English; lid-{train,dev,test}.jsonl: seven languages, as many clips of each;
vad-{speech,singing,music,noise}-{train,dev}.jsonl: sources that are mixed on a known timeline.
Hibari's one voice speaks at most --hibari-hours of the training set; Mandarin is repeated --mandarin times.
"""

import argparse
import hashlib
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from vermilion.manifests import Utterance, read_manifest, write_manifest

SETS = ("train", "dev", "test")
LANGUAGES = ("zh", "en", "es", "fr", "it", "ru", "de")


def hours(rows: Iterable[Utterance]) -> float:
    return sum(r.duration or 0.0 for r in rows) / 3600


def spoken(folder: Path) -> dict[str, list[Utterance]]:
    """Everything spoken, by set, in an order that hangs on the ids alone."""
    found: dict[str, list[Utterance]] = {name: [] for name in SETS}
    for manifest in sorted(folder.glob("*.jsonl")):
        for row in read_manifest(manifest):
            if 0.5 <= (row.duration or 0) <= 9.0:
                found[row.extra["set"]].append(row)
    for rows in found.values():
        rows.sort(key=lambda r: hashlib.sha256(r.id.encode()).hexdigest())
    return found


def for_recognition(rows: list[Utterance], hibari_hours: float, mandarin: int) -> list[Utterance]:
    chosen, spent = [], 0.0
    for row in rows:
        if row.language not in ("zh", "en") or row.id.startswith("espeak"):
            continue
        if row.id.startswith("hibari"):
            spent += (row.duration or 0.0) / 3600
            if spent > hibari_hours:
                continue
        times = mandarin if row.language == "zh" else 1
        chosen += [replace(row, id=row.id if n == 0 else f"{row.id}-{n + 1}") for n in range(times)]
    return chosen


def for_languages(rows: list[Utterance], most: int) -> list[Utterance]:
    """As many clips of every language, no more than two fifths of them by one engine where there are others."""
    by_language: dict[str, list[Utterance]] = defaultdict(list)
    for row in rows:
        by_language[row.language or ""].append(row)
    chosen = []
    for language in LANGUAGES:
        own = by_language[language]
        kokoro = [r for r in own if r.id.startswith("kokoro")]
        others = [r for r in own if not r.id.startswith("kokoro")]
        natural = kokoro[: max(most * 3 // 5, most - len(others))]
        chosen += natural + others[: most - len(natural)]
    return chosen


def for_mixing(rows: list[Utterance], hibari: int) -> list[Utterance]:
    """Speech for voice activity: all voices, few clips of Hibari's one."""
    quota = iter(range(hibari))
    return [r for r in rows if not r.id.startswith("hibari") or next(quota, None) is not None]


def parted(rows: list[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
    """Sounds for training and for validation, by their id."""
    draws = [int(hashlib.sha256(r.id.encode()).hexdigest()[:8], 16) % 10 for r in rows]
    return [r for r, d in zip(rows, draws, strict=True) if d], [r for r, d in zip(rows, draws, strict=True) if not d]


def main() -> None:
    """Write all manifests."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--speech", type=Path, required=True)
    arguments.add_argument("--sounds", type=Path, required=True)
    arguments.add_argument("--hibari-hours", type=float, default=2.0)
    arguments.add_argument("--mandarin", type=int, default=2)
    arguments.add_argument("--out", type=Path, required=True)
    given = arguments.parse_args()
    speech = spoken(given.speech)
    sets: dict[str, list[Utterance]] = {}
    for name, rows in speech.items():
        train = name == "train"
        sets[f"asr-{name}"] = for_recognition(
            rows, given.hibari_hours if train else 0.1, given.mandarin if train else 1
        )
        sets[f"lid-{name}"] = for_languages(rows, 600 if train else 30)
    phrases = read_manifest(given.sounds / "phrases.jsonl")
    sets["vad-speech-train"] = for_mixing(speech["train"], 800) + parted(phrases)[0]
    sets["vad-speech-dev"] = for_mixing(speech["dev"], 40) + parted(phrases)[1]
    for kind in ("music", "noise"):
        rows = read_manifest(given.sounds / f"{kind}.jsonl")
        sets[f"vad-{kind}-train"], sets[f"vad-{kind}-dev"] = parted(rows)
    chance = random.Random(11)
    for name, rows in sets.items():
        chance.shuffle(rows)
        write_manifest(given.out / f"{name}.jsonl", rows)
        print(f"{name}: {len(rows)} rows, {hours(rows):.2f} h")


if __name__ == "__main__":
    main()
