"""What is wrong with a manifest, found before a training is: lines, recordings, durations, texts, languages."""

from __future__ import annotations

import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vermilion.audio import SAMPLE_RATE, iter_blocks
from vermilion.errors import AudioError, ManifestError, OptionsError
from vermilion.languages import fireredlid_label
from vermilion.manifests import BYTES, Utterance
from vermilion.training.conversion import iterate_any
from vermilion.training.parallel import Report, in_order
from vermilion.training.splitting import spoken

FAULTS = {
    "line": "line is no entry",
    "id": "id was there before",
    "stretch": "same stretch of the same recording was there before",
    "missing": "recording is missing",
    "unreadable": "recording cannot be read",
    "empty": "stretch holds no samples",
    "duration": "duration is not that of the recording",
    "damaged": "recording is damaged in part",
    "silent": "recording is silent",
    "no text": "text is empty",
    "odd text": "text has control characters, markup or damaged characters",
    "too much text": "more text than anyone says in this time",
    "language": "language is not one that the models know",
}
"""kinds of faults"""
_TOLERANCE_SECONDS, _TOLERANCE_SHARE = 0.1, 0.01
_SILENT = 1e-4
_ODD = re.compile(r"<[^<>]{1,30}>|&(?:amp|lt|gt|quot|nbsp|#\d+);|https?://|\ufffd|[\r\n\t]")
_SHORT_TEXT = 5
"""characters; the speed of shorter texts says nothing"""
_EDGES = (0.5, 1, 2, 3, 5, 7, 10, 15, 20, 30, 60)
"""seconds that divide the histogram"""


@dataclass(frozen=True)
class CheckOptions:
    """What is looked at."""

    audio: bool = True
    """Decode every recording; without, only whether files are there."""
    texts: bool = True
    """An empty text is a fault."""
    characters_per_second: float = 30.0
    """More letters, digits and Chinese characters than this per second do not fit a recording."""

    def __post_init__(self) -> None:
        """Check the domain.

        Raises:
            OptionsError: a value is out of its domain.
        """
        if self.characters_per_second <= 0:
            raise OptionsError("characters_per_second must be above 0")


@dataclass(frozen=True)
class Fault:
    """Something wrong with one line."""

    id: str
    """of the utterance, or the line's number where there is none"""
    kind: str
    """a key of `FAULTS`"""
    detail: str
    """what was found"""

    def to_dict(self) -> dict[str, str]:
        """For a report."""
        return {"id": self.id, "kind": self.kind, "detail": self.detail}


@dataclass(frozen=True)
class Check:
    """What was found."""

    lines: int
    """entries, faulty ones included"""
    faults: list[Fault]
    durations: list[float]
    """seconds of the utterances whose duration is known"""
    languages: dict[str, float] = field(default_factory=dict)
    """seconds of each; those of lines without one under ''"""
    speakers: int = 0
    texts: int = 0
    """different texts, as they are spoken"""

    @property
    def bad(self) -> set[str]:
        """Ids with faults."""
        return {fault.id for fault in self.faults}

    def counts(self) -> dict[str, int]:
        """How often each kind of fault occurs."""
        found = Counter(fault.kind for fault in self.faults)
        return {kind: found[kind] for kind in FAULTS if found[kind]}

    def histogram(self) -> list[tuple[str, int, float]]:
        """Range in seconds, utterances, seconds in all."""
        places = np.searchsorted(_EDGES, self.durations, side="right")
        bounds = ["0", *map(str, _EDGES)]
        rows = []
        for i, low in enumerate(bounds):
            inside = [d for d, p in zip(self.durations, places.tolist(), strict=True) if p == i]
            rows.append((f"{low}-{bounds[i + 1]}" if i < len(_EDGES) else f"{low}-", len(inside), sum(inside)))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Everything but the faults themselves."""
        ordered = sorted(self.durations)
        spread: dict[str, float] = {}
        if ordered:
            at = [ordered[min(len(ordered) - 1, int(q * len(ordered)))] for q in (0.05, 0.95)]
            spread = {"min": ordered[0], "p5": at[0], "median": statistics.median(ordered)}
            spread |= {"mean": statistics.fmean(ordered), "p95": at[1], "max": ordered[-1]}
        return {
            "lines": self.lines,
            "bad": len(self.bad),
            "faults": self.counts(),
            "hours": sum(ordered) / 3600,
            "seconds": spread,
            "histogram": [{"seconds": r, "utterances": n, "hours": s / 3600} for r, n, s in self.histogram() if n],
            "languages": {name: seconds / 3600 for name, seconds in sorted(self.languages.items())},
            "speakers": self.speakers,
            "texts": self.texts,
        }


def check(
    manifest: str | Path, options: CheckOptions = CheckOptions(), processes: int = 1, report: Report | None = None
) -> Check:
    """Look at every line of a manifest and what it names.

    Args:
        manifest: see `iterate_any`.
        options: see there.
        processes: how many decode recordings.
        report: progress.

    Raises:
        ManifestError: the file cannot be read at all.
    """
    faults: list[Fault] = []
    lines, durations = 0, list[float]()
    languages: dict[str, float] = {}
    speakers, texts, doubles = set[str](), set[str](), Doubles()

    def on_line(number: int, error: ManifestError) -> None:
        faults.append(Fault(f"line {number}", "line", str(error)))

    for look in in_order(partial(look_at, options=options), iterate_any(manifest, on_line), processes):
        utterance = look.utterance
        lines += 1
        faults += [*look.faults, *doubles.of(look)]
        if look.seconds is not None:
            durations.append(look.seconds)
            name = utterance.language or ""
            languages[name] = languages.get(name, 0.0) + look.seconds
        if utterance.speaker:
            speakers.add(utterance.speaker)
        if utterance.text:
            texts.add(spoken(utterance.text))
        if report is not None:
            report(lines, utterance.id)
    faults += doubles.longer()
    lines += sum(fault.kind == "line" for fault in faults)
    return Check(lines, faults, durations, languages, len(speakers), len(texts))


@dataclass(frozen=True)
class Look:
    """What a process found out about an utterance."""

    utterance: Utterance
    seconds: float | None
    """really there, or what the line claims where nobody listened"""
    whole: float | None
    """seconds of the whole recording"""
    faults: list[Fault]


class Doubles:
    """Remembers what was there before."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.ids: set[str] = set()
        self.stretches: dict[tuple[Any, ...], str] = {}
        self.uses: Counter[str] = Counter()
        self.long: list[Look] = []

    def of(self, look: Look) -> Iterator[Fault]:
        """What the utterance repeats."""
        utterance = look.utterance
        if utterance.id in self.ids:
            yield Fault(utterance.id, "id", utterance.audio)
        self.ids.add(utterance.id)
        place = (utterance.audio, utterance.offset, utterance.duration, str(utterance.extra.get(BYTES)))
        other = self.stretches.setdefault(place, utterance.id)
        if other != utterance.id:
            yield Fault(utterance.id, "stretch", f"as {other}: {utterance.audio}")
        if BYTES not in utterance.extra:
            self.uses[utterance.audio] += 1
        claimed = utterance.duration
        if claimed is not None and not utterance.offset and look.whole is not None and differ(claimed, look.whole):
            self.long.append(look)

    def longer(self) -> Iterator[Fault]:
        """Recordings that go on after their only utterance, which begins with them."""
        for look in self.long:
            claimed, whole = look.utterance.duration or 0.0, look.whole or 0.0
            if whole > claimed and self.uses[look.utterance.audio] < 2:
                detail = f"{claimed:.2f} s are claimed, {whole:.2f} s are there"
                yield Fault(look.utterance.id, "duration", detail)


def differ(claimed: float, measured: float) -> bool:
    """Whether two durations are those of different recordings."""
    return abs(claimed - measured) > max(_TOLERANCE_SECONDS, _TOLERANCE_SHARE * claimed)


def look_at(utterance: Utterance, options: CheckOptions) -> Look:
    """Look at one utterance."""
    faults = list(_text_faults(utterance, options)) + list(_language_faults(utterance))
    seconds, whole = utterance.duration, None
    if not Path(utterance.audio).exists():
        faults.append(Fault(utterance.id, "missing", utterance.audio))
    elif options.audio:
        samples, found = _decoded(utterance)
        faults += found
        if samples is not None:
            whole = len(samples) / SAMPLE_RATE
            seconds, found = _listen(utterance, samples)
            faults += found
    length = len(spoken(utterance.text or ""))
    if seconds and length > _SHORT_TEXT and length / seconds > options.characters_per_second:
        faults.append(Fault(utterance.id, "too much text", f"{length} characters in {seconds:.2f} s"))
    return Look(utterance, seconds, whole, faults)


def _decoded(utterance: Utterance) -> tuple[NDArray[np.float32] | None, list[Fault]]:
    """The whole recording, and what is wrong with it."""
    warnings: list[str] = []
    try:
        pieces = list(iter_blocks(utterance.source(), warnings=warnings))
    except (AudioError, ManifestError) as error:
        return None, [Fault(utterance.id, "unreadable", str(error))]
    faults = [Fault(utterance.id, "damaged", note) for note in warnings]
    return (np.concatenate(pieces, axis=1)[0] if pieces else np.zeros(0, np.float32)), faults


def _listen(utterance: Utterance, samples: NDArray[np.float32]) -> tuple[float, list[Fault]]:
    """Seconds of the stretch that are really there, and what is wrong with them."""
    first, claimed = round(utterance.offset * SAMPLE_RATE), utterance.duration
    stretch = samples[first:] if claimed is None else samples[first : first + round(claimed * SAMPLE_RATE)]
    seconds = len(stretch) / SAMPLE_RATE
    if not len(stretch):
        whole = len(samples) / SAMPLE_RATE
        return 0.0, [Fault(utterance.id, "empty", f"begins at {utterance.offset:.2f} of {whole:.2f} s")]
    faults = []
    if claimed is not None and differ(claimed, seconds):
        faults.append(Fault(utterance.id, "duration", f"{claimed:.2f} s are claimed, {seconds:.2f} s are there"))
    if float(np.sqrt(np.mean(np.square(stretch, dtype=np.float64)))) < _SILENT:
        faults.append(Fault(utterance.id, "silent", utterance.audio))
    return seconds, faults


def _text_faults(utterance: Utterance, options: CheckOptions) -> Iterator[Fault]:
    text = utterance.text or ""
    if not spoken(text):
        if options.texts:
            yield Fault(utterance.id, "no text", repr(text))
        return
    odd = _ODD.search(text)
    control = next((c for c in text if unicodedata.category(c) in ("Cc", "Co", "Cs")), None)
    if odd is not None or control is not None:
        yield Fault(utterance.id, "odd text", repr(odd[0] if odd else control))


def _language_faults(utterance: Utterance) -> Iterator[Fault]:
    """What a training of the language identifier would refuse."""
    if utterance.language and fireredlid_label(utterance.language) is None:
        yield Fault(utterance.id, "language", repr(utterance.language))
