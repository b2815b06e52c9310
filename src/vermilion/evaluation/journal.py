"""What an evaluation has done so far, one JSON line per recording: a killed run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from vermilion.errors import FormatError, OptionsError
from vermilion.manifests import Utterance

FILE = "results.jsonl"
VERSION = 1


@dataclass(frozen=True)
class Answer:
    """What a system answered for one recording."""

    value: dict[str, Any] | None
    """None = it failed"""
    error: str = ""
    audio_seconds: float = 0.0
    seconds: float = 0.0
    """its share of the time that the system worked"""


class Journal:
    """The answers of one system to one task; in memory only if there is no folder."""

    def __init__(
        self, folder: Path | None, about: Mapping[str, Any], *, overwrite: bool = False, reads_reference: bool = False
    ) -> None:
        """Open the journal, and read what an earlier run left.

        Args:
            folder: where `results.jsonl` lies or will lie.
            about: task, system and every option that changes answers; has to equal the earlier run's.
            overwrite: forget what an earlier run left.
            reads_reference: the system is given text or language of the line, so that a change of them asks it again.

        Raises:
            OptionsError: the earlier run had another system or options.
            FormatError: the file is there and is no journal, or cannot be written.
        """
        self.answers: dict[str, Answer] = {}
        self._reads_reference = reads_reference
        self._file: IO[str] | None = None
        self._about = json.loads(json.dumps(dict(about), default=str))
        if folder is None:
            return
        path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            whole = 0 if overwrite or not path.exists() else self._read(path)
            self._file = path.open("r+" if whole else "w", encoding="utf-8")
            self._file.seek(whole)
            self._file.truncate()  # half a line of a run that was killed
        except OSError as error:
            raise FormatError(f"cannot write the results to {path}: {error}") from error
        if not whole:
            self._write({"vermilion_evaluation": VERSION, "about": self._about})

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def get(self, set_name: str, utterance: Utterance) -> Answer | None:
        """The answer of an earlier run, if there is one that did not fail."""
        found = self.answers.get(self._key(set_name, utterance))
        return found if found is not None and found.value is not None else None

    def add(self, set_name: str, utterance: Utterance, answer: Answer) -> None:
        """Note an answer; it is on disk when this returns."""
        key = self._key(set_name, utterance)
        self.answers[key] = answer
        row = {"key": key, "set": set_name, "id": utterance.id, "answer": answer.value}
        more = {"error": answer.error} if answer.error else {}
        seconds = {"audio_seconds": round(answer.audio_seconds, 4), "seconds": round(answer.seconds, 4)}
        self._write(row | more | seconds)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _key(self, set_name: str, utterance: Utterance) -> str:
        """Names a recording of a set: its id, and what the system is given of it."""
        audio = str(Path(utterance.audio).resolve()) if utterance.audio else ""
        given = [set_name, utterance.id, audio, utterance.offset, utterance.duration]
        given += [utterance.text, utterance.language] if self._reads_reference else []
        return hashlib.blake2b(json.dumps(given).encode(), digest_size=12).hexdigest()

    def _write(self, row: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
            self._file.flush()

    def _read(self, path: Path) -> int:
        """Take over an earlier run's answers; returns the bytes of its whole lines."""
        whole = 0
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._take(json.loads(line), first=number == 1, folder=path.parent)
                except OptionsError:
                    raise
                except (ValueError, KeyError, TypeError) as error:
                    raise FormatError(
                        f"{path}, line {number} is no result of an evaluation ({error}); give --overwrite or another "
                        "--output-dir"
                    ) from error
                whole += len(line)
        return whole

    def _take(self, row: dict[str, Any], *, first: bool, folder: Path) -> None:
        if not first:
            self.answers[row["key"]] = Answer(row["answer"], row.get("error", ""), row["audio_seconds"], row["seconds"])
            return
        if row["vermilion_evaluation"] != VERSION:
            raise ValueError(f"version {row['vermilion_evaluation']!r} is not {VERSION}")
        before = row["about"]
        changed = sorted(k for k in before.keys() | self._about.keys() if before.get(k) != self._about.get(k))
        if changed:
            was = ", ".join(f"{k} was {before.get(k)!r} and is {self._about.get(k)!r}" for k in changed)
            raise OptionsError(f"{folder} holds another evaluation ({was}); give --overwrite or another --output-dir")
