"""Transcripts and failures → rows of a corpus, the same whatever engine ran them."""

from __future__ import annotations

import hashlib
import json
import os
import re
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
_SHORT = 3
"""names of so few letters ("7") say nothing either, and stand in many texts"""
_PATH = re.compile(r"""(?<![\w/\\:.])(?:[a-z][a-z0-9+]*://|[A-Za-z]:\\|~?/|\.{1,2}/)[^\s'"<>|]+""")
"""what looks like a path or a URL in a text"""


def row(utterance: Utterance, transcript: Transcript, origin: Provenance, *, salt: str = "") -> Row:
    """The row of a finished item.

    Args:
        utterance: what the manifest said.
        transcript: the result.
        origin: what made it.
        salt: of the hashes in the place of paths; empty = paths stay.

    Returns:
        `id` first, then `Transcript.to_dict()`, `manifest` (what else its line said) and `provenance`. Times are
        those of the recording, also where the line names a stretch of it: `offset_s` says where that begins, `dur_s`
        how long it is.
    """
    said = utterance.to_dict()
    result = (transcript.shifted(utterance.offset) if utterance.offset else transcript).to_dict()
    result["uttid"], result["wav_path"] = utterance.id, utterance.audio
    if utterance.offset:
        result["offset_s"] = utterance.offset
    found = {"id": utterance.id, **result, "manifest": {k: v for k, v in said.items() if k != "id"}}
    return {**_redacted(found, utterance, salt), "provenance": origin.to_dict()}


def failure_row(
    utterance: Utterance, kind: str, message: str, attempts: int, origin: Provenance, *, salt: str = ""
) -> Row:
    """The row of an item that failed.

    Args:
        utterance: what the manifest said.
        kind: type of the error, such as "AudioError" or "WorkerDied".
        message: what happened.
        attempts: how often it was tried.
        origin: what tried it.
        salt: as in `row`.
    """
    found = {"id": utterance.id, "wav_path": utterance.audio, "error": kind, "message": message, "attempts": attempts}
    said = {k: v for k, v in utterance.to_dict().items() if k != "id"}
    return {**_redacted({**found, "manifest": said}, utterance, salt), "provenance": origin.to_dict()}


def alias(path: str, salt: str) -> str:
    """What stands for a path in redacted rows: the same for the same path; who has no salt cannot try paths out."""
    return "sha256:" + hashlib.sha256(f"{salt}\0{path}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _mark(utterance: Utterance, salt: str) -> str:
    """What stands for its recording, from whichever folder the command was given."""
    audio = utterance.audio
    return alias(audio if "://" in audio else os.path.abspath(audio), salt)  # noqa: PTH100 - without ".." and links kept


def nameless(utterance: Utterance, salt: str) -> Utterance:
    """The utterance with a hash for its id where that says the name of its file, or is a path itself."""
    path = Path(utterance.audio)
    if "/" in utterance.id or "\\" in utterance.id:
        return replace(utterance, id=alias(utterance.id, salt))
    for name in (path.name, path.stem):
        if name and (utterance.id.startswith(name) or (len(name) > _SHORT and name in utterance.id)):
            return replace(utterance, id=utterance.id.replace(name, _mark(utterance, salt)))
    return utterance


def _redacted(found: Row, utterance: Utterance, salt: str) -> Row:
    """Replace the recording's path, its folder and its file name wherever they stand in the row, and other paths."""
    if not salt:
        return found
    path = Path(utterance.audio)
    # longest first, so that a folder does not break the path below it
    whole = (path.absolute(), _resolved(path))
    folders = {str(parent) for start in whole for parent in start.parents if len(parent.parts) > _SHALLOW}
    names = {n for n in (utterance.audio, path.name, *map(str, whole), *folders) if len(n) > _SHORT}
    # what was said stays as it is; ids are `nameless` already, and are what the store knows an item by
    free = {k: v for k, v in found.items() if k in ("id", "uttid", "text", "sentences", "words")}
    mark = _mark(utterance, salt) if utterance.audio else ""
    rest = {k: v for k, v in found.items() if k not in free}
    stem = path.stem if len(path.stem) > _SHORT else ""
    rest["manifest"] = {k: v if k in _SAID else _hidden(v, salt, stem, mark) for k, v in found["manifest"].items()}
    hidden = _replaced(rest, sorted(names, key=len, reverse=True), mark, salt)
    hidden["wav_path"] = mark
    if "audio_filepath" in hidden["manifest"]:
        hidden["manifest"] = {**hidden["manifest"], "audio_filepath": mark}
    return {key: free[key] if key in free else hidden[key] for key in found}


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle, no path at all
        return path.absolute()


_SAID = ("text", "audio_filepath", "lang", "speaker")


def _hidden(value: Any, salt: str, stem: str, mark: str) -> Any:
    """A value of a manifest's own keys; one that may be a relative path is taken for one, the file's name goes too."""
    if isinstance(value, str):
        if "/" in value or "\\" in value:
            return alias(value, salt)
        return value.replace(stem, mark) if stem else value
    if isinstance(value, dict):
        return {key: _hidden(inner, salt, stem, mark) for key, inner in value.items()}
    return [_hidden(inner, salt, stem, mark) for inner in value] if isinstance(value, list) else value


def _replaced(value: Any, names: Iterable[str], mark: str, salt: str) -> Any:
    if isinstance(value, str):
        for name in names:
            value = value.replace(name, mark)
        return _PATH.sub(lambda found: alias(found[0], salt), value)
    if isinstance(value, dict):
        return {key: _replaced(inner, names, mark, salt) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, names, mark, salt) for inner in value]
    return value


def line_of(found: Row) -> str:
    """One line of JSON, without a line end; numbers that JSON does not have (NaN in a manifest) become null."""
    try:
        return json.dumps(found, ensure_ascii=False, allow_nan=False)
    except ValueError:
        known = json.loads(json.dumps(found), parse_constant=lambda _: None)
        return json.dumps(known, ensure_ascii=False)


def bytes_of(text: str) -> bytes:
    """UTF-8; what is no text (bytes of a file name that is not UTF-8) becomes a question mark."""
    return text.encode("utf-8", "replace")
