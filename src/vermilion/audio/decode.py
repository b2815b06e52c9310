"""Files → blocks of samples: libsndfile for WAV, FLAC and their kin, FFmpeg's libraries for everything else.

Nothing is sized by what a header claims: memory follows what has been decoded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

Block = tuple[float, NDArray[np.float32]]
"""sample rate and (n, channels) samples"""
Warn = Callable[[str], None]

_BLOCK_VALUES = 1 << 18
_SNDFILE_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"FORM", b".snd", b"caff")
_ANNOUNCED = re.compile(r"data *: *(\d+) \(should be (\d+)\)")


def decode_blocks(handle: BinaryIO, name: str, warn: Warn) -> Iterator[Block]:
    """Decode the first audio stream of a seekable file.

    Args:
        handle: binary file at its beginning.
        name: for messages.
        warn: called with one sentence for everything that is wrong but does not prevent reading.

    Raises:
        AudioError: nothing in the file can be decoded as audio.
    """
    if handle.read(4) in _SNDFILE_MAGIC:
        done = yield from _sndfile_blocks(handle, warn)
        if done is None:
            return
    else:
        done = 0
    from vermilion.audio.ffmpeg import ffmpeg_blocks

    handle.seek(0)
    yield from _skip(ffmpeg_blocks(handle, name, warn, resumed=done > 0), done)


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

    def read(self, size: int = -1) -> bytes:
        """Read, or pretend that the file ends."""
        try:
            return self.handle.read(size)
        except (OSError, ValueError, EOFError) as error:
            self.error = error
            return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        """Seek."""
        return self.handle.seek(offset, whence)

    def tell(self) -> int:
        """Tell."""
        return self.handle.tell()


def _sndfile_blocks(handle: BinaryIO, warn: Warn) -> Generator[Block, None, int | None]:
    """Yield blocks; return None when the file is done, else how many samples came before libsndfile gave up."""
    import soundfile

    handle.seek(0)
    careful = _Careful(handle)
    done = 0
    try:
        with soundfile.SoundFile(careful) as file:
            size = max(1, _BLOCK_VALUES // file.channels)
            truncated = _truncation(file.extra_info)
            while len(block := file.read(size, dtype="float32", always_2d=True)):
                yield float(file.samplerate), block
                done += len(block)
            short = file.frames == 0 and _size(handle) > 128
    except (soundfile.SoundFileError, RuntimeError, TypeError):
        return done
    if careful.error is not None:
        warn(f"reading stopped early: {careful.error}")
    if truncated:
        warn(truncated)
    return done if short else None


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
