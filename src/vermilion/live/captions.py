"""Subtitles and text written while a session goes on: each finished utterance is in the file at once."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType

from vermilion.errors import FormatError
from vermilion.formats import SubtitleOptions
from vermilion.formats.subtitle_files import VTT_HEADER, srt_entry, vtt_entry
from vermilion.formats.subtitles import cues
from vermilion.live.events import Final, event_to_dict
from vermilion.transcript import Transcript

FORMATS = ("srt", "vtt", "txt", "jsonl")


class CaptionFile:
    """A file that grows by one utterance at a time."""

    def __init__(self, path: str | Path, options: SubtitleOptions | None = None) -> None:
        """Create the file; its extension says what it holds.

        Raises:
            FormatError: another extension, or the file cannot be written.
        """
        self.path, self.options = Path(path), options
        self.format = self.path.suffix.lstrip(".").lower()
        if self.format not in FORMATS:
            raise FormatError(f"{self.path} cannot grow as it goes; use {', '.join('.' + f for f in FORMATS)}")
        try:
            self._file = self.path.open("w", encoding="utf8")
        except OSError as error:
            raise FormatError(f"cannot write {self.path}: {error}") from error
        self._number = 0
        if self.format == "vtt":
            self._file.write(VTT_HEADER)
            self._file.flush()

    def write(self, final: Final) -> None:
        """Append an utterance; one without text leaves nothing, but in jsonl."""
        if self.format == "jsonl":
            self._file.write(json.dumps(event_to_dict(final), ensure_ascii=False) + "\n")
        elif self.format == "txt":
            self._file.write(f"{final.text}\n" if final.text else "")
        else:
            self._cues(final)
        self._file.flush()

    def _cues(self, final: Final) -> None:
        shown = Transcript("live", final.end, final.text, final.sentences)
        for cue in cues(shown, self.options):
            self._number += 1
            entry = srt_entry(self._number, cue) if self.format == "srt" else vtt_entry(cue)
            self._file.write(("\n" if self._number > 1 or self.format == "vtt" else "") + entry)

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    def __enter__(self) -> CaptionFile:
        """Use as a context."""
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Close."""
        self.close()
