"""Files that appear whole or not at all."""

from __future__ import annotations

import secrets
from pathlib import Path

from vermilion.errors import FormatError


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
        raise FormatError(f"cannot write {target}: {reason}; choose another folder or free some space") from error
    return target


def encoded(text: str) -> bytes:
    """Encode text as UTF-8; half of a surrogate pair, which UTF-8 cannot hold, becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode("utf-8")


def _replace(target: Path, content: bytes) -> None:
    # not tempfile: its files are private to the user, ours should follow the umask as any output does
    part = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
