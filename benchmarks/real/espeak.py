"""Sentences spoken by espeak-ng, whose library says when each word sounds."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import soxr
from packages import PackageError
from timeline import RATE, Samples

LIBRARY = "libespeak-ng.so.1"
SYNCHRONOUS, PHONEME_EVENTS, UTF8, BY_CHARACTER, SPEED = 2, 1, 1, 1, 1
LAST, WORD, PHONEME = 0, 1, 7
PAUSES = (b"_", b"_:")


class _Value(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("message", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("value", _Value),
    )


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Mark:
    """A word begins, or a sound (a pause is one, too)."""

    word: bool
    at: float
    """seconds"""
    first: int = 0
    """its first letter in the text, from 1"""
    length: int = 0
    """its letters"""
    sound: bytes = b""


@dataclass
class Spoken:
    """What the library has handed over so far."""

    rate: int
    parts: list[Samples] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)

    def take(self, samples: Any, count: int, events: Any) -> int:
        if count > 0:
            self.parts.append(np.ctypeslib.as_array(samples, shape=(count,)).astype(np.float32) / 32768)
        index = 0
        while events[index].type != LAST:
            event = events[index]
            at = event.sample / self.rate
            if event.type == WORD:
                self.marks.append(Mark(True, at, event.text_position, event.length))
            elif event.type == PHONEME:
                self.marks.append(Mark(False, at, sound=bytes(event.value.string)))
            index += 1
        return 0


def timed_words(text: str, marks: list[Mark], end: float) -> list[tuple[str, float, float]]:
    """(word, start, end) in seconds: from its first sound (after the closure of a stop) to the next word or pause.

    Args:
        text: what was spoken.
        marks: in order.
        end: of the recording.
    """
    found: list[tuple[str, float, float]] = []
    for index, mark in enumerate(marks):
        if not mark.word:
            continue
        rest = marks[index + 1 :]
        sounds = [m.at for m in rest[: next((i for i, m in enumerate(rest) if m.word), len(rest))] if not _pause(m)]
        after = next((m.at for m in rest if m.word or (sounds and m.at > sounds[0] and _pause(m))), end)
        if sounds:
            found.append((text[mark.first - 1 : mark.first - 1 + mark.length], sounds[0], after))
    return found


def _pause(mark: Mark) -> bool:
    return not mark.word and mark.sound in PAUSES


def speaker() -> Callable[[str, str, int], tuple[Samples, list[tuple[str, float, float]]]]:
    """Load the library.

    Returns:
        (text, voice, words per minute) → 16 kHz samples, and (word, start, end) in seconds.

    Raises:
        PackageError: the library is not installed.
    """
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise PackageError(f"{error}; install the package espeak-ng") from error
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, None, PHONEME_EVENTS)

    def say(text: str, voice: str, speed: int) -> tuple[Samples, list[tuple[str, float, float]]]:
        if library.espeak_SetVoiceByName(voice.encode()):
            raise PackageError(f"espeak-ng has no voice {voice}")
        spoken = Spoken(rate)
        callback = _CALLBACK(spoken.take)
        library.espeak_SetSynthCallback(callback)
        library.espeak_SetParameter(SPEED, speed, 0)
        coded = text.encode()
        library.espeak_Synth(coded, len(coded) + 1, 0, BY_CHARACTER, 0, UTF8, None, None)
        library.espeak_Synchronize()
        samples = np.concatenate(spoken.parts)
        words = timed_words(text, spoken.marks, len(samples) / rate)
        return soxr.resample(samples, rate, RATE).astype(np.float32), words

    return say
