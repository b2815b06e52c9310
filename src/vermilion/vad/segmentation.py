"""From frame probabilities to segments, offline (SPEC section 10.1). Frames stay integers until the very end."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vermilion.transcript import Span
from vermilion.vad.options import VadOptions

Runs = list[tuple[int, int]]
"""first frame and first frame after it, of each stretch of speech"""

FRAME_SECONDS = 0.01
TAIL_SECONDS = 0.025
"""what the last window reaches beyond its first sample"""


def segments(probabilities: NDArray[np.float32], options: VadOptions, duration: float | None = None) -> list[Span]:
    """Turn probabilities into speech segments.

    Args:
        probabilities: (T,) per 10 ms frame.
        options: thresholds and limits.
        duration: of the audio in seconds; limits the last segment.

    Returns:
        Segments in order, disjoint, inside the audio.
    """
    runs = speech_runs(probabilities, options)
    pieces = [piece for run in runs for piece in split_run(run, probabilities, options)]
    return spans(pieces, len(probabilities), duration)


def speech_runs(probabilities: NDArray[np.float32], options: VadOptions) -> Runs:
    """Steps 1 to 6: smooth, threshold, state machine, start fix, merge, extend."""
    bits = smooth(probabilities, options.smooth_window_size) >= options.speech_threshold
    decisions = confirm(bits, options.min_speech_frame, options.min_silence_frame)
    runs = [(max(0, a - max(1, options.smooth_window_size)), b) for a, b in runs_of(decisions)]
    runs = merge(runs, 1)  # a start that was moved back may touch the run before it
    if options.merge_silence_frame > 0:
        runs = merge(runs, options.merge_silence_frame)
    if options.extend_speech_frame > 0:
        x = options.extend_speech_frame
        runs = merge([(max(0, a - x), min(len(bits), b + x)) for a, b in runs], 1)
    return runs


def smooth(probabilities: NDArray[np.float32], window: int) -> NDArray[np.float64]:
    """Trailing mean over min(t + 1, window) values."""
    values = np.asarray(probabilities, dtype=np.float64)
    if window <= 1 or len(values) == 0:
        return values
    total = np.zeros(len(values))
    for back in range(min(window, len(values)) - 1, -1, -1):  # oldest value first, as a running sum would
        total[back:] += values[: len(values) - back]
    return total / np.minimum(np.arange(1, len(values) + 1), window)


def confirm(bits: NDArray[np.bool_], min_speech: int, min_silence: int) -> NDArray[np.bool_]:
    """State machine: speech must last, pauses must last.

    Args:
        bits: (T,) decision per frame.
        min_speech: a beginning is confirmed after more than this many frames.
        min_silence: the first frames of a pause that stay speech.
    """
    out = np.zeros(len(bits), dtype=bool)
    silent = True  # silence or possible speech; else speech or possible silence
    start = -1  # first frame of possible speech
    pause = -1  # first frame of possible silence
    for t, bit in enumerate(bits.tolist()):
        if silent:
            if not bit:
                start = -1
            elif start < 0:
                start = t
            elif t - start >= min_speech:
                out[start : t + 1] = True
                silent, start, pause = False, -1, -1
        elif bit:
            out[t], pause = True, -1
        elif pause < 0:
            out[t], pause = True, t
        elif t - pause >= min_silence:
            silent, start = True, -1
        else:
            out[t] = True
    return out


def runs_of(decisions: NDArray[np.bool_]) -> Runs:
    """Stretches of ones."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], decisions.astype(np.int8), [0]))))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def merge(runs: Runs, gap: int) -> Runs:
    """Join runs that overlap or are less than `gap` frames apart."""
    merged: Runs = []
    for a, b in runs:
        if merged and a - merged[-1][1] < gap:
            merged[-1] = (merged[-1][0], max(b, merged[-1][1]))
        else:
            merged.append((a, b))
    return merged


def cut_frames(probabilities: NDArray[np.float32], max_frames: int, min_piece: int = 0) -> list[int]:
    """Least probable frames at which a long run is cut.

    Args:
        probabilities: (L,) raw probabilities of the run.
        max_frames: longest piece.
        min_piece: shortest piece that may remain.

    Returns:
        Positions in the run; each is the last frame of its piece.
    """
    cuts: list[int] = []
    begin, length = 0, len(probabilities)
    while length - begin > max_frames:
        last = begin + max_frames - 1
        if min_piece:
            last = max(begin, min(last, length - 1 - min(min_piece, max_frames // 2)))
        first = min(int(begin + max_frames / 2), last)
        cut = first + int(np.argmin(probabilities[first : last + 1]))
        cuts.append(cut)
        begin = cut + 1
    return cuts


def split_run(run: tuple[int, int], probabilities: NDArray[np.float32], options: VadOptions) -> Runs:
    """Cut a run that is too long between frames (the published code loses the frame at each cut)."""
    a, b = run
    cuts = cut_frames(probabilities[a:b], options.max_speech_frame, options.min_piece_frame)
    edges = [a, *(a + cut + 1 for cut in cuts), b]
    return [(x, y) for x, y in pairwise(edges) if y > x]


def spans(runs: Runs, frames: int, duration: float | None) -> list[Span]:
    """Frames → seconds; a run that reaches the last frame ends with the audio."""
    reach = frames * FRAME_SECONDS + TAIL_SECONDS
    end = reach if duration is None else min(reach, duration)
    return [Span(round(a * FRAME_SECONDS, 3), round(end if b >= frames else b * FRAME_SECONDS, 3)) for a, b in runs]
