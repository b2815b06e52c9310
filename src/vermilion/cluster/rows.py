"""Transcripts and failures → rows of a corpus, the same whatever engine ran them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from vermilion.cluster.provenance import Provenance
from vermilion.manifests import Utterance
from vermilion.transcript import Transcript

Row = dict[str, Any]
_SHALLOW = 2
"""folders of so few parts ("/home") say nothing about anybody"""


def row(utterance: Utterance, transcript: Transcript, origin: Provenance, *, redact: bool = False) -> Row:
    """The row of a finished item.

    Args:
        utterance: what the manifest said.
        transcript: the result.
        origin: what made it.
        redact: put a hash in the place of every path.

    Returns:
        `id` first, then `Transcript.to_dict()`, `manifest` (what else its line said) and `provenance`.
    """
    said = utterance.to_dict()
    result = transcript.to_dict()
    result["uttid"], result["wav_path"] = utterance.id, utterance.audio
    found = {"id": utterance.id, **result, "manifest": {k: v for k, v in said.items() if k != "id"}}
    return {**_redacted(found, utterance, redact), "provenance": origin.to_dict()}


def failure_row(
    utterance: Utterance, kind: str, message: str, attempts: int, origin: Provenance, *, redact: bool = False
) -> Row:
    """The row of an item that failed.

    Args:
        utterance: what the manifest said.
        kind: type of the error, such as "AudioError" or "WorkerDied".
        message: what happened.
        attempts: how often it was tried.
        origin: what tried it.
        redact: put a hash in the place of every path.
    """
    found = {"id": utterance.id, "wav_path": utterance.audio, "error": kind, "message": message, "attempts": attempts}
    said = {k: v for k, v in utterance.to_dict().items() if k != "id"}
    return {**_redacted({**found, "manifest": said}, utterance, redact), "provenance": origin.to_dict()}


def alias(path: str) -> str:
    """What stands for a path in redacted rows: the same for the same path."""
    return "sha256:" + hashlib.sha256(path.encode()).hexdigest()[:16]


def nameless(utterance: Utterance) -> Utterance:
    """The utterance with a hash for its id where that is no more than the name of its file."""
    stem = Path(utterance.audio).stem
    if not utterance.id.startswith(stem):
        return utterance
    return replace(utterance, id=alias(utterance.audio) + utterance.id.removeprefix(stem))


def _redacted(found: Row, utterance: Utterance, redact: bool) -> Row:
    """Replace the recording's path, its folder and its file name wherever they stand in the row's texts."""
    if not redact:
        return found
    path = Path(utterance.audio)
    # longest first, so that a folder does not break the path below it
    whole = (path.absolute(), path.resolve())
    folders = {str(parent) for start in whole for parent in start.parents if len(parent.parts) > _SHALLOW}
    names = {utterance.audio, path.name, *map(str, whole), *folders}
    free = {k: v for k, v in found.items() if k in ("text", "sentences", "words")}  # what was said stays as it is
    rest = {k: v for k, v in found.items() if k not in free}
    hidden = _replaced(rest, sorted(names, key=len, reverse=True), alias(utterance.audio))
    return {key: free[key] if key in free else hidden[key] for key in found}


def _replaced(value: Any, names: Iterable[str], mark: str) -> Any:
    if isinstance(value, str):
        for name in names:
            value = value.replace(name, mark)
        return value
    if isinstance(value, dict):
        return {key: _replaced(inner, names, mark) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, names, mark) for inner in value]
    return value


def line_of(found: Row) -> str:
    """One line of JSON, without a line end."""
    return json.dumps(found, ensure_ascii=False)
