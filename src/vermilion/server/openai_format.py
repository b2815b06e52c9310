"""A transcript in each of OpenAI's response formats."""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from vermilion.formats import render
from vermilion.server.languages import name_of
from vermilion.text import join_texts
from vermilion.transcript import Sentence, Transcript

LEAST = 1e-6
"""probabilities are at least this, so that their logarithms are finite"""


def usage(transcript: Transcript) -> dict[str, Any]:
    """What OpenAI would charge for."""
    return {"type": "duration", "seconds": math.ceil(transcript.duration)}


def plain(transcript: Transcript, logprobs: bool) -> dict[str, Any]:
    """`json`."""
    found: dict[str, Any] = {"text": transcript.text}
    if logprobs:
        found["logprobs"] = logprobs_of(transcript.sentences)
    return {**found, "usage": usage(transcript)}


def verbose(transcript: Transcript, granularities: frozenset[str]) -> dict[str, Any]:
    """`verbose_json`."""
    found: dict[str, Any] = {
        "task": "transcribe",
        "language": name_of(main_language(transcript)),
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
    }
    if "segment" in granularities:
        found["segments"] = [_segment(i, s) for i, s in enumerate(transcript.sentences)]
    if "word" in granularities:
        found["words"] = [{"word": w.text, "start": w.start, "end": w.end} for w in transcript.words]
    return {**found, "usage": usage(transcript)}


def diarized(transcript: Transcript) -> dict[str, Any]:
    """`diarized_json`: each channel is a speaker."""
    return {
        "task": "transcribe",
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
        "segments": [diarized_segment(i, s) for i, s in enumerate(transcript.sentences)],
        "usage": usage(transcript),
    }


def diarized_segment(number: int, sentence: Sentence) -> dict[str, Any]:
    """One sentence with its speaker."""
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{number}",
        "start": round(sentence.start, 3),
        "end": round(sentence.end, 3),
        "text": sentence.text,
        "speaker": speaker(sentence.channel),
    }


def speaker(channel: int | None) -> str:
    """Channel 0 is A, 1 is B …"""
    number = channel or 0
    return chr(ord("A") + number) if number < 26 else f"S{number}"


def text_file(transcript: Transcript, form: str) -> str:
    """`text`, `srt`, `vtt`."""
    return transcript.text + "\n" if form == "text" else render(transcript, form)


def logprobs_of(sentences: list[Sentence]) -> list[dict[str, Any]]:
    """The words with the logarithms of their confidences."""
    return [
        {"token": w.text, "logprob": _log(w.confidence), "bytes": list(w.text.encode("utf-8", "replace"))}
        for s in sentences
        for w in s.words
        if w.confidence is not None
    ]


def main_language(transcript: Transcript) -> str | None:
    """That of most of the speech."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for span in transcript.languages:
        seconds[span.language] += span.end - span.start
    if not seconds:
        for sentence in transcript.sentences:
            if sentence.language:
                seconds[sentence.language] += sentence.end - sentence.start
    return max(seconds, key=lambda code: seconds[code]) if seconds else None


class Deltas:
    """A growing text in pieces whose sum is the whole."""

    def __init__(self) -> None:
        """Begin empty."""
        self.text = ""

    def add(self, sentences: list[Sentence]) -> Iterator[tuple[str, Sentence]]:
        """Take further sentences; give what each adds."""
        for sentence in sentences:
            grown = join_texts([self.text, sentence.text]) if self.text else sentence.text
            delta, self.text = grown[len(self.text) :], grown
            if delta:
                yield delta, sentence


def _segment(number: int, sentence: Sentence) -> dict[str, Any]:
    text = sentence.text.encode("utf-8", "replace")
    found = {
        "id": number,
        "seek": round(sentence.start * 100),
        "start": round(sentence.start, 3),
        "end": round(sentence.end, 3),
        "text": sentence.text,
        "tokens": [],  # Whisper's vocabulary is not ours
        "temperature": 0.0,
        "avg_logprob": _log(sentence.confidence),
        "compression_ratio": round(len(text) / max(1, len(zlib.compress(text))), 4),
        "no_speech_prob": 0.0,  # the detector has found speech
    }
    return {**found, "flags": list(sentence.flags)} if sentence.flags else found


def _log(probability: float) -> float:
    return round(math.log(max(LEAST, min(1.0, probability))), 4)
