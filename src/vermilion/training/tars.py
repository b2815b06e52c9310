"""Reading tar shards of any origin: nothing is unpacked to disk, names are never paths, sizes are limited."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vermilion.audio import load_audio
from vermilion.errors import ManifestError
from vermilion.manifests import BYTES, Utterance, from_row

_BLOCK = 512
_LARGEST_AUDIO = 256 << 20
_LARGEST_TEXT = 1 << 20
_MOST_PARTS = 32
"""members that may belong to one utterance"""
_AUDIO = ("flac", "wav", "ogg", "opus", "mp3", "m4a", "webm")
_TEXT = ("json", "txt")
_PLAIN_FILES = (b"0", b"\0", b"7")
_LONG_NAME, _PAX = b"L", b"x"
_SKIP_BYTES = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One utterance of a shard."""

    utterance: Utterance
    """its `audio` is the shard; can be loaded later, too, where that is a file"""
    data: bytes
    """the encoded recording"""

    def load(self) -> NDArray[np.float32]:
        """Decode the recording, (n,) float32 at 16 kHz.

        Raises:
            AudioError: it cannot be decoded.
        """
        return load_audio(self.data)


@dataclass(frozen=True)
class _Part:
    """A file of a tar that belongs to an utterance."""

    suffix: str
    first: int
    """byte of the tar with which it begins"""
    data: bytes


def walk(stream: IO[bytes], name: str, skip: int = 0) -> Iterator[Entry | None]:
    """Yield the utterances of a tar: neighbours whose names are equal up to the first dot.

    Args:
        stream: at the beginning of the tar; need not be seekable.
        name: path of the shard, or what messages call it.
        skip: so many first utterances are passed over unread: None is yielded for them.

    Raises:
        ManifestError: it is no tar, ends early, or has a member that is too large or not what belongs there.
    """
    reader = _Reader(stream, name)
    current, parts, count = None, list[_Part](), 0
    for member in reader.members():
        key, _, suffix = member.rpartition("/")[2].partition(".")
        suffix = suffix.lower()
        if key != current:
            if current is not None:
                yield _entry(current, parts, name) if count >= skip else None
                count += 1
            current, parts = key, []
        if count >= skip and suffix in _AUDIO + _TEXT:
            if len(parts) == _MOST_PARTS:
                raise ManifestError(f"{name}: more than {_MOST_PARTS} files are called {key}")
            most = _LARGEST_AUDIO if suffix in _AUDIO else _LARGEST_TEXT
            parts.append(_Part(suffix, reader.at, reader.data(member, most)))
    if current is not None:
        yield _entry(current, parts, name) if count >= skip else None


def _entry(key: str, parts: list[_Part], name: str) -> Entry:
    """Put the files of an utterance together."""
    where = f"{name}, {key}"
    audio = next((part for part in parts if part.suffix in _AUDIO), None)
    if audio is None:
        raise ManifestError(f"{where} has no recording ({', '.join(_AUDIO)})")
    row: dict[str, Any] = {}
    for part in parts:
        if part.suffix == "txt":
            row["text"] = _decoded(part.data, where).strip()
        elif part.suffix == "json":
            row |= _object(part.data, where)
    row = {"id": key} | {k: v for k, v in row.items() if k not in ("audio_filepath", "wav", "audio", "offset")}
    row |= {"audio_filepath": Path(name).name, BYTES: [audio.first, len(audio.data)]}
    return Entry(from_row(row, Path(name).parent, where), audio.data)


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ManifestError(f"{where}: its text is not UTF-8") from error


def _object(data: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(_decoded(data, where))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ManifestError(f"{where}: its json is none: {error}") from error
    if not isinstance(found, dict):
        raise ManifestError(f"{where}: its json is no object")
    return found


class _Reader:
    """The headers of a tar (POSIX ustar, GNU), and the data of the members that are wanted."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        """Take a stream at its beginning."""
        self.stream, self.name = stream, name
        self.at = 0
        self._left = 0  # bytes of the member that have not been read

    def members(self) -> Iterator[str]:
        """Yield the names of the plain files; each may be read (`data`) before the next is asked for."""
        longer = ""
        while True:
            self._pass_over(self._left)
            self._pass_over(-self.at % _BLOCK)
            header = self._read(_BLOCK)
            if not header.strip(b"\0"):
                return
            size = self._size_of(header)
            kind = header[156:157]
            self._left = size
            if kind in (_LONG_NAME, _PAX):
                longer = _name_in(self.data("a header", _LARGEST_TEXT), kind) or longer
            elif kind in _PLAIN_FILES:
                yield longer or header[:100].rstrip(b"\0").decode("utf-8", "replace")
                longer = ""

    def data(self, member: str, most: int) -> bytes:
        """Read the member at hand."""
        if self._left > most:
            raise ManifestError(f"{self.name}: {member} claims {self._left} bytes, the limit is {most}")
        data = self._read(self._left)
        self._left = 0
        return data

    def _size_of(self, header: bytes) -> int:
        if len(header) < _BLOCK:
            raise ManifestError(f"{self.name} is cut short, or no tar")
        expected = sum(header[:148]) + 8 * 32 + sum(header[156:])
        if _number(header[148:156]) != expected:
            raise ManifestError(f"{self.name} is no tar, or damaged at byte {self.at - _BLOCK}")
        size = _number(header[124:136])
        if size is None:
            raise ManifestError(f"{self.name} is damaged at byte {self.at - _BLOCK}: a size is no number")
        return size

    def _read(self, count: int) -> bytes:
        """Read all of it; fewer bytes only where the tar ends between members."""
        pieces: list[bytes] = []
        missing = count
        while missing and (piece := self._raw(min(missing, _SKIP_BYTES))):
            pieces.append(piece)
            missing -= len(piece)
        self.at += count - missing
        if missing and (missing < count or count != _BLOCK):
            raise ManifestError(f"{self.name} is cut short at byte {self.at}")
        return b"".join(pieces)

    def _raw(self, count: int) -> bytes:
        try:
            return self.stream.read(count)
        except (OSError, ValueError) as error:
            raise ManifestError(f"cannot read the shard {self.name}: {error}") from error

    def _pass_over(self, count: int) -> None:
        """Go on without keeping anything; a seek would not notice that a file ends early."""
        while count:
            piece = self._raw(min(count, _SKIP_BYTES))
            if not piece:
                raise ManifestError(f"{self.name} is cut short at byte {self.at}")
            self.at += len(piece)
            count -= len(piece)
        self._left = 0


def _number(field: bytes) -> int | None:
    """A number of a header: octal digits, or binary with the first bit set (GNU); None where it is neither."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        return None


def _name_in(data: bytes, kind: bytes) -> str:
    """The name in a header of its own: GNU's long name, or the path among pax's records `LENGTH KEY=VALUE`."""
    if kind == _LONG_NAME:
        return data.rstrip(b"\0").decode("utf-8", "replace")
    for record in data.split(b"\n"):
        _, _, pair = record.partition(b" ")
        if pair.startswith(b"path="):
            return pair[5:].decode("utf-8", "replace")
    return ""
