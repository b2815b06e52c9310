"""Make the small example: spoken commands for a home, by Hibari (train, dev, test) and by eSpeak NG (test only).

    python recipes/finetune/make_data.py --out data/home

Needs recipes/finetune/requirements.txt; the second voice needs the program `espeak-ng`. No sentence is in two sets.
Writes train.jsonl, dev.jsonl, test.jsonl, test-voice.jsonl and their 16 kHz FLAC files.
"""

import argparse
import hashlib
import json
import random
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr

ROOMS = [
    "kitchen",
    "bathroom",
    "bedroom",
    "living room",
    "hallway",
    "garage",
    "attic",
    "nursery",
    "study",
    "basement",
    "guest room",
    "conservatory",
]
THINGS = [
    "lights",
    "lamp",
    "blinds",
    "curtains",
    "heating",
    "radiator",
    "dishwasher",
    "humidifier",
    "ceiling fan",
    "dehumidifier",
    "speaker",
]
LEVELS = [
    "ten",
    "fifteen",
    "twenty",
    "twenty five",
    "thirty",
    "forty",
    "fifty five",
    "sixty",
    "seventy",
    "eighty five",
    "ninety",
]
COLOURS = ["warm white", "amber", "turquoise", "violet", "crimson", "cold white"]
PATTERNS = (
    "turn on the {thing} in the {room}",
    "turn off the {thing} in the {room}",
    "switch the {room} {thing} to {level} percent",
    "dim the {room} lamp to {level} percent",
    "make the {room} lights {colour}",
    "set a timer for {level} minutes in the {room}",
    "heat the {room} to {level} degrees",
    "open the blinds in the {room} and the {other}",
    "is the {thing} in the {room} still running",
    "remind me in {level} minutes to check the {thing}",
)


OTHER_PATTERNS = (
    "please start the {thing} we have in the {room}",
    "i want {colour} light where the {thing} stands",
    "bring the {room} up to {level} degrees before we come home",
    "nobody needs the {thing} now so stop it",
    "close all the blinds except those in the {room}",
    "tell me how warm it is in the {room} and in the {other}",
    "give me {level} percent of light in the {room} until midnight",
    "wake me in the {room} after {level} minutes",
)
"""the same words in wordings that are never trained on"""
EVERYDAY = (
    "we walked along the river until it was dark",
    "my sister has moved to a small town near the coast",
    "the train to the city leaves every hour",
    "he could not find his keys this morning",
    "they have been friends since they were at school",
    "i would like a cup of tea and a piece of bread",
    "the old man told us a story about the war",
    "it has been raining since monday",
    "she reads the newspaper before she goes to work",
    "nobody knew where the children had gone",
    "we should ask the doctor what he thinks",
    "the price of apples has gone up again",
    "there was no water in the village for two days",
    "you can leave your coat on the chair",
    "the horse ran across the field and over the hill",
    "i have never seen so many people in one place",
    "our teacher speaks four languages very well",
    "the letter came too late to change anything",
    "after the meeting we all went out to eat",
    "the house was built more than a hundred years ago",
    "he said that he would call you tomorrow",
    "they sold their car and bought two bicycles",
    "the king gave half of his land to the poor",
    "please write your name at the top of the page",
    "the music was so loud that we could not talk",
    "her brother works in a hospital at night",
    "most of the shops are closed on sunday",
    "we lost our way in the forest and had to wait for help",
    "a good book is better than a bad film",
    "the soldiers crossed the bridge without a sound",
    "i am sorry that you had to wait so long",
    "the ship came back without its captain",
    "snow fell on the mountains during the night",
    "what would you do if you had more time",
    "the farmer counted his sheep twice",
    "it is not far from here to the station",
    "his hands were cold and his shoes were wet",
    "the answer to your question is very simple",
    "we hope to see you again next summer",
    "the dog slept in front of the fire",
)
"""what has nothing to do with the domain: what a model forgets"""


def sentences(count: int, seed: int, patterns: Sequence[str] = PATTERNS) -> list[str]:
    """Different commands, in an order that is always the same."""
    draw = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        room, other = draw.sample(ROOMS, 2)
        words = {"thing": draw.choice(THINGS), "level": draw.choice(LEVELS), "colour": draw.choice(COLOURS)}
        found[draw.choice(patterns).format(room=room, other=other, **words)] = None
    return list(found)


def hibari() -> Callable[[str, random.Random], tuple[np.ndarray, int]]:
    """The engine's own voice."""
    from hibari.tts import Hibari

    engine = Hibari(threads=1)
    return lambda text, draw: (engine(text, speed=draw.uniform(0.8, 1.25), seed=draw.randrange(1 << 30)), 24000)


def espeak(text: str, draw: random.Random) -> tuple[np.ndarray, int]:
    """A voice of another kind: formant synthesis."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        voice, speed = draw.choice(["en-us", "en-gb"]), str(draw.randrange(130, 170))
        subprocess.run(["espeak-ng", "-v", voice, "-s", speed, "-w", file.name, text], check=True)
        return soundfile.read(file.name, dtype="float32")


def write(
    out: Path, name: str, texts: list[str], speak: Callable[[str, random.Random], tuple[np.ndarray, int]]
) -> None:
    """Speak sentences: FLAC files and their manifest."""
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    seconds = 0.0
    with (out / f"{name}.jsonl").open("w", encoding="utf-8") as manifest:
        for text in texts:
            key = hashlib.sha256(f"{name} {text}".encode()).hexdigest()[:12]
            samples, rate = speak(text, random.Random(key))
            samples = soxr.resample(samples, rate, 16000)
            samples = samples * min(1.0, 0.9 / max(1e-6, float(np.abs(samples).max())))
            soundfile.write(folder / f"{key}.flac", samples, 16000, subtype="PCM_16")
            entry = {"id": key, "audio_filepath": f"{name}/{key}.flac", "duration": round(len(samples) / 16000, 4)}
            manifest.write(json.dumps({**entry, "text": text, "lang": "en"}) + "\n")
            seconds += len(samples) / 16000
    print(f"{name}: {len(texts)} sentences, {seconds / 60:.1f} minutes")


def main() -> None:
    """Make all sets."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--train", type=int, default=300, help="sentences to train on")
    arguments.add_argument("--test", type=int, default=60, help="sentences of each test set")
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    texts = sentences(given.train + 3 * given.test, given.seed)
    train, rest = texts[: given.train], texts[given.train :]
    voice = hibari()
    write(given.out, "train", train, voice)
    write(given.out, "dev", rest[: given.test], voice)
    write(given.out, "test", rest[given.test : 2 * given.test], voice)
    write(given.out, "test-words", sentences(given.test, given.seed, OTHER_PATTERNS), voice)
    write(given.out, "everyday", list(EVERYDAY), voice)
    write(given.out, "test-voice", rest[2 * given.test :], espeak)


if __name__ == "__main__":
    main()
