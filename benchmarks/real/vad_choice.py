"""Choose the options behind voice activity detection by what they cost: frames, segments, and words.

    python benchmarks/real/vad_choice.py --data ~/real --models starter --sweep sweep.jsonl
    python benchmarks/real/vad_choice.py --data ~/real --models starter --words words.jsonl \\
        --try published --try default --try "speech_threshold=0.5 extend_speech_frame=10"

The detector is asked once about each recording; --sweep then goes through a grid of options on its probabilities.
--words recognises what each --try cuts: a preset of `VadOptions.preset`, or fields of `VadOptions` (others as
published). What was recognised is kept by its samples, so that a run goes on where it was stopped.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse  # noqa: E402 - the thread counts come first
import hashlib  # noqa: E402 - the thread counts come first
import json  # noqa: E402 - the thread counts come first
import sys  # noqa: E402 - the thread counts come first
from collections.abc import Iterable, Iterator, Sequence  # noqa: E402 - the thread counts come first
from dataclasses import asdict, dataclass, field, fields  # noqa: E402 - the thread counts come first
from itertools import product  # noqa: E402 - the thread counts come first
from pathlib import Path  # noqa: E402 - the thread counts come first
from typing import Any  # noqa: E402 - the thread counts come first

import numpy as np  # noqa: E402 - the thread counts come first
from numpy.typing import NDArray  # noqa: E402 - the thread counts come first

from vermilion import loading  # noqa: E402 - the thread counts come first
from vermilion.audio import load_audio  # noqa: E402 - the thread counts come first
from vermilion.decoding.options import DecodingOptions  # noqa: E402 - the thread counts come first
from vermilion.errors import OptionsError  # noqa: E402 - the thread counts come first
from vermilion.evaluation.normalisation import tokens  # noqa: E402 - the thread counts come first
from vermilion.evaluation.recognition import align, count  # noqa: E402 - the thread counts come first
from vermilion.manifests import Utterance, read_manifest  # noqa: E402 - the thread counts come first
from vermilion.transcript import Failure, Span  # noqa: E402 - the thread counts come first
from vermilion.vad import VadOptions  # noqa: E402 - the thread counts come first
from vermilion.vad.segmentation import segments  # noqa: E402 - the thread counts come first

SETS = ("conversation", "tails", "vad", "events")
MUSIC = "without speech"
GRID: dict[str, Sequence[Any]] = {
    "speech_threshold": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    "smooth_window_size": (5, 10),
    "min_speech_frame": (8, 20),
    "min_silence_frame": (10, 20, 40),
    "merge_silence_frame": (0, 20, 50),
    "extend_speech_frame": (0, 5, 10, 20),
}
ONSET = 20
"""frames of a beginning or an end that must not be cut off"""


@dataclass
class Recording:
    """A recording with what the detector thinks of it."""

    row: Utterance
    group: str
    probabilities: NDArray[np.float32]

    @property
    def duration(self) -> float:
        return self.row.duration or 0.0

    @property
    def labels(self) -> NDArray[np.bool_]:
        """(T,) where somebody speaks (or sings: that has words, too)."""
        spans = self.row.extra["events"]
        return frames([*spans["speech"], *spans["singing"]], len(self.probabilities))


@dataclass
class Tally:
    """What one set of options does to the frames and segments of a group."""

    speech: int = 0
    silence: int = 0
    missed: int = 0
    false: int = 0
    onsets: int = 0
    cut: int = 0
    lengths: list[float] = field(default_factory=list)

    def add(self, labels: NDArray[np.bool_], found: Sequence[Span]) -> None:
        said = frames([(s.start, s.end) for s in found], len(labels))
        self.speech += int(labels.sum())
        self.silence += int((~labels).sum())
        self.missed += int((labels & ~said).sum())
        self.false += int((~labels & said).sum())
        near = labels & ~np.convolve(~labels, np.ones(2 * ONSET + 1), "same").astype(bool)
        edges = labels & ~near
        self.onsets += int(edges.sum())
        self.cut += int((edges & ~said).sum())
        self.lengths += [s.end - s.start for s in found]

    def figures(self) -> dict[str, float]:
        """Shares, and how long segments are."""
        return {
            "false alarms": self.false / max(1, self.silence),
            "missed": self.missed / max(1, self.speech),
            "missed at edges": self.cut / max(1, self.onsets),
            "segments": len(self.lengths),
            "mean length": float(np.mean(self.lengths)) if self.lengths else 0.0,
            "seconds": float(sum(self.lengths)),
        }


def frames(spans: Iterable[Sequence[float]], count: int) -> NDArray[np.bool_]:
    out = np.zeros(count, dtype=bool)
    for start, end in spans:
        out[round(start * 100) : round(end * 100)] = True
    return out


def group(name: str, row: Utterance) -> str | None:
    """What a recording is counted under; None = not at all."""
    events = row.extra["events"]
    if name == "vad":
        return None if events["speech"] else MUSIC
    if name == "conversation":
        return f"talk, {row.extra['condition']}"
    return name


def recordings(data: Path, models: str) -> list[Recording]:
    """All recordings, with probabilities from the folder of earlier runs where they are known."""
    home, found = data / "results" / "probabilities", []
    home.mkdir(parents=True, exist_ok=True)
    detector = None
    for name in SETS:
        for row in read_manifest(data / f"{name}.jsonl"):
            label = group(name, row)
            if label is None:
                continue
            path = home / f"{models}-{row.id}.npy"
            if not path.exists():
                detector = detector or loading.load_detector(models)
                np.save(path, detector.detect(row.audio).probabilities)
            found.append(Recording(row, label, np.load(path)))
    return found


def sweep(known: Sequence[Recording]) -> Iterator[dict[str, Any]]:
    """Figures of every point of the grid, by group."""
    for values in product(*GRID.values()):
        options = VadOptions(**dict(zip(GRID, values, strict=True)))
        yield {**dict(zip(GRID, values, strict=True)), **by_group(known, options)}


def by_group(known: Sequence[Recording], options: VadOptions) -> dict[str, dict[str, float]]:
    tallies: dict[str, Tally] = {}
    for one in known:
        for name in (one.group, "talk") if one.group.startswith("talk") else (one.group,):
            tally = tallies.setdefault(name, Tally())
            tally.add(one.labels, segments(one.probabilities, options, one.duration))
    return {name: tally.figures() for name, tally in tallies.items()}


def parsed(given: str) -> VadOptions:
    """A preset, or fields of the options: "speech_threshold=0.5 extend_speech_frame=10"."""
    if "=" not in given:
        return VadOptions.preset(given)
    kinds = {f.name: float if f.name == "speech_threshold" else int for f in fields(VadOptions)}
    values = dict(part.split("=") for part in given.split())
    unknown = set(values) - set(kinds)
    if unknown:
        raise OptionsError(f"no such option of voice activity: {', '.join(sorted(unknown))}")
    return VadOptions(**{name: kinds[name](value) for name, value in values.items()})


@dataclass
class Heard:
    """A recogniser that remembers what it has heard, on disk."""

    path: Path
    recognizer: Any
    known: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.exists():
            rows = map(json.loads, self.path.read_text(encoding="utf-8").splitlines())
            self.known = {row["key"]: row["text"] for row in rows}

    def text(self, samples: NDArray[np.float32], language: str | None) -> str:
        key = hashlib.blake2b(samples.tobytes(), digest_size=12, key=(language or "").encode()).hexdigest()
        if key not in self.known:
            [found] = self.recognizer.recognize([samples], DecodingOptions(timestamps=False), languages=[language])
            self.known[key] = "" if isinstance(found, Failure) else found.text
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "text": self.known[key]}, ensure_ascii=False) + "\n")
        return self.known[key]


def words(known: Sequence[Recording], options: VadOptions, heard: Heard) -> dict[str, dict[str, float]]:
    """Errors where there is a text; words of segments in which nobody speaks or sings."""
    out: dict[str, dict[str, float]] = {}
    for one in known:
        if one.row.text is None and one.group.startswith("talk"):
            continue
        samples = load_audio(one.row.audio)
        found = segments(one.probabilities, options, one.duration)
        said = [
            heard.text(samples[round(s.start * 16000) : round(s.end * 16000)], one.row.language or "en") for s in found
        ]
        labels = one.labels
        empty = [
            t for s, t in zip(found, said, strict=True) if not labels[round(s.start * 100) : round(s.end * 100)].any()
        ]
        figures = out.setdefault(one.group.partition(",")[0], dict.fromkeys(COUNTS, 0))
        figures["segments"] += len(found)
        figures["seconds"] += sum(s.end - s.start for s in found)
        figures["invented"] += sum(len(tokens(t)) for t in empty)
        if one.row.text is not None:
            counts = count(align(tokens(one.row.text), tokens(" ".join(said))))
            for name in ("substitutions", "deletions", "insertions"):
                figures[name] += getattr(counts, name)
            figures["words"] += len(tokens(one.row.text))
    return out


COUNTS = ("words", "substitutions", "deletions", "insertions", "invented", "segments", "seconds")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that build.py filled")
    parser.add_argument("--models", default="starter", help="whose detector and recogniser")
    parser.add_argument("--sweep", type=Path, metavar="FILE", help="figures of the grid, a line each")
    parser.add_argument("--words", type=Path, metavar="FILE", help="figures of what is recognised, a line each")
    parser.add_argument("--try", dest="tried", action="append", default=[], metavar="OPTIONS")
    parser.add_argument("--groups", help=f"only these, out of talk, tails, events, {MUSIC}; separated by commas")
    args = parser.parse_args()
    wanted = args.groups.split(",") if args.groups else None
    known = [one for one in recordings(args.data, args.models) if not wanted or one.group.partition(",")[0] in wanted]
    if args.sweep:
        with args.sweep.open("w", encoding="utf-8") as file:
            for row in sweep(known):
                file.write(json.dumps(row) + "\n")
    if args.words:
        heard = Heard(args.data / "results" / f"heard-{args.models}.jsonl", loading.load_recognizer(args.models))
        with args.words.open("a", encoding="utf-8") as file:
            for given in args.tried:
                options = parsed(given)
                row = {"options": given, **asdict(options), "frames": by_group(known, options)}
                file.write(json.dumps({**row, "words": words(known, options, heard)}) + "\n")
                file.flush()
                print(given, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
