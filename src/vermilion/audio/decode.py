"""Files → blocks of samples: libsndfile for WAV, FLAC and their kin, FFmpeg's libraries for everything else.

Nothing is sized by what a header claims: memory follows what has been decoded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vermilion.errors import AudioError

if TYPE_CHECKING:
    import soundfile

Block = tuple[float, NDArray[np.float32]]
"""sample rate and (n, channels) samples"""
Warn = Callable[[str], None]

_BLOCK_VALUES = 1 << 18
_SNDFILE_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"FORM", b".snd", b"caff", b"BW64")
_BARE_HEADER = 100
"""bytes; a larger file without samples may come from a live source that never filled in their number"""
_LEFT_OVER = 1 << 16
"""bytes; more than libsndfile reads ahead, and than tags and padding take"""
_UNKNOWN = 1 << 62
"""libsndfile reports more frames than this for a FLAC stream of unknown length, then fails at its end"""
_ANNOUNCED = re.compile(r"data *: *(\d+) \(should be (\d+)\)")


def decode_blocks(handle: BinaryIO, name: str, warn: Warn, stream: str = "") -> Iterator[Block]:
    """Decode an audio stream of a seekable file, and of what stands behind it in the same file.

    Args:
        handle: binary file.
        name: for messages.
        warn: called with one sentence for everything that is wrong but does not prevent reading.
        stream: which one of several: its number from 1, or its language; empty = the one that players take.

    Raises:
        AudioError: nothing in the file can be decoded as audio, or it has no such stream.
    """
    from vermilion.audio.members import members

    first = True
    for member in members(handle, warn):
        try:
            yield from _decode_member(member, name, warn, stream, lenient=not first)
        except AudioError as error:
            if first:
                raise
            warn(f"a part of the file could not be read: {error}")
        first = False


def _decode_member(handle: BinaryIO, name: str, warn: Warn, stream: str, lenient: bool) -> Iterator[Block]:
    from vermilion.audio.ffmpeg import ffmpeg_blocks
    from vermilion.audio.streams import check_single

    handle.seek(0)
    outcome = _Outcome(opened=False)
    if handle.read(4) in _SNDFILE_MAGIC:
        outcome = yield from _sndfile_blocks(handle, warn)
    if outcome.opened:
        check_single(stream, name)
    if not outcome.finished:
        handle.seek(0)
        lenient = lenient or outcome.opened
        yield from _skip(ffmpeg_blocks(handle, name, warn, lenient=lenient, stream=stream), outcome.delivered)


def _skip(blocks: Iterator[Block], count: int) -> Iterator[Block]:
    """Leave out the first `count` samples."""
    for rate, block in blocks:
        if len(block) > count:
            yield rate, block[count:]
        count = max(0, count - len(block))


# ---- libsndfile


class _Careful:
    """A file for libsndfile, which cannot pass on exceptions: a failing read ends the file instead."""

    def __init__(self, handle: BinaryIO) -> None:
        """Wrap an open file."""
        self.handle = handle
        self.error: Exception | None = None
        self.last = 0
        """byte behind the last one that was read"""

    def read(self, size: int = -1) -> bytes:
        """Read, or pretend that the file ends."""
        try:
            data = self.handle.read(size)
            self.last = max(self.last, self.handle.tell())
            return data
        except (OSError, ValueError, EOFError) as error:
            self.error = error
            return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        """Seek, or stay where a damaged header asks for a place before the beginning."""
        try:
            return self.handle.seek(offset, whence)
        except (OSError, ValueError):
            return self.handle.tell()

    def tell(self) -> int:
        """Tell."""
        return self.handle.tell()


@dataclass
class _Outcome:
    """How far libsndfile came."""

    opened: bool
    """it knows this kind of file"""
    finished: bool = False
    """it read the file to its end"""
    delivered: int = 0
    """samples per channel"""


def _sndfile_blocks(handle: BinaryIO, warn: Warn) -> Generator[Block, None, _Outcome]:
    """Yield what libsndfile can decode."""
    import soundfile

    handle.seek(0)
    careful, outcome, flac = _Careful(handle), _Outcome(opened=False), False
    try:
        with soundfile.SoundFile(careful) as file:
            if file.subtype.startswith("MPEG") or file.frames > _UNKNOWN:  # FFmpeg is better at these
                return outcome
            outcome.opened, flac = True, file.format == "FLAC"
            yield from _read_all(file, outcome)
            if announced := _truncation(file.extra_info):
                warn(announced)
    except (soundfile.SoundFileError, RuntimeError, TypeError):
        if outcome.opened:
            warn("the file is damaged: what could be decoded was used")
    if careful.error is not None:
        warn(f"reading stopped early: {careful.error}")
    if outcome.finished and flac and _size(handle) - careful.last > _LEFT_OVER:
        outcome.finished = False  # STREAMINFO counts too few samples: FFmpeg does not go by it
    if outcome.finished and not outcome.delivered and _size(handle) > _BARE_HEADER:
        warn("the header announces no samples: what follows it was used")
        outcome.finished = False
    return outcome


def _read_all(file: soundfile.SoundFile, outcome: _Outcome) -> Iterator[Block]:
    size = max(1, _BLOCK_VALUES // file.channels)
    while len(block := file.read(size, dtype="float32", always_2d=True)):
        yield float(file.samplerate), block
        outcome.delivered += len(block)
    outcome.finished = True


def _truncation(log: str) -> str:
    """A warning if libsndfile noted that the header announces more samples than there are, else nothing."""
    match = _ANNOUNCED.search(log)
    if match is None:
        return ""
    announced, present = int(match[1]), int(match[2])
    return (
        f"the header announces {announced} bytes of sound, {present} are there: cut short, or written by a live source"
    )


def _size(handle: BinaryIO) -> int:
    return handle.seek(0, os.SEEK_END)
