"""Answers against references: the figures of each set, and what every recording adds to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vermilion.errors import ManifestError
from vermilion.evaluation import calibration, languages, punctuation, recognition, timing, voice_activity
from vermilion.evaluation.calibration import Samples
from vermilion.evaluation.journal import Answer
from vermilion.evaluation.results import Evaluation, Figure, Row, ScoringOptions, SetResult
from vermilion.evaluation.sets import NamedSet, events_of, spans_of, words_of
from vermilion.evaluation.tasks import unpacked
from vermilion.evaluation.voice_activity import FrameScore, RocCurve, SegmentScore
from vermilion.manifests import Utterance
from vermilion.transcript import Recognition, Span, Word

NEAR = (0.05, 0.1, 0.2)
"""seconds within which word edges are counted"""

T = TypeVar("T")
Answers = Mapping[str, Sequence[Answer]]


def evaluated(
    kind: str, system: str, sets: Sequence[NamedSet], answers: Answers, options: ScoringOptions | None = None
) -> Evaluation:
    """Score the answers to a task.

    Args:
        kind: the task's.
        system: name of the system.
        sets: the references.
        answers: by the set's name, one per utterance in order.
        options: how to compare.

    Raises:
        ManifestError: a line lacks the reference that the task needs.
    """
    return _SCORERS[kind](system, sets, answers, options or ScoringOptions())


# ---- text


def _recognition(system: str, sets: Sequence[NamedSet], answers: Answers, options: ScoringOptions) -> Evaluation:
    results, samples = [], _Confidences()
    for test_set in sets:
        rows = []
        for utterance, answer in zip(test_set.utterances, answers[test_set.name], strict=True):
            rows.append(_text_row(utterance, answer, options))
            samples.add(test_set.name, utterance, answer)
        results.append(_result(test_set, answers, rows, _text_figures(rows)))
    name = _rate_name(options)
    figures = (Figure(name), *_TEXT_FIGURES)
    return Evaluation(
        "asr", system, figures, figures[0], tuple(_named(results, name)), confidences=samples.known(),
        remarks=tuple(_unfit(sets, options)),
    )  # fmt: skip


_OF_THE_REPORT = ("zh", "en")
"""languages that the report's normalisation was made for"""


def _unfit(sets: Sequence[NamedSet], options: ScoringOptions) -> Iterator[str]:
    """What the report's normalisation does to other languages than its own."""
    if options.normalisation != "report" or options.unit == "character":
        return
    codes = {s.name: {languages.reduced(u.language, "language") for u in s.utterances if u.language} for s in sets}
    for name, found in codes.items():
        other = sorted(found - set(_OF_THE_REPORT))
        if other:
            yield (
                f"{name} is in {', '.join(other)}: the report's normalisation is for Chinese and English (it joins "
                'single letters, "il y a" becomes "IL YA"); --normalisation whisper-basic counts words as they are'
            )


_TEXT_FIGURES = (
    Figure("substituted"), Figure("deleted"), Figure("inserted"), Figure("wrong recordings"),
    Figure("coverage", smaller_is_better=False), Figure("tokens", ""),
)  # fmt: skip


def _text_row(utterance: Utterance, answer: Answer, options: ScoringOptions) -> Row:
    said = _needed(utterance.text, utterance, "text")
    heard = None if answer.value is None else str(answer.value["text"])
    scored = recognition.score_utterance(utterance.id, said, heard, options.normalisation, options.unit)
    counts = scored.counts
    return Row(utterance, counts.errors, counts.length, _why(answer), said, heard or "", scored.steps)


def _text_figures(rows: Sequence[Row]) -> dict[str, float | None]:
    total = recognition.Counts()
    for row in rows:
        total += recognition.count(row.steps)
    length, count = max(total.length, 1), max(len(rows), 1)
    return {
        "": total.rate,
        "substituted": total.substitutions / length,
        "deleted": total.deletions / length,
        "inserted": total.insertions / length,
        "wrong recordings": sum(r.errors > 0 for r in rows) / count,
        "coverage": 1 - sum(bool(r.failed) for r in rows) / count,
        "tokens": total.length,
    }


def _rate_name(options: ScoringOptions) -> str:
    return {"mixed": "error rate", "character": "CER", "word": "WER"}[options.unit]


def _named(results: Sequence[SetResult], name: str) -> list[SetResult]:
    """Give the error rate its name."""
    renamed = [{name: r.figures[""]} | {k: v for k, v in r.figures.items() if k} for r in results]
    return [
        SetResult(r.name, r.groups, r.rows, figures, r.audio_seconds, r.seconds)
        for r, figures in zip(results, renamed, strict=True)
    ]


class _Confidences:
    """Collects confidences with what was right about them."""

    def __init__(self) -> None:
        self.found: dict[str, list[Samples]] = {"utterance": [], "word": []}

    def add(self, set_name: str, utterance: Utterance, answer: Answer) -> None:
        value = answer.value
        if value is None or utterance.text is None or "confidence" not in value:
            return
        id = f"{set_name}/{utterance.id}"
        heard = Recognition(value["text"], value["confidence"], words=_words(value))
        self.found["utterance"].append(calibration.utterance_sample(id, heard, utterance.text))
        self.found["word"].append(calibration.word_samples(id, heard, utterance.text))

    def known(self) -> dict[str, Samples]:
        """Those of a system that gives any: zeros stand for none."""
        gathered = {name: calibration.gathered(rows) for name, rows in self.found.items()}
        return {name: samples for name, samples in gathered.items() if any(samples.confidences)}


# ---- voice activity


def _voice_activity(system: str, sets: Sequence[NamedSet], answers: Answers, options: ScoringOptions) -> Evaluation:
    results, curves = [], {}
    for test_set in sets:
        rows, segments = [], SegmentScore()
        frames = _Frames(options.threshold)
        for utterance, answer in zip(test_set.utterances, answers[test_set.name], strict=True):
            true = _needed(spans_of(utterance), utterance, "segments")
            if answer.value is None:
                rows.append(Row(utterance, 0.0, 0.0, _why(answer)))
                continue
            found = _spans(answer.value["segments"])
            wrong, count = frames.add(true, found, answer.value)
            rows.append(Row(utterance, wrong, count, "", _listed(true), _listed(found)))
            segments += voice_activity.segment_score(true, found)
        score, curve = frames.score()
        results.append(_result(test_set, answers, rows, _frame_figures(score) | _segment_figures(segments)))
        if curve is not None:
            curves[test_set.name] = curve
    figures = (*_FRAME_FIGURES, *_SEGMENT_FIGURES)
    return Evaluation("vad", system, figures, Figure("frame error"), tuple(results), curves)


_FRAME_FIGURES = (
    Figure("AUC", smaller_is_better=False), Figure("F1", smaller_is_better=False), Figure("FAR"), Figure("MR"),
    Figure("frame error"),
)  # fmt: skip
_SEGMENT_FIGURES = (
    Figure("segments", ""), Figure("missed", ""), Figure("false", ""), Figure("split", ""), Figure("merged", ""),
    Figure("start off", "s"), Figure("end off", "s"), Figure("detection error"),
)  # fmt: skip


class _Frames:
    """Labels and probabilities of a set, recording after recording."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.labels: list[NDArray[np.bool_]] = []
        self.probabilities: list[NDArray[np.float32]] = []
        self.decisions: list[NDArray[np.bool_]] = []

    def add(self, true: Sequence[Span], found: Sequence[Span], value: Mapping[str, Any]) -> tuple[int, int]:
        """Take a recording; returns its wrong frames and all of them."""
        if "frames" in value:
            probabilities = unpacked(value["frames"])
            self.probabilities.append(probabilities)
            count, decisions = len(probabilities), probabilities >= self.threshold
        else:  # a detector that shows its segments only
            count = int(value["duration"] / voice_activity.FRAME_SECONDS)
            decisions = voice_activity.frame_labels(found, count)
        labels = voice_activity.frame_labels(true, count)
        self.labels.append(labels)
        self.decisions.append(decisions)
        return int((labels != decisions).sum()), count

    def score(self) -> tuple[FrameScore, RocCurve | None]:
        """Figures of the set, and its curve if every recording had probabilities."""
        labels = _joined(self.labels, np.bool_)
        decisions = _joined(self.decisions, np.bool_)
        whole = bool(self.labels) and len(self.probabilities) == len(self.labels)
        probabilities = _joined(self.probabilities, np.float32) if whole else None
        curve = voice_activity.roc_curve(labels, probabilities) if probabilities is not None else None
        return voice_activity.frame_score(labels, probabilities, decisions=decisions), curve


def _joined(parts: Sequence[NDArray[Any]], kind: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, kind)


def _frame_figures(score: FrameScore) -> dict[str, float | None]:
    wrong = score.false_positives + score.false_negatives
    return {
        "AUC": score.auc,
        "F1": score.f1,
        "FAR": score.false_alarm_rate,
        "MR": score.miss_rate,
        "frame error": wrong / max(score.frames, 1),
    }


def _segment_figures(score: SegmentScore) -> dict[str, float | None]:
    return {
        "segments": score.references,
        "missed": score.missed,
        "false": score.false,
        "split": score.splits,
        "merged": score.merges,
        "start off": score.start_error,
        "end off": score.end_error,
        "detection error": score.detection_error,
    }


def _events(system: str, sets: Sequence[NamedSet], answers: Answers, options: ScoringOptions) -> Evaluation:
    """Each event of each set is a line of its own."""
    results, curves = [], {}
    for test_set in sets:
        pairs = list(zip(test_set.utterances, answers[test_set.name], strict=True))
        labels = sorted({label for u, _ in pairs for label in _needed(events_of(u), u, "events")})
        for label in labels:
            rows, frames = [], _Frames(options.threshold)
            for utterance, answer in pairs:
                true = (events_of(utterance) or {}).get(label, [])
                if answer.value is None:
                    rows.append(Row(utterance, 0.0, 0.0, _why(answer)))
                    continue
                found = _spans(answer.value["events"].get(label, []))
                curve = answer.value["frames"].get(label)
                value = {"duration": answer.value["duration"]} | ({"frames": curve} if curve else {})
                wrong, count = frames.add(true, found, value)
                rows.append(Row(utterance, wrong, count, "", _listed(true), _listed(found)))
            name = f"{test_set.name} {label}"
            score, roc = frames.score()
            made = _result(test_set, answers, rows, _frame_figures(score))
            results.append(SetResult(name, made.groups, made.rows, made.figures, made.audio_seconds, made.seconds))
            if roc is not None:
                curves[name] = roc
    return Evaluation("events", system, _FRAME_FIGURES, Figure("frame error"), tuple(results), curves)


# ---- languages, marks, word times


def _languages(system: str, sets: Sequence[NamedSet], answers: Answers, options: ScoringOptions) -> Evaluation:
    results, pairs, samples = [], [], []
    for test_set in sets:
        rows, own = [], []
        for utterance, answer in zip(test_set.utterances, answers[test_set.name], strict=True):
            true = _needed(utterance.language, utterance, "lang")
            got = str(answer.value["label"]) if answer.value else ""
            right = bool(got) and languages.reduced(true, options.level) == languages.reduced(got, options.level)
            rows.append(Row(utterance, float(not right), 1.0, _why(answer), true, got))
            own.append((true, got))
            if answer.value and "confidence" in answer.value:
                samples.append(Samples((answer.value["confidence"],), (float(right),), (utterance.id,)))
        score = languages.score(own, options.level)
        shares = {"accuracy": score.accuracy, "macro accuracy": score.macro_accuracy, "recordings": score.total}
        results.append(_result(test_set, answers, rows, shares))
        pairs += own
    figures = (
        Figure("accuracy", smaller_is_better=False), Figure("macro accuracy", smaller_is_better=False),
        Figure("recordings", ""),
    )  # fmt: skip
    sure = calibration.gathered(samples)
    known = {"language": sure} if any(sure.confidences) else {}
    confusion = languages.score(pairs, options.level)
    return Evaluation(
        "lid", system, figures, Figure("error rate"), tuple(results), confusion=confusion, confidences=known
    )


def _punctuation(system: str, sets: Sequence[NamedSet], answers: Answers, _: ScoringOptions) -> Evaluation:
    results = []
    for test_set in sets:
        rows, total = [], punctuation.PunctuationScore()
        for utterance, answer in zip(test_set.utterances, answers[test_set.name], strict=True):
            said = _needed(utterance.text, utterance, "text")
            heard = str(answer.value["text"]) if answer.value else ""
            if answer.value is None:  # its marks are lost, its words are not the restorer's business
                heard = punctuation.unmarked(said)
            score = punctuation.score_text(said, heard)
            micro = score.micro
            rows.append(Row(utterance, micro.extra + micro.lost, micro.hits + micro.lost, _why(answer), said, heard))
            total += score
        results.append(_result(test_set, answers, rows, _mark_figures(total)))
    up = [Figure(name, smaller_is_better=False) for name in ("F1", "precision", "recall", *_MARK_NAMES)]
    figures = (*up, Figure("changed words", ""))
    return Evaluation("punc", system, figures, Figure("wrong marks"), tuple(results))


_MARK_NAMES = tuple(f"{mark} F1" for mark in punctuation.MARKS)


def _mark_figures(score: punctuation.PunctuationScore) -> dict[str, float | None]:
    micro = score.micro
    figures: dict[str, float | None] = {"F1": micro.f1, "precision": micro.precision, "recall": micro.recall}
    figures |= {f"{mark} F1": score.marks[mark].f1 for mark in punctuation.MARKS}
    return figures | {"changed words": score.changed}


def _timestamps(system: str, sets: Sequence[NamedSet], answers: Answers, _: ScoringOptions) -> Evaluation:
    results = []
    for test_set in sets:
        rows, pairs = [], []
        for utterance, answer in zip(test_set.utterances, answers[test_set.name], strict=True):
            true = _needed(words_of(utterance), utterance, "words")
            got = _words(answer.value or {})
            score = timing.score_words(true, got)
            said, heard = (" ".join(f"{w.text}@{w.start:.2f}" for w in words) for words in (true, got))
            off = float(np.abs(score.starts).sum()) if score.starts else 0.0
            rows.append(Row(utterance, off, len(score.starts), _why(answer), said, heard))
            pairs.append((true, got))
        results.append(_result(test_set, answers, rows, _time_figures(timing.score(pairs))))
    seconds = [Figure(f"{edge} {name}", "s") for edge in ("start", "end") for name in ("off", "median", "p95", "bias")]
    shares = [Figure(f"{edge} {_within(s)}", smaller_is_better=False) for edge in ("start", "end") for s in NEAR]
    figures = (*seconds, *shares, Figure("matched", smaller_is_better=False), Figure("words", ""))
    return Evaluation("timestamps", system, figures, figures[0], tuple(results))


def _within(seconds: float) -> str:
    return f"within {1000 * seconds:.0f} ms"


def _time_figures(score: timing.TimingScore) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    for edge in ("start", "end"):
        values = f"{edge}s"
        figures |= {f"{edge} off": score.mean(values), f"{edge} median": score.median(values)}
        figures |= {f"{edge} p95": score.p95(values), f"{edge} bias": score.bias(values)}
        figures |= {f"{edge} {_within(s)}": score.within(s, values) for s in NEAR}
    return figures | {"matched": score.coverage, "words": score.words}


# ---- everything


def _pipeline(system: str, sets: Sequence[NamedSet], answers: Answers, options: ScoringOptions) -> Evaluation:
    """Errors of the text, and of whatever else the lines have references for."""
    parts: list[Evaluation] = [_recognition(system, sets, answers, options)]
    extra: list[tuple[Callable[[Utterance], object], _Scorer, str]] = [
        (spans_of, _voice_activity, "speech "),
        (lambda u: u.language, _languages, "language "),
        (words_of, _timestamps, "word "),
    ]
    marks = {c for characters in punctuation.MARKS.values() for c in characters}
    everything = [u for s in sets for u in s.utterances]
    if any(marks & set(u.text or "") for u in everything):
        parts.append(_prefixed(_punctuation(system, sets, answers, options), "marks "))
    for reference, scorer, prefix in extra:
        if all(reference(u) is not None for u in everything):
            parts.append(_prefixed(scorer(system, sets, answers, options), prefix))
    merged = [
        SetResult(
            first.name, first.groups, first.rows, {k: v for p in parts for k, v in p.sets[i].figures.items()},
            first.audio_seconds, first.seconds,
        )
        for i, first in enumerate(parts[0].sets)
    ]  # fmt: skip
    return Evaluation(
        "pipeline", system, tuple(f for p in parts for f in p.figures), parts[0].compared, tuple(merged),
        {k: v for p in parts for k, v in p.curves.items()}, next((p.confusion for p in parts if p.confusion), None),
        {k: v for p in parts for k, v in p.confidences.items()},
    )  # fmt: skip


def _prefixed(part: Evaluation, prefix: str) -> Evaluation:
    """Name figures so that several parts fit into one table; only the first two of a part are kept."""
    kept = part.figures[:2]
    figures = tuple(Figure(prefix + f.name, f.unit, f.smaller_is_better) for f in kept)
    sets = tuple(
        SetResult(s.name, s.groups, s.rows, {prefix + f.name: s.figures[f.name] for f in kept}, 0.0, 0.0)
        for s in part.sets
    )
    return Evaluation(
        part.kind, part.system, figures, part.compared, sets, part.curves, part.confusion, part.confidences
    )


_Scorer = Callable[[str, Sequence[NamedSet], Answers, ScoringOptions], Evaluation]
_SCORERS: dict[str, _Scorer] = {
    "asr": _recognition,
    "vad": _voice_activity,
    "events": _events,
    "lid": _languages,
    "punc": _punctuation,
    "timestamps": _timestamps,
    "pipeline": _pipeline,
}


def _result(
    test_set: NamedSet, answers: Answers, rows: Sequence[Row], figures: Mapping[str, float | None]
) -> SetResult:
    own = [a for a in answers[test_set.name] if a.value is not None]
    audio, seconds = sum(a.audio_seconds for a in own), sum(a.seconds for a in own)
    return SetResult(test_set.name, test_set.groups, tuple(rows), figures, audio, seconds)


def _needed(value: T | None, utterance: Utterance, key: str) -> T:
    if value is None:
        raise ManifestError(f"{utterance.id} has no reference: its line lacks {key!r}")
    return value


def _why(answer: Answer) -> str:
    return "" if answer.value is not None else answer.error or "no answer"


def _spans(pairs: Sequence[Sequence[float]]) -> list[Span]:
    return [Span(start, end) for start, end in pairs]


def _listed(spans: Sequence[Span]) -> str:
    return ", ".join(f"{s.start:.2f}–{s.end:.2f}" for s in spans)


def _words(value: Mapping[str, Any]) -> list[Word]:
    return [Word(text, start, end, sure) for text, start, end, sure in value.get("words", [])]
