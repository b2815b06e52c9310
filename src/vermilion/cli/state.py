"""What made the outputs of a folder: the identity of every recording, in a small file beside them."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_EDGE = 1 << 16
FILE = ".vermilion.jsonl"


@dataclass(frozen=True)
class Identity:
    """What a recording is."""

    path: str
    """absolute; bytes that are no text are kept as lone surrogates"""
    size: int
    """bytes"""
    mtime_ns: int
    digest: str = ""
    """of the beginning and the end: another recording may have size and time in common"""

    @property
    def content(self) -> tuple[int, int, str]:
        """What stays when the recording is moved."""
        return self.size, self.mtime_ns, self.digest

    @classmethod
    def of(cls, path: Path) -> Identity | None:
        """That of a file; None where there is none."""
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                return None  # a pipe is read once only
            digest = _digest(path, status.st_size)
        except (OSError, ValueError):
            return None
        return cls(os.path.abspath(path), status.st_size, status.st_mtime_ns, digest)  # noqa: PTH100 - links are kept

    def is_place_of(self, path: Path) -> bool:
        """Whether a path is this recording's, under whatever name; also where it has been moved since."""
        if self.path == os.path.abspath(path):  # noqa: PTH100
            return True
        known = Path(self.path)
        try:
            if known.exists():
                return known.samefile(path)
        except (OSError, ValueError):
            return False
        now = Identity.of(path)
        return now is not None and now.content == self.content


def _digest(path: Path, size: int) -> str:
    with path.open("rb") as file:
        head = file.read(_EDGE)
        file.seek(max(len(head), size - _EDGE))
        return hashlib.sha256(head + file.read(_EDGE)).hexdigest()[:16]


class State:
    """The identities behind the outputs of a folder. A line that a crash has torn counts for nothing."""

    def __init__(self, folder: Path) -> None:
        """Read what is there."""
        self.file = folder / FILE
        self.folder = folder
        self.known: dict[str, tuple[str, Identity]] = {}
        """outputs as they are written, and what they were made of"""
        with suppress(OSError):
            for line in self.file.read_bytes().splitlines():
                self._read(line)

    def _read(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            identity = Identity(str(row["path"]), int(row["size"]), int(row["mtime_ns"]), str(row["digest"]))
            names = [str(name) for name in row["outputs"]]
        except (ValueError, KeyError, TypeError):
            return
        self.known.update((_key(name), (name, identity)) for name in names)

    def of(self, output: Path) -> Identity | None:
        """The recording that an output, or one that differs in case or accents only, was made of; None = not known."""
        name, identity = self.known.get(_key(self._name(output)), ("", None))
        return identity if name and (self.folder / name).exists() else None

    def note(self, outputs: Sequence[Path], identity: Identity) -> None:
        """Keep what outputs were made of: one line, written at once, so that runs side by side do not mix theirs."""
        names = [self._name(path) for path in outputs]
        line = json.dumps({"outputs": names, **asdict(identity)})  # ASCII: every name survives
        before = b"\n" if self._torn() else b""
        with self.file.open("ab", buffering=0) as out:
            out.write(before + line.encode("ascii") + b"\n")
        self.known.update((_key(name), (name, identity)) for name in names)

    def _torn(self) -> bool:
        try:
            with self.file.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read(1) != b"\n"
        except OSError:  # it is not there yet, or empty
            return False

    def _name(self, output: Path) -> str:
        return output.relative_to(self.folder).as_posix()


def _key(name: str) -> str:
    """Names of outputs that some file systems take for the same are the same."""
    return unicodedata.normalize("NFC", name).casefold()
