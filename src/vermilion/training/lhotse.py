"""Lhotse's cut sets (`cuts.jsonl`, `.gz` too) → utterances. Needs the extra `lhotse`.

Supported: cuts whose recording is one file with one channel (or a `MultiCut` of all its channels, which are averaged).
Not supported, and said of each such cut: mixed and padding cuts, recordings out of commands, addresses, memory or shar
archives, recordings with transforms (speed, volume …), one channel out of several, cuts with features only. Save such
sets as audio first (`CutSet.save_audios`).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vermilion.errors import ManifestError, missing
from vermilion.manifests import Utterance
from vermilion.text import join_texts

_KINDS = ("MonoCut", "MultiCut", "MixedCut", "PaddingCut", "Cut")


def is_cut_set(path: str | Path) -> bool:
    """Whether a file's first line is a cut."""
    file = Path(path)
    if not file.is_file() or not file.name.endswith((".jsonl", ".jsonl.gz")):
        return False
    try:
        with gzip.open(file, "rt") if file.suffix == ".gz" else file.open(encoding="utf-8-sig") as lines:
            row = json.loads(lines.readline() or "null")
    except (OSError, ValueError, EOFError, RecursionError):
        return False
    return isinstance(row, dict) and (row.get("type") in _KINDS or ("supervisions" in row and "start" in row))


def iterate_cuts(
    path: str | Path, *, whole: bool = False, on_fault: Callable[[int, ManifestError], None] | None = None
) -> Iterator[Utterance]:
    """Read a cut set line by line.

    Args:
        path: `cuts.jsonl` or `cuts.jsonl.gz`; relative sources begin at its folder, unless they are there from here.
        whole: one utterance per cut, the texts of its supervisions joined in order of time; else one per supervision.
        on_fault: is given the number and the fault of each cut that is not supported; reading goes on.

    Yields:
        Utterances; cuts without supervisions give one without text.

    Raises:
        ManifestError: the file cannot be read, or a cut is not supported.
        MissingDependencyError: lhotse is not installed.
    """
    try:
        from lhotse import CutSet
    except ImportError as error:
        raise missing("cut sets need lhotse", "lhotse") from error
    try:
        for number, cut in enumerate(CutSet.from_file(path), 1):
            try:
                # a list, so that a cut is either taken whole or not at all
                found = list(_utterances(cut, Path(path).parent, whole))
            except ManifestError as error:
                fault = ManifestError(f"{path}, cut {cut.id}: {error}")
                if on_fault is None:
                    raise fault from error
                on_fault(number, fault)
            else:
                yield from found
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise ManifestError(f"cannot read the cut set {path}: {type(error).__name__} {error}") from error


def _utterances(cut: Any, folder: Path, whole: bool) -> Iterator[Utterance]:
    audio = _file_of(cut, folder)
    supervisions = sorted(cut.supervisions, key=lambda s: float(s.start))
    if whole or not supervisions:
        yield Utterance(
            cut.id,
            audio,
            float(cut.start),
            float(cut.duration),
            join_texts(s.text for s in supervisions if s.text) or None,
            _common([s.language for s in supervisions]),
            _common([s.speaker for s in supervisions]),
        )
        return
    for supervision in supervisions:
        start, end = max(0.0, float(supervision.start)), min(float(cut.duration), float(supervision.end))
        if end <= start:
            raise ManifestError(f"its supervision {supervision.id} lies outside of it")
        extra = {"gender": supervision.gender} if supervision.gender else {}
        yield Utterance(
            supervision.id,
            audio,
            round(float(cut.start) + start, 6),
            round(end - start, 6),
            supervision.text,
            supervision.language,
            supervision.speaker,
            extra,
        )


def _common(values: list[str | None]) -> str | None:
    """The value if all have the same."""
    return values[0] if len(set(values)) == 1 else None


def _file_of(cut: Any, folder: Path) -> str:
    """The one file that a cut is a stretch of."""
    from lhotse.cut import MonoCut, MultiCut

    if not isinstance(cut, MonoCut | MultiCut):
        raise ManifestError(f"a {type(cut).__name__} is not supported: save the set's audio first")
    recording = cut.recording
    if recording is None:
        raise ManifestError("it has no recording (features only)")
    if recording.transforms:
        raise ManifestError("its recording has transforms: save the set's audio first")
    if len(recording.sources) != 1 or recording.sources[0].type != "file":
        kinds = ", ".join(s.type for s in recording.sources)
        raise ManifestError(f"its recording is not one file ({kinds}): save the set's audio first")
    channels = cut.channel if isinstance(cut.channel, list) else [cut.channel]
    if sorted(channels) != sorted(recording.channel_ids):
        raise ManifestError(f"it takes channels {channels} of {recording.channel_ids}; only all of them are supported")
    audio = Path(recording.sources[0].source)
    return str(audio if audio.is_absolute() or audio.exists() else folder / audio)
