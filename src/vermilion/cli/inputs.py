"""Input arguments → recordings: files, folders, globs, standard input."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vermilion.cli import STDIN
from vermilion.cli.streams import input_bytes
from vermilion.errors import OptionsError

if TYPE_CHECKING:
    from vermilion.audio import AudioInput

_KINDS = 5
"""kinds of files that are named where some are left out"""


@dataclass(frozen=True)
class Item:
    """One recording that was asked for."""

    path: Path | None
    """None for standard input"""
    root: Path | None = None
    """the folder argument that it was found under"""

    @property
    def name(self) -> str:
        """How messages call it."""
        return STDIN if self.path is None else str(self.path)

    @property
    def source(self) -> AudioInput:
        """What the library reads."""
        return input_bytes() if self.path is None else self.path

    @property
    def inner(self) -> Path:
        """Path below the folder argument, without suffix; just the stem for a file argument."""
        if self.path is None:
            return Path("stdin")
        below = self.path.relative_to(self.root) if self.root else Path(self.path.name)
        return below.with_name(self.path.stem)

    def size(self) -> int:
        """Bytes, 0 where unknown."""
        try:
            return self.path.stat().st_size if self.path else 0
        except OSError:
            return 0


def expand(arguments: Sequence[str], notes: list[str] | None = None) -> tuple[list[Item], list[str]]:
    """Find the recordings that arguments name, each once, in order.

    A file that does not exist stays an item: it fails in its place.

    Args:
        arguments: files, folders, patterns, or the mark of standard input.
        notes: is appended one sentence for every folder that holds other files too.

    Returns:
        The recordings, and one sentence per argument that names none.

    Raises:
        OptionsError: no argument names a recording.
    """
    items: dict[Path | None, Item] = {}
    problems = []
    for argument in arguments:
        found = list(_expand(argument, notes if notes is not None else []))
        if not found:
            problems.append(_nothing(argument))
        for item in found:
            items.setdefault(item.path.resolve() if item.path else None, item)
    if not items:
        raise OptionsError("; ".join(problems) or "no input was given")
    return list(items.values()), problems


def _expand(argument: str, notes: list[str]) -> Iterator[Item]:
    path = Path(argument)
    if argument == STDIN:
        yield Item(None)
    elif path.is_dir():
        yield from (Item(file, path) for file in _recordings(path, notes))
    elif path.exists() or path.is_symlink() or not glob.has_magic(argument):
        yield Item(path)
    else:
        for match in _matches(argument):
            if Path(match).is_file():
                yield Item(Path(match))


def _matches(pattern: str) -> list[str]:
    """What a pattern finds; where it finds nothing, brackets stand for themselves (`talk [1]/*.wav`)."""
    found = glob.glob(pattern, recursive=True)  # noqa: PTH207 - patterns may be absolute
    if not found and "[" in pattern:
        found = glob.glob(pattern.replace("[", "[[]"), recursive=True)  # noqa: PTH207
    return sorted(found)


def _recordings(folder: Path, notes: list[str]) -> list[Path]:
    """Recordings below a folder, links to folders followed; hidden files and folders are left out."""
    from vermilion.audio.kinds import suffixes

    known, taken, others = suffixes(), [], Counter[str]()
    for file in _files(folder):
        if file.suffix.lower() in known and (file.is_file() or file.is_symlink()):
            taken.append(file)  # a link that leads nowhere fails in its place
        elif file.is_symlink() and not file.exists():
            notes.append(f"{file} is a link that leads nowhere; it was left out")
        else:
            others[file.suffix.lower() or "without suffix"] += 1
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common(_KINDS))
        more = "" if len(others) <= _KINDS else ", …"
        count = others.total()
        were = "file was" if count == 1 else "files were"
        notes.append(f"{folder}: {count} other {were} left out ({kinds}{more}); name them to have them read")
    return sorted(taken)


def _files(folder: Path) -> Iterator[Path]:
    """Everything that is no folder; a folder that several links lead to is searched once."""
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # folders themselves before links to them, so that recordings keep their own names
        folders[:] = sorted((f for f in folders if not f.startswith(".")), key=lambda f: _order(Path(place, f)))
        yield from (Path(place, name) for name in files if not name.startswith("."))


def _order(folder: Path) -> tuple[bool, str]:
    return folder.is_symlink(), folder.name


def _nothing(argument: str) -> str:
    if Path(argument).is_dir():
        return f"the folder {argument} holds no audio or video files"
    return f"no file matches {argument}"
