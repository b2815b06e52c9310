"""Samples on the time line that a player shows: the time stamps of a container, followed in both directions."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from vermilion.audio.decode import Block, Warn

STORED = frozenset(
    {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpegts", "mpeg", "asf", "asf_o", "flv", "live_flv", "avi", "ogg"}
    | {"nut", "mxf", "gxf", "rm", "wtv", "nsv", "pva", "ty"}
)
"""containers that store time stamps; those of raw streams are made up by the demuxer, from one length for all frames"""
BEGINS_ANEW = frozenset({"mpegts", "mpeg", "ogg", "wtv", "nsv", "pva", "ty"})
"""containers in which time stamps may begin anew: their going back is no overlap"""
_JUMP = 0.1
"""seconds between what a frame says and where the one before it ended that need confirming by later frames"""
_CONFIRMING = 8
"""later frames that are asked"""
_SLACK = 0.05
"""seconds of drift that are left alone: jitter of recorders"""
_MOST_STRETCH = 0.1
"""share of a block that is squeezed or stretched at most"""
_MAX_GAP_SECONDS = 4 * 3600.0
"""more silence than this in one recording means broken time stamps"""
_MAX_OVERLAP_SECONDS = 10.0
"""going back further is a new beginning"""
_ZEROS_SECONDS = 10
"""silence is delivered in pieces of this length"""


@dataclass(frozen=True)
class Piece:
    """A decoded frame."""

    start: float | None
    """time stamp in seconds; None = it follows on"""
    rate: float
    samples: NDArray[np.float32]
    """(n, channels)"""

    @property
    def length(self) -> float:
        """Seconds."""
        return len(self.samples) / self.rate


class Timeline:
    """Turns frames with time stamps into blocks without."""

    def __init__(self, origin: float, container: str, warn: Warn) -> None:
        """Take the time stamp of the beginning, the container's name and who is told."""
        self.origin, self.warn = origin, warn
        self.follows = container in STORED
        self.begins_anew = container in BEGINS_ANEW
        self.seconds = 0.0
        """delivered so far"""
        self.wild = False
        """whether time stamps were not believed: lengths that the file announces are not to be believed either"""
        self.expected = origin
        self.silence_left = _MAX_GAP_SECONDS
        self.overlap = 0.0
        self.drop = 0.0
        """seconds that are still to be left out"""

    def blocks(self, pieces: Iterator[Piece]) -> Iterator[Block]:
        """Yield blocks of about a second."""
        waiting: list[Piece] = []
        drifts: list[float] = []
        for piece in self._believed(pieces):
            held = sum(p.length for p in waiting)
            other = waiting and (piece.rate, piece.samples.shape[1]) != (waiting[0].rate, waiting[0].samples.shape[1])
            drift = self._drift(piece, held)
            if waiting and (other or held >= 1.0 or abs(drift) > _JUMP):
                yield self._delivered(waiting, drifts)
                waiting, drifts = [], []
                drift = self._drift(piece, 0.0)
            if abs(drift) > _JUMP:
                yield from self._jumped(piece, drift)
            kept = self._after_drop(piece)
            if len(kept.samples):
                waiting.append(kept)
                if kept.start is not None:
                    drifts.append(self._drift(kept, sum(p.length for p in waiting[:-1])))
        if waiting:
            yield self._delivered(waiting, drifts)
        if self.overlap >= _JUMP:
            self.warn(f"its time stamps go back: {self.overlap:.1f} seconds of sound that players skip were left out")

    def _drift(self, piece: Piece, held: float) -> float:
        """How much later than its place in the samples a frame belongs."""
        return 0.0 if piece.start is None else piece.start - self.origin - self.seconds - held + self.drop

    # ---- which time stamps are believed

    def _believed(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """Take away time stamps that the frames after them do not confirm."""
        if not self.follows:
            for piece in pieces:
                yield Piece(None, piece.rate, piece.samples)
            return
        window: deque[Piece] = deque()
        for piece in pieces:
            window.append(piece)
            if len(window) > _CONFIRMING:
                yield self._judged(window)
        while window:
            yield self._judged(window)

    def _judged(self, window: deque[Piece]) -> Piece:
        piece = window.popleft()
        if (
            piece.start is not None
            and abs(piece.start - self.expected) > _JUMP
            and not _confirmed(piece, self.expected, window)
        ):
            piece, self.wild = Piece(None, piece.rate, piece.samples), True
        self.expected = (self.expected if piece.start is None else piece.start) + piece.length
        return piece

    # ---- what becomes of drift

    def _jumped(self, piece: Piece, drift: float) -> Iterator[Block]:
        if drift > self.silence_left:
            self.warn(f"its time stamps jump by {drift:.0f} seconds, which was ignored")
            self.origin += drift
        elif drift > 0:
            self.silence_left -= drift
            yield from self._silence(drift, piece)
        elif self.begins_anew or -drift > _MAX_OVERLAP_SECONDS:
            self.origin += drift
        else:
            self.overlap -= drift
            self.drop -= drift

    def _silence(self, seconds: float, piece: Piece) -> Iterator[Block]:
        left = round(seconds * piece.rate)
        self.seconds += left / piece.rate
        while left > 0:
            count = min(left, round(_ZEROS_SECONDS * piece.rate))
            yield piece.rate, np.zeros((count, piece.samples.shape[1]), dtype=np.float32)
            left -= count

    def _after_drop(self, piece: Piece) -> Piece:
        """What is left of a frame where sound is left out."""
        count = min(len(piece.samples), round(self.drop * piece.rate))
        if count == 0:
            self.drop = 0.0
            return piece
        self.drop = max(0.0, self.drop - count / piece.rate)
        start = None if piece.start is None else piece.start + count / piece.rate
        return Piece(start, piece.rate, piece.samples[count:])

    def _delivered(self, waiting: list[Piece], drifts: list[float]) -> Block:
        """A block, squeezed or stretched where its clock is not that of the time stamps."""
        rate, samples = waiting[0].rate, np.concatenate([p.samples for p in waiting])
        drift = statistics.median(drifts) if drifts else 0.0
        if abs(drift) > _SLACK and len(samples) > 1:
            change = max(-_MOST_STRETCH * len(samples), min(_MOST_STRETCH * len(samples), drift * rate))
            samples = _resized(samples, len(samples) + round(change))
        self.seconds += len(samples) / rate
        return rate, samples


def _confirmed(piece: Piece, expected: float, later: deque[Piece]) -> bool:
    """Whether the frames after a jump go on from it, not from where it left; stamps that stand still say nothing."""
    ahead, last, asked = piece.length, piece.start, 0
    for follower in later:
        if follower.start is not None and piece.start is not None and follower.start != last:
            asked, last = asked + 1, follower.start
            if abs(follower.start - expected - ahead) < abs(follower.start - piece.start - ahead):
                return False
        ahead += follower.length
    return asked > 0


def _resized(samples: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """(n, channels) → (count, channels) by interpolation."""
    places = np.linspace(0, len(samples) - 1, max(1, count))
    known = np.arange(len(samples))
    return np.stack([np.interp(places, known, c) for c in samples.T], axis=1).astype(np.float32)
