"""Where the outputs of each recording go, and which recordings are done already."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vermilion.cli.inputs import Item
from vermilion.cli.state import Identity, State
from vermilion.errors import FormatError, OptionsError
from vermilion.formats.files import shortened

_TEMPORARY = 20
"""bytes that the name of a temporary file may add"""
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
    name: Path = Path()
    """of the outputs, below the folder, without suffix"""

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file that will be written."""
        return (*self.paths, self.picture) if self.picture else self.paths

    @property
    def id(self) -> str:
        """The id of the recording in its transcripts: no other recording of the run has it."""
        return "-".join(self.name.parts) or Path(self.item.inner).name

    def done(self, state: State | None = None) -> bool:
        """Whether every output exists, holds something and was made of this very recording.

        Outputs that nothing is known of (of versions that kept no state) must be newer than the recording.
        """
        identity = Identity.of(self.item.path) if self.item.path else None
        if identity is None or not self.all:
            return False
        try:
            found = [path.stat() for path in self.all]
        except OSError:
            return False
        return all(
            f.st_size > 0 and _made_of(identity, state.of(p) if state else None, f.st_mtime_ns)
            for p, f in zip(self.all, found, strict=True)
        )


def _made_of(identity: Identity, known: Identity | None, written: int) -> bool:
    if known is None:
        return written >= identity.mtime_ns
    return known.content == identity.content


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


def plan(
    items: Sequence[Item], folder: Path, formats: Sequence[str], picture: str | None, state: State | None = None
) -> list[Target]:
    """Give every recording outputs of its own below `folder`.

    Args:
        items: the recordings.
        folder: where the outputs go.
        formats: names of the formats.
        picture: "png", "html" or None.
        state: what the outputs that are there were made of.

    Raises:
        OptionsError: an output's path is longer than the file system takes.
    """
    suffixes = [*formats, picture] if picture else list(formats)
    most = limit(folder, "PC_NAME_MAX", 255) - max((len(s) + 1 for s in suffixes), default=0)

    def foreign(item: Item, name: Path) -> bool:
        return any(_belongs_to_another(item, p, state) for p in _paths(folder / name, suffixes))

    targets = []
    for item, name in zip(items, names(items, foreign, most), strict=True):
        base = folder / name
        target = Target(
            item, tuple(_paths(base, formats)), base.with_name(f"{base.name}.{picture}") if picture else None, name
        )
        _check_length(target, folder)
        targets.append(target)
    return targets


def _paths(base: Path, suffixes: Sequence[str]) -> list[Path]:
    return [base.with_name(f"{base.name}.{suffix}") for suffix in suffixes]


def limit(folder: Path, name: str, usual: int) -> int:
    """A limit of the file system that a folder lies on, in bytes."""
    try:
        found = os.pathconf(folder, name)
    except (OSError, ValueError, AttributeError):  # it is not there yet, or the system does not say
        return usual
    return found if found > 0 else usual


def _check_length(target: Target, folder: Path) -> None:
    most = limit(folder, "PC_PATH_MAX", 4096)
    for path in target.all:
        if len(os.fsencode(path)) + _TEMPORARY >= most:
            raise OptionsError(f"the output {path} has a path of more than {most} bytes; choose another folder")


def names(
    items: Sequence[Item], foreign: Callable[[Item, Path], bool] = lambda _, __: False, most: int = 240
) -> list[Path]:
    """Name each recording's outputs; nothing is ever written twice.

    The stem where it is unique; else the path below the folder that was searched; else with the recording's own
    suffix (`talk.wav.srt`); else with the folder it lies in (`monday-talk.wav`), else with a number. Names that are
    too long are cut and end in a hash.

    Args:
        items: the recordings.
        foreign: tells whether outputs of this name are there already and belong to a recording of an earlier run.
        most: bytes that a name may take, without the suffix of the output.
    """
    chosen = [Path(item.inner.name) for item in items]
    refinements: list[Callable[[Item], Path]] = [_inner, _with_suffix, _with_parent]
    for refine in refinements:
        shared = Counter(_key(name) for name in chosen)
        chosen = [refine(i) if shared[_key(n)] > 1 else n for i, n in zip(items, chosen, strict=True)]
    free = [_free(i, n, foreign, most) for i, n in zip(items, chosen, strict=True)]
    return [_fitted(n, most) for n in _numbered(free)]


def _free(item: Item, name: Path, foreign: Callable[[Item, Path], bool], most: int) -> Path:
    """The first name whose outputs do not belong to another recording."""
    parent = _with_parent(item)
    for candidate in (name, parent, parent.with_name(f"{parent.name}-{_hash(item.path)}")):
        fitted = _fitted(candidate, most)
        if not foreign(item, fitted):
            return fitted
    return fitted


def _fitted(name: Path, most: int) -> Path:
    """A name that takes too many bytes, cut, with a hash of the whole."""
    if len(os.fsencode(name.name)) <= most:
        return name
    end = f"-{_hash(name)}"
    return name.with_name(shortened(name.name, most - len(end)) + end)


def _hash(name: Path | None) -> str:
    path = os.path.abspath(name) if name else ""  # noqa: PTH100 - links are kept
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:8]


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


def _belongs_to_another(item: Item, output: Path, state: State | None) -> bool:
    """Whether an output is there and was made of another recording."""
    known = state.of(output) if state else None
    if known is not None:
        return item.path is None or not known.is_place_of(item.path)
    return output.exists() and output.suffix == ".json" and _says_another(item, output)


def _says_another(item: Item, transcript: Path) -> bool:
    """Whether a transcript of a version that kept no state names another recording as its source."""
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
