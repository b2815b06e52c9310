"""The report's figures as data: Tables 2 to 6 of arXiv 2603.10420v1, and the groups that its averages run over.

Copied by hand from the report; its averages were recomputed from the single sets and agree to 0.01.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, cast

from vermilion.errors import OptionsError

Kind = Literal["asr", "vad", "lid", "punc"]
_FILE = "published.json"


@dataclass(frozen=True)
class ReportTable:
    """One table of the report."""

    number: int
    title: str
    task: Kind
    section: str
    """of the report"""
    source: str
    note: str
    """what to know when comparing"""
    sets: tuple[str, ...]
    """test sets, by the names of `vermilion prepare`"""
    systems: Mapping[str, Mapping[str, Mapping[str, float]]]
    """system → set or group → figure → share (the report prints percent)"""

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Group → its sets, for the macro averages of this table."""
        return groups() if self.task == "asr" else {}


def table(number: int) -> ReportTable:
    """A table of the report.

    Args:
        number: 2 (recognition), 3 (voice activity), 4 (languages), 5 (punctuation), 6 (recognition, set by set).

    Raises:
        OptionsError: there is no such table.
    """
    tables = _read()["tables"]
    if str(number) not in tables:
        raise OptionsError(f"the report's figures are kept for tables {', '.join(tables)}, not for {number}")
    found = tables[str(number)]
    systems = {
        system: {name: {key: round(value / 100, 6) for key, value in figures.items()} for name, figures in rows.items()}
        for system, rows in found["systems"].items()
    }
    return ReportTable(
        number,
        found["title"],
        cast(Kind, found["task"]),
        found["section"],
        found["source"],
        found["note"],
        tuple(found["sets"]),
        systems,
    )


def groups() -> dict[str, tuple[str, ...]]:
    """Mandarin-4, Dialect-19, All-24, Sing-1 → the sets that the average runs over, each with the same weight."""
    return {name: tuple(sets) for name, sets in _read()["groups"].items()}


@cache
def _read() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files("vermilion.evaluation").joinpath(_FILE).read_text(encoding="utf-8"))
    return found
