"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from vermilion.errors import FormatError

_PART_BYTES = 100
_SPACE, _RIGHTS = "free some space or choose another folder", "choose a folder that you may write to"
_ADVICE = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: _RIGHTS,
    errno.ENAMETOOLONG: "choose a shorter name, or a folder with a shorter path",
    errno.ENOTDIR: "a part of the path is a file; choose another folder",
    errno.EISDIR: "it is a folder; choose another name",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files (ulimit -n)",
}


def write_atomically(path: str | Path, data: str | bytes) -> Path:
    """Write a file so that readers and interrupted runs never see half of it.

    The data go to a temporary file in the same folder, which then takes the target's name. Missing folders are
    created. Devices and pipes (`/dev/stdout`) are written to directly.

    Args:
        path: target.
        data: bytes, or text that is stored as UTF-8 without a byte order mark; lone surrogates become U+FFFD.

    Returns:
        The path written.

    Raises:
        FormatError: the target cannot be written.
    """
    target = Path(path)
    content = encoded(data) if isinstance(data, str) else data
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(content)
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, content)
    except OSError as error:
        reason = error.strerror or str(error)
        raise FormatError(f"cannot write {target}: {reason}; {advice(error)}") from error
    return target


def advice(error: OSError) -> str:
    """What to do about a file that cannot be written."""
    return _ADVICE.get(error.errno or 0, "choose another folder")


def shortened(name: str, most: int) -> str:
    """The beginning of a name that takes so many bytes at most."""
    return os.fsencode(name)[:most].decode(errors="ignore")


def encoded(text: str) -> bytes:
    """Encode text as UTF-8; half of a surrogate pair, which UTF-8 cannot hold, becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode("utf-8")


def _replace(target: Path, content: bytes) -> None:
    # not tempfile: its files are private to the user, ours should follow the umask as any output does
    short = shortened(target.name, _PART_BYTES)
    part = target.with_name(f".{short}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
