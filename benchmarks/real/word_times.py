"""Measure the times of words on recordings whose word times are known (the sets times-… that build.py makes).

    python benchmarks/real/word_times.py --data ~/real --models starter --models mini --align mini --markdown times.md

--models and --align take NAME[=FOLDER] as run.py does; --align gives the true text, so that only times can be wrong.
Answers are kept in DATA/results/times. Every system stands in the table twice: with the edges that it gives, and with
those that the pipeline moves to the sound.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse  # noqa: E402 - the thread counts come first
import json  # noqa: E402 - the thread counts come first
import sys  # noqa: E402 - the thread counts come first
from collections.abc import Callable, Sequence  # noqa: E402 - the thread counts come first
from dataclasses import dataclass, replace  # noqa: E402 - the thread counts come first
from pathlib import Path  # noqa: E402 - the thread counts come first
from typing import Any  # noqa: E402 - the thread counts come first

from run import markdown, percent  # noqa: E402 - the thread counts come first

from vermilion import loading  # noqa: E402 - the thread counts come first
from vermilion.audio import load_audio  # noqa: E402 - the thread counts come first
from vermilion.decoding.options import DecodingOptions  # noqa: E402 - the thread counts come first
from vermilion.evaluation import tasks  # noqa: E402 - the thread counts come first
from vermilion.evaluation.journal import Answer, Journal  # noqa: E402 - the thread counts come first
from vermilion.evaluation.running import run  # noqa: E402 - the thread counts come first
from vermilion.evaluation.scoring import evaluated  # noqa: E402 - the thread counts come first
from vermilion.evaluation.sets import NamedSet  # noqa: E402 - the thread counts come first
from vermilion.manifests import Utterance, read_manifest  # noqa: E402 - the thread counts come first
from vermilion.pipeline import PipelineOptions  # noqa: E402 - the thread counts come first
from vermilion.transcript import Word  # noqa: E402 - the thread counts come first
from vermilion.word_edges import fitted  # noqa: E402 - the thread counts come first

SETS = ("times-en", "times-zh", "times-espeak")
EDGES = ("start", "end")


@dataclass(frozen=True)
class System:
    """Who is asked, and how it is loaded."""

    label: str
    build: Callable[[], tasks.Task]


def systems(models: Sequence[str], aligners: Sequence[str]) -> list[System]:
    """Recognisers and aligners, each NAME[=FOLDER]."""
    return [
        *(System(_label(given), lambda given=given: recogniser(given)) for given in models),
        *(System(f"{_label(given)}-align", lambda given=given: aligner(given)) for given in aligners),
    ]


def _label(given: str) -> str:
    return given.partition("=")[0]


def _loaded(given: str) -> Any:
    name, _, where = given.partition("=")
    return loading.load_recognizer(where or name, options=PipelineOptions(threads=int(os.environ["OMP_NUM_THREADS"])))


def recogniser(given: str) -> tasks.Task:
    return tasks.RecognitionTask(_loaded(given), DecodingOptions(), known_language=True, kind="timestamps")


def aligner(given: str) -> tasks.Task:
    return tasks.AlignmentTask(_loaded(given))


def by_condition(data: Path) -> list[NamedSet]:
    """The sets, what is clean and what is noisy by itself."""
    found = []
    for name in SETS:
        rows = read_manifest(data / f"{name}.jsonl")
        for condition in dict.fromkeys(str(r.extra["condition"]) for r in rows):
            chosen = tuple(r for r in rows if r.extra["condition"] == condition)
            found.append(NamedSet(f"{name}, {condition}", chosen))
    return found


def figures(system: System, sets: list[NamedSet], folder: Path) -> list[dict[str, Any]]:
    """Ask for what is not known yet, and score."""
    home = folder / "times" / system.label
    with Journal(home, {"label": system.label, "kind": "timestamps"}, reads_reference=True) as journal:
        known = {s.name: [journal.get(s.name, u) for u in s.utterances] for s in sets}
        if any(answer is None for answers in known.values() for answer in answers):
            known = run(system.build(), sets, journal)
    rows = []
    for edges, answers in (("model", known), ("sound", at_the_sound(sets, known))):
        found = evaluated("timestamps", system.label, sets, answers)
        rows += [{"system": system.label, "edges": edges, "set": s.name, **s.figures} for s in found.sets]
    return rows


def at_the_sound(sets: list[NamedSet], answers: dict[str, list[Answer]]) -> dict[str, list[Answer]]:
    """The same answers after what the pipeline does to word edges."""

    def moved(utterance: Utterance, answer: Answer) -> Answer:
        if answer.value is None:
            return answer
        words = [Word(*word) for word in answer.value["words"]]
        found = fitted(words, load_audio(utterance.audio))
        return replace(answer, value={**answer.value, "words": [[w.text, w.start, w.end, w.confidence] for w in found]})

    return {s.name: [moved(u, a) for u, a in zip(s.utterances, answers[s.name], strict=True)] for s in sets}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line per system and set; milliseconds and percent."""
    head = ["", "edges", "set", "words matched"]
    for edge in EDGES:
        head += [f"{edge}: shift", "mean", "median", "p95", "within 50 / 100 / 200 ms"]
    lines = []
    for row in rows:
        cells = [row["system"], row["edges"], row["set"], f"{percent(row['matched'])} % of {row['words']:.0f}"]
        for edge in EDGES:
            cells += [milliseconds(row[f"{edge} {name}"]) for name in ("bias", "off", "median", "p95")]
            shares = (row[f"{edge} within {limit} ms"] for limit in (50, 100, 200))
            cells.append(" / ".join("-" if share is None else f"{100 * share:.0f}" for share in shares))
        lines.append(cells)
    return markdown(head, lines)


def milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{1000 * value:+.0f}".replace("+", "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that build.py filled")
    parser.add_argument("--models", action="append", default=[], metavar="NAME[=FOLDER]")
    parser.add_argument("--align", action="append", default=[], metavar="NAME[=FOLDER]")
    parser.add_argument("--markdown", type=Path, help="file for the table; else it is printed")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    sets = by_condition(args.data)
    rows = [row for s in systems(args.models, args.align) for row in figures(s, sets, args.data / "results")]
    if args.json:
        args.json.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if args.markdown:
        args.markdown.write_text(table(rows) + "\n", encoding="utf-8")
    else:
        print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
