"""Fitting confidences to what is right: temperature and isotonic curves, calibration error before and after.

Expected calibration error as in Guo et al., "On calibration of modern neural networks" (2017), which also gives the
temperature. What "after" says is measured on recordings that the curve was not fitted on (cross-validation).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vermilion.asr.calibration import CLIP, Calibration, ConfidenceCurve, Method
from vermilion.errors import OptionsError, missing
from vermilion.evaluation.normalisation import Normalisation, tokens
from vermilion.evaluation.recognition import align, count
from vermilion.transcript import Recognition

BINS = 10
FOLDS = 5
FEWEST = 20
"""recordings below which nothing can be fitted"""
HOTTEST, COLDEST = 20.0, 0.05
"""bounds of the temperature"""


@dataclass(frozen=True)
class Reliability:
    """How confidences compare with what was right, in bins of equal width."""

    counts: tuple[int, ...]
    confidence: tuple[float, ...]
    """mean of each bin; 0 where it is empty"""
    accuracy: tuple[float, ...]
    """share that was right, of each bin"""
    ece: float
    """expected calibration error: distance of the two, weighted by the bins' counts"""
    brier: float
    """mean squared distance of confidence and outcome"""

    @property
    def samples(self) -> int:
        """Answers in all."""
        return sum(self.counts)


@dataclass(frozen=True)
class Samples:
    """Answers with what was right about them; samples can be added."""

    confidences: tuple[float, ...] = field(default=(), repr=False)
    correct: tuple[float, ...] = field(default=(), repr=False)
    """1 = right, 0 = wrong; for utterances the share of tokens that are right"""
    groups: tuple[str, ...] = field(default=(), repr=False)
    """recording that each answer comes from"""

    def __add__(self, other: Samples) -> Samples:
        return Samples(self.confidences + other.confidences, self.correct + other.correct, self.groups + other.groups)

    def __len__(self) -> int:
        return len(self.confidences)


@dataclass(frozen=True)
class Fitted:
    """A curve and what it changes."""

    curve: ConfidenceCurve
    before: Reliability
    after: Reliability
    """by cross-validation over recordings"""

    def to_dict(self) -> dict[str, Any]:
        """The figures, for the file and for `--json`."""
        return {
            "method": self.curve.method,
            "samples": self.before.samples,
            "ece_before": round(self.before.ece, 5),
            "ece_after": round(self.after.ece, 5),
            "brier_before": round(self.before.brier, 5),
            "brier_after": round(self.after.brier, 5),
        }


def reliability(confidences: ArrayLike, correct: ArrayLike, bins: int = BINS) -> Reliability:
    """Compare confidences with outcomes.

    Args:
        confidences: (n,) in [0, 1].
        correct: (n,) 1 = right, 0 = wrong, or a share.
        bins: of equal width over [0, 1]; 1.0 falls into the last.
    """
    sure, right = np.asarray(confidences, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if sure.shape != right.shape or sure.ndim != 1:
        raise OptionsError(f"{sure.shape} confidences stand against {right.shape} outcomes")
    where = np.clip((sure * bins).astype(int), 0, bins - 1)
    counts = np.bincount(where, minlength=bins)
    weights = np.maximum(counts, 1)
    confidence = np.bincount(where, sure, bins) / weights
    accuracy = np.bincount(where, right, bins) / weights
    total = max(len(sure), 1)
    ece = float((np.abs(confidence - accuracy) * counts).sum() / total)
    brier = float(np.square(sure - right).sum() / total)
    return Reliability(tuple(int(c) for c in counts), tuple(confidence.tolist()), tuple(accuracy.tolist()), ece, brier)


def utterance_sample(id: str, recognition: Recognition, reference: str) -> Samples:
    """How much of one recognised text is right: 1 − errors per token of the longer text.

    Nothing comes of an empty text, whose confidence is no estimate.
    """
    said, heard = tokens(reference), tokens(recognition.text)
    if not heard:
        return Samples()
    share = 1 - count(align(said, heard)).errors / max(len(said), len(heard))
    return Samples((recognition.confidence,), (share,), (id,))


def word_samples(id: str, recognition: Recognition, reference: str, normalisation: Normalisation = "report") -> Samples:
    """Which words of one recognised text are right: those whose tokens all stand in the reference, aligned."""
    heard: list[str] = []
    owners: list[int] = []
    for i, word in enumerate(recognition.words):
        for token in tokens(word.text, normalisation):
            heard.append(token)
            owners.append(i)
    wrong: set[int] = set()
    j = 0
    for step in align(tokens(reference, normalisation), heard):
        if step.kind == "delete":
            continue
        if step.kind != "equal":
            wrong.add(owners[j])
        j += 1
    judged = [(i, w.confidence) for i, w in enumerate(recognition.words) if w.confidence is not None and i in owners]
    return Samples(
        tuple(c for _, c in judged if c is not None),
        tuple(float(i not in wrong) for i, _ in judged),
        (id,) * len(judged),
    )


def gathered(samples: Iterable[Samples]) -> Samples:
    """Put the samples of recordings together."""
    rows = list(samples)
    return Samples(
        tuple(c for s in rows for c in s.confidences),
        tuple(c for s in rows for c in s.correct),
        tuple(g for s in rows for g in s.groups),
    )


def fit(samples: Samples, method: Method | Literal["auto"] = "auto", folds: int = FOLDS) -> Fitted:
    """Fit a curve.

    Args:
        samples: answers with their outcome.
        method: auto = the one with the smaller Brier score in cross-validation; temperature where they are equal.
        folds: of the cross-validation; all answers of a recording are in the same one.

    Raises:
        OptionsError: fewer than 20 recordings.
        MissingDependencyError: the extra `evaluation` is not installed.
    """
    check_size(len(set(samples.groups)), "with an answer")
    sure, right = np.asarray(samples.confidences), np.asarray(samples.correct)
    methods: Sequence[Method] = ("temperature", "isotonic") if method == "auto" else (method,)
    after = {m: reliability(_crossed(sure, right, samples.groups, m, folds), right) for m in methods}
    best = min(methods, key=lambda m: after[m].brier)
    return Fitted(_FITS[best](sure, right), reliability(sure, right), after[best])


def check_size(recordings: int, which: str = "with a text") -> None:
    """Refuse what is too little.

    Raises:
        OptionsError: fewer than 20 recordings.
    """
    if recordings < FEWEST:
        raise OptionsError(f"{recordings} recordings {which} are too few to calibrate on; give {FEWEST} or more")


def calibrate(
    utterances: Samples, words: Samples | None = None, method: Method | Literal["auto"] = "auto", model: str = ""
) -> tuple[Calibration, dict[str, Fitted]]:
    """Fit what there are samples for.

    Returns:
        The calibration, and the fit of "utterance" and, with word confidences, "word".

    Raises:
        OptionsError: too few recordings.
    """
    found = {"utterance": fit(utterances, method)}
    if words is not None and len(words):
        found["word"] = fit(words, method)
    about = {name: fitted.to_dict() for name, fitted in found.items()}
    curves = {name: fitted.curve for name, fitted in found.items()}
    return Calibration(curves["utterance"], curves.get("word"), model, about), found


def _crossed(
    sure: NDArray[np.float64], right: NDArray[np.float64], groups: Sequence[str], method: Method, folds: int
) -> NDArray[np.float64]:
    """Calibrated confidences, each by a curve fitted on the other folds."""
    try:
        from sklearn.model_selection import GroupKFold
    except ImportError as error:
        raise missing("calibration needs scikit-learn", "evaluation") from error
    out = np.zeros_like(sure)
    for train, test in GroupKFold(folds).split(sure, groups=np.asarray(groups)):
        curve = _FITS[method](sure[train], right[train])
        out[test] = [curve(c) for c in sure[test]]
    return out


def _temperature(sure: NDArray[np.float64], right: NDArray[np.float64]) -> ConfidenceCurve:
    """Maximum likelihood; an outcome that is a share counts on both sides."""
    from sklearn.linear_model import LogisticRegression

    p = np.clip(sure, CLIP, 1 - CLIP)
    logits = np.log(p / (1 - p))[:, None]
    labels = np.repeat([1, 0], len(p))
    model = LogisticRegression(C=np.inf, fit_intercept=False, max_iter=1000)
    weights = np.concatenate([right, 1 - right])
    if not 0 < weights[: len(p)].sum() < len(p):  # all right or all wrong: the likelihood has no maximum
        steep = bool(right.all()) == bool((logits > 0).all())
        return ConfidenceCurve("temperature", COLDEST if steep else HOTTEST)
    slope = float(model.fit(np.concatenate([logits, logits]), labels, weights).coef_[0, 0])
    temperature = HOTTEST if slope <= 1 / HOTTEST else max(1 / slope, COLDEST)
    return ConfidenceCurve("temperature", temperature)


def _isotonic(sure: NDArray[np.float64], right: NDArray[np.float64]) -> ConfidenceCurve:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(np.clip(sure, 0, 1), right)
    x, y = model.X_thresholds_, np.maximum.accumulate(np.clip(model.y_thresholds_, 0, 1))
    kept = np.concatenate([[True], np.diff(x) > 0])
    return ConfidenceCurve("isotonic", x=tuple(x[kept].tolist()), y=tuple(y[kept].tolist()))


_FITS = {"temperature": _temperature, "isotonic": _isotonic}
