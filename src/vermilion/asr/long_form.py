"""Audio longer than a recogniser's limit: cut at quiet points, recognise the pieces, join the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vermilion.audio import describe, quiet_cuts
from vermilion.errors import ModelError
from vermilion.text import join_texts
from vermilion.transcript import Failure, Hypothesis, Recognition, Token, Word

GRID = 640
"""samples of one encoder frame: cuts on this grid keep the frames of all pieces on one time line"""


def pieces_of(samples: NDArray[np.float32], max_seconds: float) -> list[tuple[int, NDArray[np.float32]]]:
    """Cut audio at its quietest points.

    Args:
        samples: (n,) at 16 kHz.
        max_seconds: longest piece.

    Returns:
        (first sample, samples) of each piece; one piece if the audio is short enough.
    """
    if len(samples) <= max_seconds * 16000:
        return [(0, samples)]
    cuts = [cut // GRID * GRID for cut in quiet_cuts(samples, max_seconds - GRID / 16000)]
    edges = [0, *(c for c in cuts if c > 0), len(samples)]
    return [(a, samples[a:b]) for a, b in pairwise(edges)]


def joined(parts: Sequence[tuple[float, Recognition]]) -> Recognition:
    """Join the recognitions of consecutive pieces.

    Args:
        parts: (start of the piece in seconds, its recognition).

    Returns:
        One recognition on the time line of the whole; confidence is the mean over all tokens.
    """
    if len(parts) == 1:
        return parts[0][1]
    tokens = [_moved_token(t, start) for start, r in parts for t in r.tokens]
    words = [_moved_word(w, start) for start, r in parts for w in r.words]
    text = join_texts([r.text for _, r in parts if r.text])
    weights = [max(len(r.tokens), len(r.words)) for _, r in parts]
    total = sum(weights)
    confidence = sum(r.confidence * n for (_, r), n in zip(parts, weights, strict=True)) / total if total else 0.0
    flags = list(dict.fromkeys(flag for _, r in parts for flag in r.flags))
    first = parts[0][1]
    best = [Hypothesis(text, confidence, tokens)]  # n-best lists of pieces do not combine into one of the whole
    return replace(first, text=text, confidence=confidence, tokens=tokens, words=words, alternatives=best, flags=flags)


def _moved_token(token: Token, offset: float) -> Token:
    if token.start is None or token.end is None:
        return token
    return replace(token, start=round(token.start + offset, 3), end=round(token.end + offset, 3))


def _moved_word(word: Word, offset: float) -> Word:
    return replace(word, start=round(word.start + offset, 3), end=round(word.end + offset, 3))


def gathered(
    recordings: Sequence[Any], read: Sequence[Any], pieces: Sequence[Any], answers: Sequence[Any]
) -> list[Recognition | Failure]:
    """Put the answers of all pieces together again.

    Args:
        recordings: sources.
        read: a Failure for each that could not be read, anything else for the others.
        pieces: what `pieces_of` made of each.
        answers: a recognition, or the error of the network, for each piece of those that were read.

    Returns:
        One entry per recording.
    """
    results: list[Recognition | Failure] = []
    rest = iter(answers)
    for source, item, cut in zip(recordings, read, pieces, strict=True):
        if isinstance(item, Failure):
            results.append(item)
            continue
        parts = [(start / 16000, next(rest)) for start, _ in cut]
        broken = next((answer for _, answer in parts if isinstance(answer, ModelError)), None)
        results.append(joined(parts) if broken is None else Failure(describe(source), broken, "asr"))
    return results
