"""What the preparers share: lines, columns and places of files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vermilion.errors import ManifestError


def found(folder: Path, *candidates: str) -> Path:
    """The first of some places that exists below a folder.

    Raises:
        ManifestError: none does; all are named.
    """
    for candidate in candidates:
        if (folder / candidate).exists():
            return folder / candidate
    raise ManifestError(f"{folder} holds none of: {', '.join(candidates)}")


def lines(file: Path) -> Iterator[str]:
    """Lines of a text that say something, without their ends.

    Raises:
        ManifestError: the file cannot be read.
    """
    try:
        with file.open(encoding="utf-8-sig") as text:
            for line in text:
                if line.strip():
                    yield line.rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"cannot read {file}: {error}") from error


def pairs(file: Path) -> dict[str, str]:
    """Lines "name rest", divided by a tab or blanks.

    Raises:
        ManifestError: the file cannot be read.
    """
    split = (line.split(maxsplit=1) for line in lines(file))
    return {row[0]: row[1].strip() if len(row) > 1 else "" for row in split}


def columns(file: Path, count: int) -> Iterator[list[str]]:
    """Lines of at least so many columns, divided by tabs.

    Raises:
        ManifestError: a line has fewer; its number is named.
    """
    for number, line in enumerate(lines(file), 1):
        row = line.split("\t")
        if len(row) < count:
            raise ManifestError(f"{file}, line {number}: {count} columns divided by tabs are expected, not {len(row)}")
        yield row


def table(file: Path) -> Iterator[dict[str, str]]:
    """Rows of a table with a heading, divided by tabs.

    Raises:
        ManifestError: the file cannot be read.
    """
    yield from csv.DictReader(lines(file), delimiter="\t", quoting=csv.QUOTE_NONE)


def json_objects(file: Path, key: str) -> Iterator[dict[str, Any]]:
    """Objects of the list under a key, one by one: WenetSpeech's file is larger than memory.

    Raises:
        ManifestError: the file cannot be read or holds no such list.
    """
    decoder = json.JSONDecoder()
    start = f'"{key}"'
    try:
        with file.open(encoding="utf-8") as text:
            buffer, opened = "", False
            while True:
                chunk = text.read(1 << 20)
                buffer += chunk
                if not opened:
                    at = buffer.find(start)
                    bracket = buffer.find("[", at + len(start)) if at >= 0 else -1
                    opened = bracket >= 0
                    buffer = buffer[bracket + 1 :] if opened else buffer
                while opened and (buffer := buffer.lstrip(" \t\r\n,")).startswith("{"):
                    try:
                        row, end = decoder.raw_decode(buffer)
                    except json.JSONDecodeError:
                        break  # the object goes on in the next chunk
                    yield row
                    buffer = buffer[end:]
                if opened and buffer.startswith("]"):
                    return
                if not chunk:
                    raise ManifestError(f"{file} ends before its list {start} does")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"cannot read {file}: {error}") from error


def by_stem(folder: Path, suffixes: Sequence[str] = (".wav", ".flac", ".mp3", ".opus")) -> dict[str, Path]:
    """Recordings below a folder by their name without ending."""
    return {p.stem: p for p in sorted(folder.rglob("*")) if p.suffix.lower() in suffixes}


def needed(recordings: dict[str, Path], name: str, where: Path) -> Path:
    """A recording by its name.

    Raises:
        ManifestError: it is not there.
    """
    if name not in recordings:
        raise ManifestError(f"{where} names {name}, and there is no such recording below {where.parent}")
    return recordings[name]
