"""Where the outputs of each recording go, and which recordings are done already."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vermilion.cli.inputs import Item
from vermilion.errors import FormatError, OptionsError

DEFAULT_FORMATS = ("srt", "json")
_SOURCE = re.compile(r'"wav_path":\s*("(?:[^"\\]|\\.)*")')


@dataclass(frozen=True)
class Target:
    """The outputs of one recording."""

    item: Item
    paths: tuple[Path, ...]
    """transcripts, one per format"""
    picture: Path | None = None
    """timeline"""

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file that will be written."""
        return (*self.paths, self.picture) if self.picture else self.paths

    def done(self) -> bool:
        """Whether every output exists, holds something and is newer than the recording."""
        if self.item.path is None or not self.all:
            return False
        try:
            made = self.item.path.stat().st_mtime
            found = [path.stat() for path in self.all]
        except OSError:
            return False
        return all(f.st_size > 0 and f.st_mtime >= made for f in found)


def parse_formats(values: Sequence[str] | None) -> list[str]:
    """Read `--format srt --format json` and `--format srt,json`.

    Raises:
        FormatError: a format is unknown.
    """
    from vermilion.formats import FORMATS

    known = {name.lower(): name for name in FORMATS}
    names = [v.strip().lstrip(".").lower() for value in values or () for v in value.split(",") if v.strip()]
    unknown = [n for n in names if n not in known]
    if unknown:
        raise FormatError(f"unknown format {', '.join(unknown)}; known are {', '.join(FORMATS)}")
    return list(dict.fromkeys(known[n] for n in names))


def plan(items: Sequence[Item], folder: Path, formats: Sequence[str], picture: str | None) -> list[Target]:
    """Give every recording outputs of its own below `folder`.

    Args:
        items: the recordings.
        folder: where the outputs go.
        formats: names of the formats.
        picture: "png", "html" or None.
    """

    def foreign(item: Item, name: Path) -> bool:
        return "json" in formats and _belongs_to_another(item, (folder / name).with_name(f"{name.name}.json"))

    targets = []
    for item, name in zip(items, names(items, foreign), strict=True):
        base = folder / name
        paths = tuple(base.with_name(f"{base.name}.{suffix}") for suffix in formats)
        targets.append(Target(item, paths, base.with_name(f"{base.name}.{picture}") if picture else None))
    return targets


def names(items: Sequence[Item], foreign: Callable[[Item, Path], bool] = lambda _, __: False) -> list[Path]:
    """Name each recording's outputs; nothing is ever written twice.

    The stem where it is unique; else the path below the folder that was searched; else with the recording's own
    suffix (`talk.wav.srt`); else with the folder it lies in (`monday-talk.wav`), else with a number.

    Args:
        items: the recordings.
        foreign: tells whether outputs of this name are there already and belong to a recording of an earlier run.
    """
    chosen = [Path(item.inner.name) for item in items]
    refinements: list[Callable[[Item], Path]] = [_inner, _with_suffix, _with_parent]
    for refine in refinements:
        shared = Counter(_key(name) for name in chosen)
        chosen = [refine(i) if shared[_key(n)] > 1 else n for i, n in zip(items, chosen, strict=True)]
    return _numbered([_with_parent(i) if foreign(i, n) else n for i, n in zip(items, chosen, strict=True)])


def _inner(item: Item) -> Path:
    return item.inner


def _with_suffix(item: Item) -> Path:
    return item.inner.with_name(item.path.name) if item.path else item.inner


def _with_parent(item: Item) -> Path:
    parent = item.path.resolve().parent.name if item.path else ""
    named = _with_suffix(item)
    return named.with_name(f"{parent}-{named.name}") if parent else named


def _numbered(chosen: list[Path]) -> list[Path]:
    taken: set[str] = set()
    result = []
    for name in chosen:
        candidate, number = name, 2
        while _key(candidate) in taken:
            candidate, number = name.with_name(f"{name.name}-{number}"), number + 1
        taken.add(_key(candidate))
        result.append(candidate)
    return result


def _belongs_to_another(item: Item, transcript: Path) -> bool:
    """Whether a transcript that is there names another recording as its source."""
    try:
        found = _SOURCE.search(transcript.read_text(encoding="utf-8"))
        source = Path(json.loads(found[1])) if found else None
    except (OSError, ValueError):
        return False
    if source is None or item.path is None or source == item.path:
        return source is not None and item.path is None and str(source) != item.name
    if source.exists() and item.path.exists():
        return not source.samefile(item.path)
    return source.name != item.path.name  # noted from another folder, or moved since: the name must do


def _key(name: Path) -> str:
    """Names that some file systems take for the same are the same."""
    return unicodedata.normalize("NFC", str(name)).casefold()


def shown(paths: Sequence[Path]) -> str:
    """Outputs that differ in their suffix only, as a shell would write them: `out/talk.{srt,json}`."""
    if len(paths) == 1:
        return str(paths[0])
    return f"{paths[0].with_suffix('')}.{{{','.join(p.suffix[1:] for p in paths)}}}"


def make_folder(folder: Path) -> None:
    """Create the output folder.

    Raises:
        OptionsError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionsError(f"cannot create the output folder {folder}: {error.strerror}") from error
