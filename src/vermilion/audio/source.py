"""What counts as a recording, what messages call it, and how its bytes are opened."""

from __future__ import annotations

import io
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast

from vermilion.errors import AudioError, AudioLimitError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vermilion.audio.recording import Recording

AudioInput: TypeAlias = (
    "str | os.PathLike[str] | bytes | BinaryIO | IO[bytes] | tuple[NDArray[Any], float] | NDArray[Any] "
    "| Sequence[float] | Recording"
)
"""A path, the bytes of a file, a binary file object, (samples, sample_rate), samples at 16 kHz, or a `Recording`.

A seekable file object is read from its beginning and left open, so it can be given to several functions in turn.
"""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_COPY_BYTES = 1 << 20
_IN_MEMORY_BYTES = 32 << 20
_BYTES_PER_SECOND = 8 << 20
"""an unseekable input with a limit in seconds may hold so much per second (video of 64 Mbit/s)"""


def describe(source: Any) -> str:
    """Return a short name of a recording for messages; never fails."""
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return "bytes"
    name = getattr(source, "name", None)
    if isinstance(name, str) and name:
        return name.strip("<>")
    return "file object" if hasattr(source, "read") else "samples"


def is_file(source: Any) -> bool:
    """Whether a source is a path, bytes or a file object, rather than samples."""
    return isinstance(source, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(source, "read")


@contextmanager
def open_binary(source: Any, *, max_seconds: float | None = None) -> Iterator[BinaryIO]:
    """Open a path, bytes or file object as a seekable binary file that stands at its beginning.

    Args:
        source: what `is_file` accepts.
        max_seconds: bounds how much of an unseekable input (a pipe) is copied to a temporary file.

    Raises:
        AudioError: the file is missing, unreadable, a folder, a device, a URL, a text file object, or empty.
        AudioLimitError: a pipe delivers more than any recording of `max_seconds`.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        handle: BinaryIO = io.BytesIO(source)
    elif hasattr(source, "read"):
        handle = source
    else:
        handle = _open_path(source)
    owned = [] if handle is source else [handle]
    try:
        if not _seekable(handle):
            handle = _spooled(handle, describe(source), max_seconds)
            owned.append(handle)
        _rewind(handle, describe(source))
        yield handle
    finally:
        for file in owned:
            file.close()


def _open_path(source: str | os.PathLike[str]) -> BinaryIO:
    name = describe(source)
    if isinstance(source, str) and _URL.match(name):
        raise AudioError(f"cannot read {name}: addresses are never fetched; download the file and give its path")
    try:
        mode = Path(source).stat().st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(f"cannot read {name}: it is a folder; give the files in it")
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise AudioError(f"cannot read {name}: it is a device; record to a file first")
        return Path(source).open("rb")
    except FileNotFoundError as error:
        raise AudioError(f"cannot read {name}: there is no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise AudioError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}") from error


def _seekable(handle: BinaryIO) -> bool:
    try:
        return bool(handle.seekable())
    except (AttributeError, OSError, ValueError):
        return False


def _spooled(handle: BinaryIO, name: str, max_seconds: float | None) -> BinaryIO:
    """Copy a pipe to a temporary file: most containers cannot be decoded without seeking."""
    most = None if max_seconds is None else max(2 * _IN_MEMORY_BYTES, int(max_seconds * _BYTES_PER_SECOND))
    copy = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115 (the caller closes it)
    total = 0
    try:
        while block := handle.read(_COPY_BYTES):
            if not isinstance(block, bytes | bytearray):
                raise AudioError(f"cannot read {name}: it gives text; open the file in binary mode ('rb')")
            total += len(block)
            if most is not None and total > most:
                raise AudioLimitError(f"{name} holds more than {most >> 20} MB, too much for {max_seconds:g} seconds")
            copy.write(block)
    except (OSError, ValueError) as error:
        copy.close()
        raise AudioError(f"cannot read {name}: {error}") from error
    except AudioError:
        copy.close()
        raise
    return cast(BinaryIO, copy)


def _rewind(handle: BinaryIO, name: str) -> None:
    try:
        handle.seek(0)
        first = handle.read(1)
        handle.seek(0)
    except (OSError, ValueError, EOFError) as error:
        raise AudioError(f"cannot read {name}: {error}") from error
    if not isinstance(first, bytes):
        raise AudioError(f"cannot read {name}: it gives text; open the file in binary mode ('rb')")
    if not first:
        raise AudioError(f"cannot read {name}: it is empty (0 bytes)")
