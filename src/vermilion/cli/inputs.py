"""Input arguments → recordings: files, folders, globs, standard input."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vermilion.cli import STDIN
from vermilion.cli.streams import input_bytes
from vermilion.errors import OptionsError

if TYPE_CHECKING:
    from vermilion.audio import AudioInput

SUFFIXES = frozenset(
    {
        ".aac",
        ".ac3",
        ".aif",
        ".aiff",
        ".amr",
        ".ape",
        ".au",
        ".caf",
        ".dts",
        ".flac",
        ".m4a",
        ".m4b",
        ".mka",
        ".mp2",
        ".mp3",
    }
    | {".oga", ".ogg", ".opus", ".ra", ".spx", ".tta", ".wav", ".wave", ".weba", ".wma", ".wv"}
    | {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".rm", ".ts"}
    | {".webm", ".wmv"}
)
"""files of a folder that are taken for recordings"""


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


def expand(arguments: Sequence[str]) -> tuple[list[Item], list[str]]:
    """Find the recordings that arguments name, each once, in order.

    A file that does not exist stays an item: it fails in its place.

    Returns:
        The recordings, and one sentence per argument that names none.

    Raises:
        OptionsError: no argument names a recording.
    """
    items: dict[Path | None, Item] = {}
    problems = []
    for argument in arguments:
        found = list(_expand(argument))
        if not found:
            problems.append(_nothing(argument))
        for item in found:
            items.setdefault(item.path.resolve() if item.path else None, item)
    if not items:
        raise OptionsError("; ".join(problems) or "no input was given")
    return list(items.values()), problems


def _expand(argument: str) -> Iterator[Item]:
    path = Path(argument)
    if argument == STDIN:
        yield Item(None)
    elif path.is_dir():
        yield from (Item(file, path) for file in _recordings(path))
    elif path.exists() or not glob.has_magic(argument):
        yield Item(path)
    else:
        for match in sorted(glob.glob(argument, recursive=True)):  # noqa: PTH207 - patterns may be absolute
            if Path(match).is_file():
                yield Item(Path(match))


def _recordings(folder: Path) -> list[Path]:
    """Recordings below a folder; hidden files and folders are left out."""
    files = (f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    return sorted(f for f in files if not any(part.startswith(".") for part in f.relative_to(folder).parts))


def _nothing(argument: str) -> str:
    if Path(argument).is_dir():
        return f"the folder {argument} holds no audio or video files"
    return f"no file matches {argument}"
