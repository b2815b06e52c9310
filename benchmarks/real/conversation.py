"""Simulated conversations with exact labels and texts, and prompts with long pauses: what voice activity must cut.

Real voices take turns: pauses of 0.1 to 3 s, every twelfth turn begins before the last one ends, short answers fall
into long turns, and noise of several levels lies under all of it. English ones have a text to be recognised; those of
several languages are labelled only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import build
import numpy as np
import texts
import timeline
from timeline import RATE, Samples, Take

from vermilion.audio import load_audio
from vermilion.manifests import Utterance

ENGLISH, MIXED = 10, 8
"""recordings"""
SECONDS = 90.0
POOL = 80
ROOMS: tuple[tuple[str, float], ...] = (("quiet", 0), ("room", 30), ("room", 20), ("room", 10), ("effects", 15))
"""what lies under the speech, and how many dB below"""
GAPS = ((0.45, 0.1, 0.5), (0.35, 0.5, 1.2), (0.12, 1.2, 3.0), (0.08, -0.8, -0.1))
"""share of the turns, and the silence before them in seconds; below 0 the voices overlap"""
ANSWERED, ANSWER_DB = 0.3, -6.0
"""share of the long turns with a short answer in them, and how loud that is"""
LONG, SHORT = 3.0, 1.0
TAILS = (0.8, 2.5)
TAIL_LANGUAGES = ("en", "es", "fr", "it")
TAIL_CLIPS = 12

EXCLAMATIONS = {
    "British": {
        "Hello": "Good day to you sir", "Boring": "This is frightfully dull", "Ohdear": "This is most unfortunate",
        "Victory": "This day victory is ours", "Yessir": "For queen and country", "Thisoneismine": "This one is mine",
        "Gonnagetyou": "I'll get you", "Watchit": "Watch it", "Whatthe": "Good heavens", "Hurry": "Time is short",
        "Byebye": "Farewell good sir",
    },
    "Classic": {
        "Hello": "Hello", "Byebye": "Bye bye", "Excellent": "Excellent", "Amazing": "Amazing", "Brilliant": "Brilliant",
        "Comeonthen": "Come on then", "Justyouwait": "Just you wait", "Victory": "Victory", "Yessir": "Yes sir",
        "Thisoneismine": "This one is mine", "Youllregretthat": "You'll regret that", "Runaway": "Run away",
    },
    "Surfer": {
        "Amazing": "Totally amazing dude", "Boring": "Dude this is boring", "Stupid": "Dude that was so lame",
        "Leavemealone": "Dude leave me alone", "Justyouwait": "Just you wait man just you wait",
        "Thisoneismine": "I got this one dude", "Enemydown": "Dude I totally got him",
        "Runaway": "Dude get out of here", "Cutitout": "Dude for real cut it out",
        "Watchthis": "Hey dudes check this out", "Comeonthen": "Dude come on",
    },
    "Mobster": {
        "Hello": "Hello", "Byebye": "I'm outta here", "Amazing": "Yeah that was a good shot",
        "Boring": "Hey I'm bored here", "Thisoneismine": "This one's mine", "Runaway": "Get out of here boys",
        "Enemydown": "Hey I got him", "Illgetyou": "Tonight you're gonna be sleeping with the fishes",
        "Gonnagetyou": "Mark my words kid I'm gonna get you", "Traitor": "You backstabbing little worm",
        "Yessir": "Just give the word boss",
    },
    "Default": {
        "Boring": "This is so boring", "Victory": "Victory is ours", "Yessir": "Yes sir", "Solong": "So long",
        "Thisoneismine": "This one is mine", "Watchthis": "Watch this", "Brilliant": "Fantastic",
        "Youllregretthat": "You're gonna wish you hadn't done that", "Watchit": "Watch where you're shooting",
        "Gonnagetyou": "You've just made my hit list",
    },
}  # fmt: skip
"""voices of hedgewars: what the clips say, as far as a recogniser's answer to the clean clip makes sense of its name"""


@dataclass(frozen=True)
class Line:
    """Something that a voice says."""

    text: str
    samples: Samples

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


@dataclass
class Scene:
    """A conversation under construction."""

    seconds: float
    placed: list[tuple[float, str, Line]] = field(default_factory=list)
    """(start, voice, line)"""

    @property
    def end(self) -> float:
        return max((at + line.seconds for at, _, line in self.placed), default=0.0)

    def take(self) -> Take:
        """The sum of all lines, labelled where any of them sounds."""
        take = Take(np.zeros(round(self.seconds * RATE), np.float32))
        spans = []
        for at, voice, line in sorted(self.placed, key=lambda p: p[0]):
            first = round(at * RATE)
            take.samples[first : first + len(line.samples)] += line.samples
            spans += [(first / RATE + a, first / RATE + b) for a, b in timeline.active(line.samples)]
            take.sources.append(voice)
        take.spans["speech"] = timeline.joined(spans, 0.0)
        return take

    def text(self) -> str:
        return " ".join(line.text for _, _, line in sorted(self.placed, key=lambda p: p[0]))


def level(clip: Samples, db: float = timeline.LEVEL) -> Samples:
    """The clip from its first to its last sound, at a level."""
    spans = timeline.active(clip)
    if not spans:
        return clip[:0]
    return timeline.at_level(clip, spans, db)[round(spans[0][0] * RATE) : round(spans[-1][1] * RATE)]


def converse(voices: dict[str, Sequence[Line]], answers: Sequence[Line], seconds: float, seed: str) -> Scene:
    """Let voices take turns.

    Args:
        voices: what each can say; a turn is one to three lines of it.
        answers: short lines that fall into long turns.
        seconds: length of the recording.
        seed: chooses everything.
    """
    rng, scene = build.seeded(seed), Scene(seconds)
    said = {name: _endless(lines, rng) for name, lines in voices.items()}
    at, speaking = rng.uniform(0.3, 1.5), ""
    while True:
        names = [name for name in voices if name != speaking] or list(voices)
        speaking = names[int(rng.integers(len(names)))]
        turn = [next(said[speaking]) for _ in range(int(rng.integers(1, 4)))]
        start = at
        for line in turn:
            if at + line.seconds > seconds - 0.5:
                return scene
            scene.placed.append((at, speaking, line))
            at += line.seconds + float(rng.uniform(0.1, 0.5))
        _answer(scene, answers, (start, scene.end), rng)
        at = max(start + 0.2, scene.end + _gap(rng))


def _answer(scene: Scene, answers: Sequence[Line], turn: tuple[float, float], rng: np.random.Generator) -> None:
    start, end = turn
    if answers and end - start > LONG and rng.random() < ANSWERED:
        line = answers[int(rng.integers(len(answers)))]
        softer = Line(line.text, line.samples * np.float32(10 ** (ANSWER_DB / 20)))
        scene.placed.append((float(rng.uniform(start + 1.0, end - line.seconds)), "answer", softer))


def _gap(rng: np.random.Generator) -> float:
    shares = [share for share, _, _ in GAPS]
    _, low, high = GAPS[int(rng.choice(len(GAPS), p=shares))]
    return float(rng.uniform(low, high))


def _endless(lines: Sequence[Line], rng: np.random.Generator) -> Iterator[Line]:
    while True:
        for i in rng.permutation(len(lines)):
            yield lines[i]


def prompts(places: build.Places, language: str, count: int = POOL) -> list[Line]:
    """Lines of a language's prompts, one voice (two in Czech and Dutch)."""
    found = build.clips(build.speech_files(places, language), 1.0, 8.0, texts.usable)
    return [Line(said, level(samples)) for _, samples, said in islice(found, count)]


def readings(places: build.Places) -> list[Line]:
    """Sentences of a novel, read aloud."""
    transcript = places.files("pocketsphinx-testdata", "transcription")[0].read_text(encoding="utf-8")
    waves = {p.stem: p for p in places.files("pocketsphinx-testdata", "*.wav")}
    return [Line(said, level(load_audio(waves[name]))) for name, said in _read(transcript) if name in waves]


def _read(transcript: str) -> Iterator[tuple[str, str]]:
    """Lines `<s> what is said </s> (name)`."""
    for line in transcript.splitlines():
        said, _, name = line.strip().rpartition(" ")
        yield name.strip("()"), said.replace("<s>", "").replace("</s>", "").strip()


def exclaimed(places: build.Places, voice: str) -> list[Line]:
    """Lines of a voice of hedgewars."""
    paths = {p.stem: p for p in places.files("hedgewars-data", f"voices/{voice}/*.ogg")}
    return [Line(said, level(load_audio(paths[name]))) for name, said in EXCLAMATIONS[voice].items()]


def english(places: build.Places) -> Iterator[tuple[str, Scene]]:
    """Conversations of two to four voices out of three packages."""
    allison, reader = prompts(places, "en"), readings(places)
    games = {voice: exclaimed(places, voice) for voice in EXCLAMATIONS}
    answers = [line for lines in games.values() for line in lines if line.seconds < SHORT]
    for index in range(ENGLISH):
        names = list(games)[index % len(games) :] + list(games)[: index % len(games)]
        cast: dict[str, Sequence[Line]] = {"Allison": allison, **{n: games[n] for n in names[: 1 + index % 3]}}
        if index % 3 == 0:
            cast["reader"] = reader
        yield f"talk-en-{index:02}", converse(cast, answers, SECONDS, f"talk en {index}")


def mixed(places: build.Places) -> Iterator[tuple[str, Scene]]:
    """Conversations of two to four voices in as many languages."""
    pools = {language: prompts(places, language, 40) for language in build.LANGUAGES}
    games = [line for voice in EXCLAMATIONS for line in exclaimed(places, voice) if line.seconds < SHORT]
    for index in range(MIXED):
        rng = build.seeded(f"cast {index}")
        names = [build.LANGUAGES[i] for i in rng.permutation(len(build.LANGUAGES))[: 2 + index % 3]]
        yield (
            f"talk-mixed-{index:02}",
            converse({n: pools[n] for n in names}, games, SECONDS, f"talk mixed {index}"),
        )


def tails(places: build.Places, language: str) -> Scene:
    """Prompts with long pauses between them."""
    rng, scene = build.seeded(f"tails {language}"), Scene(600.0)
    at = float(rng.uniform(*TAILS))
    for line in prompts(places, language, TAIL_CLIPS):
        scene.placed.append((at, language, line))
        at += line.seconds + float(rng.uniform(*TAILS))
    scene.seconds = at
    return scene


def in_room(places: build.Places, take: Take, index: int, rng: np.random.Generator) -> tuple[str, Take]:
    """Put the noise of a room under a recording: hiss and hum, or sounds of every kind."""
    kind, snr = ROOMS[index % len(ROOMS)]
    if kind == "quiet":
        return kind, take
    length = len(take.samples)
    noise = (
        timeline.looped(build.noises(places), length, rng)
        if kind == "effects"
        else timeline.noise("pink", length, rng) + timeline.noise("brown", length, rng)
    )
    return f"{kind} {snr:.0f} dB", timeline.under(take, noise, snr)


def _written(places: build.Places, folder: str, name: str, scene: Scene, index: int, language: str | None) -> Utterance:
    rng = build.seeded(f"room {name}")
    condition, take = in_room(places, scene.take(), index, rng)
    row = build.recorded(places, folder, name, condition, take, rng, language)
    text = scene.text() if language else None
    return Utterance(row.id, row.audio, 0.0, row.duration, text, language, None, row.extra)


def conversation_set(places: build.Places) -> list[Utterance]:
    """18 conversations of 90 s; the English ones have their texts."""
    rows = [_written(places, "conversation", name, scene, i, "en") for i, (name, scene) in enumerate(english(places))]
    return rows + [
        _written(places, "conversation", name, scene, i, None) for i, (name, scene) in enumerate(mixed(places))
    ]


def tails_set(places: build.Places) -> list[Utterance]:
    """Prompts of four languages with long pauses, in a quiet room and in one with noise 20 dB down."""
    return [
        _written(places, "tails", f"tails-{language}-{room}", tails(places, language), room, language)
        for language in TAIL_LANGUAGES
        for room in (0, 2)
    ]


def sets(places: build.Places) -> dict[str, Callable[[], list[Utterance]]]:
    """The sets by name."""
    return {"conversation": lambda: conversation_set(places), "tails": lambda: tails_set(places)}
