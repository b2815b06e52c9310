"""Recordings whose word times are known: single words on a timeline of their own, and sentences of espeak-ng."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import build
import espeak
import numpy as np
import texts
import timeline
from timeline import RATE, Samples, Take

from vermilion.audio import load_audio
from vermilion.manifests import Utterance

RECORDINGS, WORDS = 40, 8
EDGES = (0.2, 0.6)
"""seconds of silence before and after"""
PAUSES = (0.0, 0.4)
NOISY, SNR = 3, 15.0
"""every third recording has pink noise under it, so many dB below"""
_FOLDERS = """
ㄨㄛ3 ㄋㄧ3 ㄊㄚ ㄕ4 ㄅㄨ4 ㄖㄣ2 ㄗㄞ4 ㄧㄡ3 ㄓㄜ4 ㄍㄜ4 ㄕㄤ4 ㄌㄞ2 ㄉㄠ4 ㄕ2 ㄉㄚ4 ㄕㄨㄛ
ㄍㄨㄛ2 ㄋㄧㄢ2 ㄕㄥ ㄏㄨㄟ4 ㄗ4 ㄓㄨ4 ㄊㄧㄢ ㄍㄨㄥ ㄇㄣ2 ㄏㄠ3 ㄎㄢ4 ㄒㄧㄠ3 ㄉㄨㄛ ㄒㄩㄝ2
ㄕㄨㄟ3 ㄏㄨㄛ3 ㄕㄢ ㄔㄥ2 ㄓㄨㄥ ㄍㄠ ㄇㄚ3 ㄔㄜ ㄏㄨㄚ4 ㄕㄨ ㄐㄧㄚ ㄌㄠ3 ㄇㄟ3 ㄏㄨㄥ2 ㄔ ㄏㄜ
ㄗㄡ3 ㄆㄠ3 ㄌㄥ3 ㄖㄜ4 ㄈㄥ ㄩ3 ㄩㄝ4 ㄖ4 ㄇㄨ4 ㄐㄧㄣ ㄙㄢ ㄙ4 ㄨ3 ㄌㄧㄡ4 ㄑㄧ ㄅㄚ
ㄐㄧㄡ3 ㄑㄧㄢ2 ㄏㄡ4 ㄗㄨㄛ3 ㄅㄟ3 ㄋㄢ2 ㄉㄨㄥ ㄒㄧ ㄒㄧㄣ ㄎㄞ ㄍㄨㄢ ㄇㄞ3 ㄑㄩ4
"""
_CHARACTERS = (
    "我你他是不人在有这个上来到时大说国年生会自住天工门好看小多学水火山成中高马车话书家老"
    "美红吃喝走跑冷热风雨月日木金三四五六七八九前后左北南东西新开关买去"
)
SYLLABLES = dict(zip(_FOLDERS.split(), _CHARACTERS, strict=True))
"""folders of gcin-voice (no figure = first tone) and a common character that sounds so"""

TimedWords = list[tuple[str, float, float]]


@dataclass(frozen=True)
class Clip:
    """A single word."""

    text: str
    samples: Samples


def trimmed(clip: Samples) -> Samples:
    """From the first to the last sound, by the rule that labels speech (timeline.py) without its margin."""
    spans = timeline.active(clip)
    if not spans:
        return clip[:0]
    start = spans[0][0] + (timeline.MARGIN if spans[0][0] > 0 else 0.0)
    end = spans[-1][1] - (timeline.MARGIN if spans[-1][1] < len(clip) / RATE else 0.0)
    return timeline.at_level(clip, spans)[round(start * RATE) : round(end * RATE)]


def joined(clips: Sequence[Clip], rng: np.random.Generator) -> tuple[Samples, TimedWords]:
    """Words one after the other, with silence around and pauses between them."""
    silence = lambda span: np.zeros(round(rng.uniform(*span) * RATE), np.float32)  # noqa: E731
    parts, words = [silence(EDGES)], []
    for clip in clips:
        start = sum(map(len, parts)) / RATE
        words.append((clip.text, round(start, 4), round(start + len(clip.samples) / RATE, 4)))
        parts += [clip.samples, silence(PAUSES)]
    return np.concatenate([*parts, silence(EDGES)]), words


def english_clips(places: build.Places) -> list[Clip]:
    """Prompts of one word with letters only; figures and single letters, which recognisers write as they like, not."""
    files = build.speech_files(places, "en")
    plain = {
        name: said for name, (_, said) in files.items() if said.isalpha() and len(said) > 2 and "digits/h-" not in name
    }
    figures = {name for name in plain if name.startswith("digits/") and name[7:].isdigit()}
    return _sounding(
        Clip(said.lower(), trimmed(load_audio(files[name][0]))) for name, said in plain.items() if name not in figures
    )


def chinese_clips(places: build.Places) -> list[Clip]:
    """Common syllables, by both voices."""
    paths = places.files("gcin-voice", "*.ogg")
    return _sounding(
        Clip(SYLLABLES[p.parent.name], trimmed(load_audio(p))) for p in paths if p.parent.name in SYLLABLES
    )


def _sounding(clips: Any) -> list[Clip]:
    return [clip for clip in clips if 0.1 <= len(clip.samples) / RATE <= 1.5]


def joined_set(places: build.Places, name: str, clips: Sequence[Clip], language: str) -> list[Utterance]:
    """Recordings of eight words, each word at most once in a recording."""
    rows = []
    for index in range(RECORDINGS):
        rng = build.seeded(f"{name} {index}")
        chosen = {clips[i].text: clips[i] for i in rng.permutation(len(clips))[: 3 * WORDS]}
        samples, words = joined(list(chosen.values())[:WORDS], rng)
        rows.append(_row(places, f"{name}-{index:02}", samples, words, language, index))
    return rows


def espeak_set(places: build.Places) -> list[Utterance]:
    """Sentences of games at four speeds and by two voices; words follow each other without pauses."""
    say, rows = espeak.speaker(), []
    lines = [s for found in build.english(places).values() for s in found if 6 <= len(s.split()) <= 18]
    for index, line in enumerate(texts.ranked(dict.fromkeys(lines))[:RECORDINGS]):
        spoken, words = say(line, ("en-us", "gmw/en")[index % 2], (130, 150, 170, 190)[index % 4])
        lead = np.zeros(RATE // 4, np.float32)
        moved = [(w, round(a + 0.25, 4), round(b + 0.25, 4)) for w, a, b in words]
        samples = np.concatenate([lead, timeline.at_level(spoken, timeline.active(spoken)), lead])
        rows.append(_row(places, f"times-espeak-{index:02}", samples, moved, "en", index))
    return rows


def _row(places: build.Places, name: str, samples: Samples, words: TimedWords, language: str, index: int) -> Utterance:
    rng = build.seeded(f"room {name}")
    take = Take(samples, {"speech": timeline.joined([(a, b) for _, a, b in words], 0.0)})
    condition = "clean"
    if index % NOISY == NOISY - 1:
        condition = f"noise {SNR:.0f} dB"
        take = timeline.under(take, timeline.noise("pink", len(samples), rng), SNR)
    done = timeline.finished(take, rng)
    audio = build.write_wave(places.out / "times" / f"{name}.wav", done.samples)
    text = ("" if language == "zh" else " ").join(w for w, _, _ in words)
    extra = {"condition": condition, "words": [list(w) for w in words]}
    return Utterance(name, audio, 0.0, round(done.seconds, 4), text, language, None, extra)


def sets(places: build.Places) -> dict[str, Callable[[], list[Utterance]]]:
    """The sets by name."""
    return {
        "times-en": lambda: joined_set(places, "times-en", english_clips(places), "en"),
        "times-zh": lambda: joined_set(places, "times-zh", chinese_clips(places), "zh"),
        "times-espeak": lambda: espeak_set(places),
    }
