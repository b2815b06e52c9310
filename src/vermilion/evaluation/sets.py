"""Test sets: named lists of utterances, the averages that they count in, and the references that their lines carry.

Beside `text` and `lang`, a line of a manifest may have `segments` ([[start, end], …]: speech), `events` ({"music":
[[start, end], …], …}) and `words` ([[word, start, end], …]), in seconds from the beginning of the utterance.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vermilion.errors import ManifestError, OptionsError
from vermilion.manifests import KALDI_WAVES, Utterance, from_row, read_manifest
from vermilion.transcript import Span, Word


@dataclass(frozen=True)
class NamedSet:
    """One test set."""

    name: str
    utterances: tuple[Utterance, ...]
    groups: tuple[str, ...] = ()
    """macro averages that it counts in, such as "Mandarin-4" and "All-24" """

    def __post_init__(self) -> None:
        twice = [id for id, n in Counter(u.id for u in self.utterances).items() if n > 1]
        if twice:
            raise ManifestError(f"the set {self.name} has {len(twice)} ids more than once, such as {twice[0]!r}")


def read_sets(arguments: Sequence[str], groups: Sequence[str] = (), *, texts: bool = False) -> list[NamedSet]:
    """Read manifests.

    Args:
        arguments: paths of manifests, or NAME=path; without a name the file's stem (a Kaldi folder's name).
        groups: averages, each as NAME=SET,SET.
        texts: lines need a text and no recording.

    Raises:
        ManifestError: a manifest cannot be read, or has an id twice.
        OptionsError: two sets share a name, or a group names an unknown set.
    """
    named = [_named(argument) for argument in arguments]
    names = [name for name, _ in named]
    if len(set(names)) < len(names):
        raise OptionsError(f"two sets share a name ({', '.join(names)}); give one as NAME=path")
    members = [_group(text, names) for text in groups]
    return [
        NamedSet(name, tuple((read_lines if texts else read_manifest)(path)), tuple(g for g, s in members if name in s))
        for name, path in named
    ]


def read_lines(path: str | Path) -> list[Utterance]:
    """Read a manifest whose lines may have a text and no recording; without an id they go by their number.

    Raises:
        ManifestError: it cannot be read, or a line has neither.
    """
    file = Path(path)
    if file.is_dir() or file.name == KALDI_WAVES:
        return read_manifest(path)
    found = []
    try:
        rows = [json.loads(line) if line.strip() else None for line in file.read_text("utf-8-sig").splitlines()]
    except (OSError, ValueError):
        return read_manifest(path)  # an array, packed, or it says what is wrong
    for number, row in enumerate(rows, 1):
        if row is not None:
            found.append(_line(row, file, number))
    if not found:
        raise ManifestError(f"{file} holds no texts")
    return found


def _line(row: Any, file: Path, number: int) -> Utterance:
    where = f"{file}, line {number}"
    if isinstance(row, dict) and not any(key in row for key in _RECORDINGS):
        if not isinstance(row.get("text", row.get("txt")), str):
            raise ManifestError(f'{where} has neither a "text" nor a recording')
        named = {"id": f"line {number}"} | row | {"audio_filepath": "none"}
        return replace(from_row(named, file.parent, where), audio="")
    if not isinstance(row, dict):
        raise ManifestError(f"{where} is no JSON object")
    return from_row(row, file.parent, where)


_RECORDINGS = ("audio_filepath", "wav", "audio")
"""keys that name one"""


def spans_of(utterance: Utterance) -> list[Span] | None:
    """True speech segments; None if the line has none of that key.

    Raises:
        ManifestError: the key holds something else.
    """
    given = utterance.extra.get("segments")
    return None if given is None else _spans(given, utterance, "segments")


def events_of(utterance: Utterance) -> dict[str, list[Span]] | None:
    """True spans by event; None if the line has none of that key.

    Raises:
        ManifestError: the key holds something else.
    """
    given = utterance.extra.get("events")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise ManifestError(f'{utterance.id}: events is no {{"speech": [[start, end], …], …}}')
    return {str(name): _spans(spans, utterance, f"events[{name!r}]") for name, spans in given.items()}


def words_of(utterance: Utterance) -> list[Word] | None:
    """True words with their times; None if the line has none of that key.

    Raises:
        ManifestError: the key holds something else.
    """
    given = utterance.extra.get("words")
    if given is None:
        return None
    try:
        return [Word(str(word), float(start), float(end)) for word, start, end in given]
    except (TypeError, ValueError) as error:
        raise ManifestError(f"{utterance.id}: words is no [[word, start, end], …]: {error}") from error


def _spans(given: Any, utterance: Utterance, key: str) -> list[Span]:
    try:
        return [Span(float(start), float(end)) for start, end in given]
    except (TypeError, ValueError) as error:
        raise ManifestError(f"{utterance.id}: {key} is no [[start, end], …]: {error}") from error


def _named(argument: str) -> tuple[str, Path]:
    name, equals, path = argument.partition("=")
    if equals and name and not Path(argument).exists():
        return name, Path(path)
    file = Path(argument)
    if file.name == KALDI_WAVES:
        return file.resolve().parent.name, file
    return (file.resolve().name if file.is_dir() else file.name.partition(".")[0]), file


def _group(text: str, names: Sequence[str]) -> tuple[str, list[str]]:
    group, equals, listed = text.partition("=")
    members = [m.strip() for m in listed.split(",") if m.strip()]
    unknown = [m for m in members if m not in names]
    if not equals or not group or not members or unknown:
        wrong = f"; {', '.join(unknown)} is none of them" if unknown else ""
        raise OptionsError(f"a group is NAME=SET,SET with sets out of {', '.join(names)}, not {text!r}{wrong}")
    return group, members
