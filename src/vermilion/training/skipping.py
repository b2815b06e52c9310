"""Recordings that a training cannot use: counted, named in a file beside the log, and limited in their share."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from vermilion.errors import TrainingError
from vermilion.manifests import Utterance

FILE = "skipped.jsonl"
_SURE = 100
"""recordings that are tried before their share of bad ones is judged; a smaller set is judged as a whole"""
FEW = 3
"""so many bad recordings never end a training"""
_SHOWN = 3
"""recordings that a message names"""


class Skips:
    """Notes what was skipped; processes that prepare data share the file, so it is only ever appended to."""

    def __init__(self, folder: Path | None = None, max_share: float = 0.1) -> None:
        """Take where to note it.

        Args:
            folder: gets `skipped.jsonl`; None = nothing is written.
            max_share: with a larger share of the recordings that were tried, the training ends; 1 = never.
        """
        self.path = folder / FILE if folder is not None else None
        self.max_share = max_share
        self.tried = self.failed = 0
        self.first: list[str] = []
        self._bad: set[int] = set()
        self._seen = {_key(row["id"], row.get("audio_filepath", "")) for row in self._rows()}

    def forget(self) -> None:
        """Begin a new list."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        self._seen.clear()

    def used(self, count: int = 1) -> None:
        """Count recordings that could be used."""
        self.tried += count

    def add(self, utterance: Utterance, why: str, size: int = _SURE) -> None:
        """Note a recording that is skipped.

        Args:
            utterance: its line.
            why: what is wrong.
            size: recordings that there are.

        Raises:
            TrainingError: too large a share is bad.
        """
        self.tried += 1
        self.failed += 1
        self.note(utterance.id, why, utterance.audio)
        self._bad.add(_key(utterance.id, utterance.audio))
        if self._too_many(size):
            self.refuse()

    def _too_many(self, size: int) -> bool:
        """Whether more are bad than chance would give at the share that is allowed."""
        share = self.max_share
        if size <= _SURE:
            return len(self._bad) > max(FEW, share * size)
        spread = 3 * (share * (1 - share) * self.tried) ** 0.5
        return self.tried >= _SURE and self.failed > share * self.tried + spread

    def note(self, id: str, why: str, audio: str = "") -> None:
        """Write a line, once for each recording that this process meets; a full disk costs the list, not the work."""
        key = _key(id, audio)
        if key in self._seen:
            return
        self._seen.add(key)
        if len(self.first) < _SHOWN:
            self.first.append(f"{id}: {why}")
        if self.path is None:
            return
        line = json.dumps({"id": id, "audio_filepath": audio, "fault": why}, ensure_ascii=False) + "\n"
        try:
            place = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(place, line.encode("utf-8", "replace"))
            finally:
                os.close(place)
        except OSError:
            self.path = None

    def refuse(self) -> None:
        """End the training.

        Raises:
            TrainingError: always.
        """
        listed = f"; all are in {self.path}" if self.path is not None else ""
        raise TrainingError(
            f"of the first {self.tried} recordings {self.failed} cannot be used ({'; '.join(self.first)}{listed}): "
            f"`vermilion data clean` makes a manifest without them, --max-bad-share allows more than "
            f"{100 * self.max_share:g} %"
        )

    def listed(self) -> list[str]:
        """Ids of everything in the file, of all processes and of the parts of the training before this one."""
        return list(dict.fromkeys(row["id"] for row in self._rows()))

    def _rows(self) -> Iterator[dict[str, str]]:
        if self.path is None or not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # cut short by a kill
            if isinstance(row, dict) and "id" in row:
                yield row


def _key(id: str, audio: str) -> int:
    return hash((id, audio))
