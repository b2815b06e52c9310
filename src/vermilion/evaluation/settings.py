"""Precisions and searches side by side on the same recordings: error rate, agreement, encoder error, speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from vermilion.decoding.options import DecodingOptions
from vermilion.errors import AudioError, FormatError, ManifestError, OptionsError
from vermilion.evaluation.recognition import gathered, score_utterance
from vermilion.manifests import BYTES, KALDI_WAVES, Utterance, read_manifest
from vermilion.transcript import Recognition

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vermilion.pipeline import PipelineOptions

Audio: TypeAlias = "Path | NDArray[np.float32]"
Precision = Literal["auto", "float32", "bfloat16", "float16", "int8"]
ENCODED = 5
"""recordings whose encoder output is compared"""
ENCODED_SECONDS = 30.0
"""of each so much"""


@dataclass(frozen=True)
class Sample:
    """A recording and, where it is known, what is said in it."""

    path: Path
    text: str | None = None
    utterance: Utterance | None = None
    """where it is only a stretch of a recording, or a part of a file"""

    def audio(self) -> Path | NDArray[np.float32]:
        """What a recogniser takes; a stretch that cannot be read is left to the recogniser to refuse."""
        if self.utterance is None:
            return self.path
        with suppress(AudioError, ManifestError):
            return self.utterance.load()
        return Path(f"{self.path} ({self.utterance.id})")


@dataclass(frozen=True)
class Setting:
    """One way to run the recogniser."""

    precision: str
    search: str

    def __str__(self) -> str:
        return f"{self.precision} {self.search}"


@dataclass(frozen=True)
class Comparison:
    """What one setting gave."""

    setting: Setting
    error_rate: float | None
    """character error rate against the references; None without references"""
    difference: float
    """character error rate against the first setting"""
    changed: int
    """recordings whose text differs from the first setting's"""
    encoder_error: float | None
    """relative error of the encoder's output against float32; None if the recogniser shows no encoder"""
    speed: float
    """seconds of audio per second"""
    failures: int


def read_samples(path: str | Path) -> list[Sample]:
    """Read a list of recordings: a manifest, or per line a path and, after a tab, the text.

    Args:
        path: a manifest (JSON lines, a Kaldi folder), or UTF-8 text: relative paths count from its folder; empty lines
            and lines with # are passed over.

    Raises:
        FormatError: the file cannot be read or names no recording.
        ManifestError: (a manifest) the same, or a line is no entry.
    """
    file = Path(path)
    if _is_manifest(file):
        return [_sample(utterance) for utterance in read_manifest(file)]
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"cannot read the list {file}: {error}") from error
    found = []
    for line in lines:
        name, tab, text = line.partition("\t")
        if name.strip() and not name.startswith("#"):
            found.append(Sample(file.parent / name.strip(), text.strip() if tab else None))
    if not found:
        raise FormatError(f"{file} names no recording; each line is a path, a tab and the text")
    return found


def _is_manifest(file: Path) -> bool:
    """Whether a file is one, by its beginning."""
    if file.is_dir() or file.name == KALDI_WAVES or file.suffix == ".gz":
        return True
    try:
        with file.open("rb") as start:
            return start.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")
    except OSError:
        return False


def _sample(utterance: Utterance) -> Sample:
    part = utterance.offset or utterance.duration is not None or BYTES in utterance.extra
    return Sample(Path(utterance.audio), utterance.text, utterance if part else None)


def compare(
    samples: Sequence[Sample],
    settings: Sequence[Setting],
    models: str | Path | None = None,
    options: PipelineOptions | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Comparison]:
    """Recognise the same recordings in several settings; models are loaded once per precision.

    Args:
        samples: recordings.
        settings: the first is what the others are compared with.
        models: as for `load`.
        options: device, threads and options of the search.
        progress: told what is done.

    Raises:
        OptionsError: no settings, or one that the recogniser cannot do.
        CheckpointError: the models are missing.
    """
    from vermilion.loading import load_recognizer
    from vermilion.pipeline import PipelineOptions

    if not settings or not samples:
        raise OptionsError("nothing to compare: give recordings and at least one setting")
    options = options or PipelineOptions()
    texts: dict[Setting, list[str | None]] = {}
    spent: dict[Setting, float] = {}
    encoded: dict[str, list[NDArray[np.float32]]] = {}
    audio = [sample.audio() for sample in samples]
    precisions = list(dict.fromkeys(s.precision for s in settings))
    for precision in (
        precisions if precisions[0] == "float32" else ["float32", *(p for p in precisions if p != "float32")]
    ):
        recognizer = load_recognizer(models, options=replace(options, precision=cast(Precision, precision)))
        encoded[precision] = _encoded(recognizer, audio[:ENCODED])
        for setting in settings:
            if setting.precision == precision:
                progress(str(setting))
                texts[setting], spent[setting] = _run(
                    recognizer, audio, replace(options.decoding, search=setting.search)
                )
        del recognizer
    seconds = _duration(audio)
    return [_comparison(s, settings[0], samples, texts, encoded, seconds / spent[s]) for s in settings]


def _run(recognizer: Any, audio: Sequence[Audio], decoding: DecodingOptions) -> tuple[list[str | None], float]:
    start = time.perf_counter()
    results = recognizer.recognize(audio, decoding)
    spent = max(time.perf_counter() - start, 1e-9)
    return [r.text if isinstance(r, Recognition) else None for r in results], spent


def _duration(audio: Sequence[Audio]) -> float:
    """Seconds of all recordings that can be read."""
    from vermilion.audio import load_audio
    from vermilion.errors import AudioError

    total = 0.0
    for path in audio:
        try:
            total += len(load_audio(path)) / 16000
        except AudioError:
            continue
    return total


def _encoded(recognizer: Any, audio: Sequence[Audio]) -> list[NDArray[np.float32]]:
    """Encoder output of the beginning of some recordings."""
    from vermilion.audio import load_audio
    from vermilion.errors import AudioError

    if not hasattr(recognizer, "encode"):
        return []
    found = []
    for path in audio:
        try:
            frames, lengths = recognizer.encode([load_audio(path)[: int(ENCODED_SECONDS * 16000)]])
        except AudioError:
            continue
        found.append(frames[0, : int(lengths[0])].float().cpu().numpy())
    return found


def _comparison(
    setting: Setting,
    first: Setting,
    samples: Sequence[Sample],
    texts: dict[Setting, list[str | None]],
    encoded: dict[str, list[NDArray[np.float32]]],
    speed: float,
) -> Comparison:
    own, base = texts[setting], texts[first]
    references = [s.text for s in samples]
    both = [(a or "", b or "") for a, b in zip(base, own, strict=True)]
    return Comparison(
        setting,
        _rate([(r, t or "") for r, t in zip(references, own, strict=True) if r is not None]),
        _rate(both) or 0.0,
        sum(a != b for a, b in both),
        _relative(encoded["float32"], encoded[setting.precision]),
        speed,
        sum(t is None for t in own),
    )


def _rate(pairs: Sequence[tuple[str, str]]) -> float | None:
    if not pairs:
        return None
    scored = [score_utterance("", reference, got, unit="character") for reference, got in pairs]
    total = gathered(scored).counts
    return total.rate if total.length else float(total.errors > 0)


def _relative(exact: Sequence[NDArray[np.float32]], got: Sequence[NDArray[np.float32]]) -> float | None:
    import numpy as np

    if not exact:
        return None
    error = sum(float(np.square(a - b).sum()) for a, b in zip(got, exact, strict=True))
    return float(np.sqrt(error / sum(float(np.square(b).sum()) for b in exact)))
