"""Confidences that mean something: what `vermilion calibrate` fitted, read from beside the model and applied.

The file is plain JSON; it holds numbers only and is checked when it is read.
"""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vermilion.errors import CheckpointError, OptionsError
from vermilion.transcript import Failure, Recognition, Word

if TYPE_CHECKING:
    from vermilion.decoding.options import DecodingOptions
    from vermilion.pipeline import Recognizer

FILE = "calibration.json"
VERSION = 1
MOST_BYTES = 1_000_000
MOST_KNOTS = 10_000
CLIP = 1e-6
"""confidences are kept this far from 0 and 1 before their logit is taken"""
Method = Literal["temperature", "isotonic"]


@dataclass(frozen=True)
class ConfidenceCurve:
    """A raw confidence → the share of such answers that is right; never falling."""

    method: Method
    temperature: float = 1.0
    """logits are divided by it: above 1 = the recogniser was too sure"""
    x: tuple[float, ...] = ()
    """knots of the isotonic curve, rising"""
    y: tuple[float, ...] = ()
    """its values, not falling"""

    def __post_init__(self) -> None:
        if self.method == "temperature":
            if not (math.isfinite(self.temperature) and self.temperature > 0):
                raise OptionsError(f"a temperature must be above 0, not {self.temperature!r}")
        elif self.method != "isotonic":
            raise OptionsError(f"a curve is a temperature or isotonic, not {self.method!r}")
        elif not self._rises():
            raise OptionsError("the knots of an isotonic curve must rise in [0, 1], its values must not fall")

    def _rises(self) -> bool:
        if not 1 <= len(self.x) <= MOST_KNOTS or len(self.x) != len(self.y):
            return False
        if not all(math.isfinite(v) and 0 <= v <= 1 for v in (*self.x, *self.y)):
            return False
        steps = zip(self.x, self.x[1:], self.y, self.y[1:], strict=False)
        return all(a < b and c <= d for a, b, c, d in steps)

    def __call__(self, confidence: float) -> float:
        """Calibrate one confidence in [0, 1]."""
        if self.method == "temperature":
            p = min(max(confidence, CLIP), 1 - CLIP)
            return 1 / (1 + math.exp(-math.log(p / (1 - p)) / self.temperature))
        right = bisect.bisect_left(self.x, confidence)
        if right == 0 or right == len(self.x):
            return self.y[min(right, len(self.y) - 1)]
        left, share = right - 1, (confidence - self.x[right - 1]) / (self.x[right] - self.x[right - 1])
        return self.y[left] + share * (self.y[right] - self.y[left])

    def to_dict(self) -> dict[str, Any]:
        """What the file holds."""
        if self.method == "temperature":
            return {"method": self.method, "temperature": self.temperature}
        return {"method": self.method, "x": list(self.x), "y": list(self.y)}


@dataclass(frozen=True)
class Calibration:
    """The curves of one recogniser."""

    utterance: ConfidenceCurve | None = None
    """for `Recognition.confidence`; None = left as it is"""
    word: ConfidenceCurve | None = None
    """for the words' confidences; None = left as they are"""
    model: str = ""
    """name of the recogniser that it was fitted for"""
    about: dict[str, Any] = field(default_factory=dict)
    """how it was fitted, for people"""

    def apply(self, recognition: Recognition) -> Recognition:
        """Calibrate a recognition's confidences; token probabilities stay what the search gave."""
        if not recognition.text:
            return recognition  # nothing was heard: 0.0 is no estimate
        curve = self.utterance or float
        return replace(
            recognition,
            confidence=curve(recognition.confidence),
            words=[self._word(w) for w in recognition.words],
            alternatives=[
                replace(a, confidence=curve(a.confidence)) if a.text else a for a in recognition.alternatives
            ],
        )

    def _word(self, word: Word) -> Word:
        if self.word is None or word.confidence is None:
            return word
        return replace(word, confidence=self.word(word.confidence))

    def to_dict(self) -> dict[str, Any]:
        """What the file holds."""
        curves = {"utterance": self.utterance, "word": self.word}
        fitted = {name: curve.to_dict() for name, curve in curves.items() if curve is not None}
        return {"vermilion_calibration": VERSION, "model": self.model, **fitted, "about": self.about}


class CalibratedRecognizer:
    """A recogniser whose confidences are calibrated; in everything else it is the one inside."""

    def __init__(self, inner: Recognizer, calibration: Calibration) -> None:
        """Take the recogniser and what was fitted for it."""
        self.inner, self.calibration = inner, calibration

    def __getattr__(self, name: str) -> Any:
        """What only the recogniser inside has: its name, languages, `align`, `encode` …"""
        if name in ("inner", "calibration"):  # while unpickling
            raise AttributeError(name)
        return getattr(self.inner, name)

    def recognize(
        self, recordings: Sequence[Any], options: DecodingOptions, /, **more: Any
    ) -> Sequence[Recognition | Failure]:
        """Recognise, then calibrate."""
        results = self.inner.recognize(recordings, options, **more)
        return [self.calibration.apply(r) if isinstance(r, Recognition) else r for r in results]


def read_calibration(path: str | Path) -> Calibration | None:
    """Read the calibration of a model.

    Args:
        path: the file, or the model folder that it may lie in.

    Returns:
        The calibration, or None if there is no such file.

    Raises:
        CheckpointError: it is there and is no calibration.
    """
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    if not file.is_file():
        return None
    advice = "fit it again with `vermilion calibrate`, or delete it"
    try:
        if file.stat().st_size > MOST_BYTES:
            raise CheckpointError(f"{file} is too large for a calibration: {advice}")
        return _parsed(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OptionsError) as error:
        raise CheckpointError(f"{file} is no calibration ({error}): {advice}") from error


def write_calibration(folder: str | Path, calibration: Calibration) -> Path:
    """Write the calibration of a model beside it, whole or not at all.

    Returns:
        The file.
    """
    file = Path(folder) / FILE
    part = file.with_name(FILE + ".part")
    part.write_text(json.dumps(calibration.to_dict(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    part.replace(file)
    return file


def _parsed(data: Any) -> Calibration:
    version = data["vermilion_calibration"]
    if version != VERSION:
        raise ValueError(f"version {version!r} is not {VERSION}")
    curves = {name: _curve(data[name]) for name in ("utterance", "word") if name in data}
    return Calibration(**curves, model=str(data.get("model", "")), about=dict(data.get("about", {})))


def _curve(data: Any) -> ConfidenceCurve:
    if data["method"] == "temperature":
        return ConfidenceCurve("temperature", float(data["temperature"]))
    x, y = (tuple(float(v) for v in data[name]) for name in ("x", "y"))
    return ConfidenceCurve(data["method"], x=x, y=y)
