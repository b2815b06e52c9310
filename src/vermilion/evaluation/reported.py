"""The report's tables with our figures beside the published ones, from a folder of manifests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vermilion.errors import ManifestError
from vermilion.evaluation.published import ReportTable
from vermilion.evaluation.results import ScoringOptions
from vermilion.evaluation.sets import NamedSet
from vermilion.evaluation.texts import as_set, read_texts
from vermilion.manifests import Utterance, read_manifest

DIALECTS = "dialects"
"""KeSpeech and MagicData together, by dialect group (table 4)"""
_SOURCES = ("kespeech", "md-*")


@dataclass(frozen=True)
class Part:
    """Sets that are scored alike."""

    name: str
    """empty unless a table has several parts"""
    sets: tuple[NamedSet, ...]
    scoring: ScoringOptions


def parts(table: ReportTable, data: str | Path) -> list[Part]:
    """Find the sets of a table.

    Args:
        table: of the report.
        data: folder of manifests named after the sets, as `vermilion prepare` writes them; the sets that are not there
            are left out, and so is every average that would need them.

    Returns:
        One part, or two for table 4: dialects are scored by their group, languages by the language.

    Raises:
        ManifestError: none of the sets is there, or a manifest cannot be read.
    """
    folder = Path(data)
    present = [name for name in table.sets if name != DIALECTS and (folder / f"{name}.jsonl").is_file()]
    complete = {group: sets for group, sets in table.groups.items() if set(sets) <= set(present)}
    made = [_named(folder, name, table, tuple(g for g, sets in complete.items() if name in sets)) for name in present]
    found = [Part("", tuple(made), ScoringOptions())] if made else []
    if DIALECTS in table.sets and (rows := _dialects(folder)):
        found.append(Part(DIALECTS, (NamedSet(DIALECTS, tuple(rows)),), ScoringOptions(level="dialect")))
    if not found:
        raise ManifestError(
            f"{folder} holds no manifest of table {table.number}: {', '.join(f'{s}.jsonl' for s in table.sets)}; "
            "`vermilion prepare` makes them from the folders as their owners distribute them"
        )
    return found


def missing(table: ReportTable, found: Sequence[Part]) -> list[str]:
    """Sets of a table that are not there."""
    present = {test_set.name for part in found for test_set in part.sets}
    return [name for name in table.sets if name not in present]


def _named(folder: Path, name: str, table: ReportTable, groups: tuple[str, ...]) -> NamedSet:
    file = folder / f"{name}.jsonl"
    if table.task == "punc":
        return as_set(name, read_texts(file))
    return NamedSet(name, tuple(read_manifest(file)), groups)


def _dialects(folder: Path) -> list[Utterance]:
    """What has a dialect group in the manifest of its own, else in those of KeSpeech and MagicData."""
    own = folder / f"{DIALECTS}.jsonl"
    files = [own] if own.is_file() else sorted({p for s in _SOURCES for p in folder.glob(f"{s}.jsonl")})
    rows = [(file.stem, row) for file in files for row in read_manifest(file)]
    return [_prefixed(stem, row) for stem, row in rows if row.language and row.language.startswith("zh ")]


def _prefixed(stem: str, row: Utterance) -> Utterance:
    """Ids of several manifests may be equal."""
    return row if stem == DIALECTS else Utterance(**{**vars(row), "id": f"{stem}/{row.id}"})
