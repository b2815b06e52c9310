"""JSON, JSON lines and plain text."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from vermilion.errors import FormatError
from vermilion.formats.content import channel_label, sentences_of
from vermilion.formats.files import encoded
from vermilion.text import join_texts
from vermilion.transcript import Sentence, Transcript


@runtime_checkable
class _Scalar(Protocol):
    """A number of numpy or torch."""

    def item(self) -> Any: ...


_LONE = re.compile("[\ud800-\udfff]")


def render_json(transcript: Transcript) -> str:
    """Write the result as readable JSON; non-ASCII text stays as it is."""
    return _dumps(transcript, indent=2) + "\n"


def render_jsonl(transcript: Transcript) -> str:
    """Write the result as one line of JSON."""
    line = _dumps(transcript, indent=None)
    for separator in ("\u2028", "\u2029", "\x85"):  # some readers end lines there
        line = line.replace(separator, f"\\u{ord(separator):04x}")
    return line + "\n"


def append_jsonl(transcript: Transcript, path: str | Path) -> Path:
    """Add a result to a file of JSON lines with one write, so that lines of several writers stay whole.

    Raises:
        FormatError: the file cannot be written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("ab", buffering=0) as file:
            file.write(encoded(render_jsonl(transcript)))
    except OSError as error:
        raise FormatError(f"cannot write {target}: {error.strerror or error}; choose another file") from error
    return target


def render_txt(transcript: Transcript) -> str:
    """Write the plain text: one line per speech segment, or per sentence if channels are labelled or nothing is known.

    Sentences of one segment are joined; a line of a labelled channel begins with `[Ch 1]`.
    """
    groups: dict[object, list[Sentence]] = {}
    for i, sentence in enumerate(sentences_of(transcript)):
        home = _segment_of(sentence, transcript) if sentence.channel is None else None
        groups.setdefault(("segment", home) if home is not None else ("sentence", i), []).append(sentence)
    return "".join(_line(group) + "\n" for group in groups.values())


def parse_json(text: str) -> Transcript:
    """Read a result that `render_json`, or the published code, wrote.

    Raises:
        FormatError: the text is not JSON or lacks a required key.
    """
    try:
        data = json.loads(text.removeprefix("\ufeff"))
    except ValueError as error:
        raise FormatError(f"this is not JSON: {error}") from error
    return Transcript.from_dict(data)


def parse_jsonl(text: str) -> list[Transcript]:
    """Read a file of JSON lines, one result each; empty lines are passed over.

    Raises:
        FormatError: a line is not a result.
    """
    return [parse_json(line) for line in text.split("\n") if line.strip()]


def _dumps(transcript: Transcript, indent: int | None) -> str:
    try:
        data = _finite(transcript.to_dict())
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=indent, default=_plain)
    except (TypeError, ValueError) as error:
        raise FormatError(f"the result of {transcript.source!r} cannot be written as JSON: {error}") from error
    return _LONE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)  # bytes of file names that are no text survive


def _finite(value: Any) -> Any:
    """Replace numbers that JSON does not have (a confidence that is not a number) by null."""
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    if isinstance(value, float | _Scalar):
        number = value.item() if isinstance(value, _Scalar) else value
        return None if isinstance(number, float) and not math.isfinite(number) else number
    return value


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not a JSON type")


def _segment_of(sentence: Sentence, transcript: Transcript) -> int | None:
    middle = (sentence.start + sentence.end) / 2
    return next((i for i, s in enumerate(transcript.segments) if s.start <= middle <= s.end), None)


def _line(sentences: list[Sentence]) -> str:
    channel = sentences[0].channel
    label = f"[{channel_label(channel)}] " if channel is not None else ""
    return label + join_texts(s.text for s in sentences)
