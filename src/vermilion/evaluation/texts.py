"""Texts by id out of files, so that error rates can be had without recordings and models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vermilion.errors import ManifestError
from vermilion.evaluation.journal import Answer
from vermilion.evaluation.sets import NamedSet
from vermilion.manifests import Utterance

_IDS = ("id", "uttid", "key", "utt")
_TEXTS = ("text", "txt", "pred_text")


def read_texts(path: str | Path) -> dict[str, str]:
    """Read texts by id.

    Args:
        path: Kaldi's `text` ("id the words"), or JSON lines with id (uttid, key) and text (txt, pred_text), such as
            `vermilion transcribe --json` writes. A Kaldi line with an id alone is an empty text.

    Raises:
        ManifestError: the file cannot be read, holds nothing, or has an id twice; the line is named.
    """
    file = Path(path)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"cannot read the texts in {file}: {error}") from error
    found: dict[str, str] = {}
    rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    json_lines = bool(rows) and rows[0][1].lstrip().startswith("{")
    for number, line in rows:
        where = f"{file}, line {number}"
        id, text = _json(line, where) if json_lines else _kaldi(line)
        if id in found:
            raise ManifestError(f"{where}: the id {id} was there before")
        found[id] = text
    if not found:
        raise ManifestError(f"{file} holds no texts")
    return found


def as_set(name: str, references: dict[str, str]) -> NamedSet:
    """A test set of texts alone."""
    return NamedSet(name, tuple(Utterance(id, "", text=text) for id, text in references.items()))


def as_answers(test_set: NamedSet, hypotheses: dict[str, str]) -> dict[str, list[Answer]]:
    """Answers of a system that wrote its texts to a file; an id that is missing there has none."""
    rows = [
        Answer({"text": hypotheses[u.id]}) if u.id in hypotheses else Answer(None, "there is no text with this id")
        for u in test_set.utterances
    ]
    return {test_set.name: rows}


def _kaldi(line: str) -> tuple[str, str]:
    id, *rest = line.strip().split(maxsplit=1)
    return id, rest[0] if rest else ""


def _json(line: str, where: str) -> tuple[str, str]:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise ManifestError(f"{where} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise ManifestError(f"{where} is no JSON object")
    id = next((str(row[k]) for k in _IDS if row.get(k) is not None), None)
    text = next((row[k] for k in _TEXTS if isinstance(row.get(k), str)), None)
    if id is None or text is None:
        raise ManifestError(f"{where} needs an id ({', '.join(_IDS)}) and a text ({', '.join(_TEXTS)})")
    return id, text
