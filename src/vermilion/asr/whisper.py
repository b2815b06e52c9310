"""Whisper as a recogniser (Radford et al. 2022), through faster-whisper: the starter set, and other languages.

It answers for 99 languages, writes marks and casing itself, and hears no more than 30 s at once.
"""

from __future__ import annotations

import hashlib
import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vermilion.asr.whisper_guard import guarded
from vermilion.decoding.options import DecodingOptions
from vermilion.errors import ModelError, VermilionError
from vermilion.languages import WHISPER_CODES, whisper_code
from vermilion.scripts import begins_word, words_of
from vermilion.text import join_texts
from vermilion.transcript import Failure, Hypothesis, Recognition, Word

if TYPE_CHECKING:
    import numpy as np
    from faster_whisper import WhisperModel
    from numpy.typing import NDArray

    from vermilion.audio import AudioInput

_ALIASES = frozenset({"iw", "jv", "fil", "nb", "cmn", "yue", "in", "ji"})
_LABELS = {"he": "iw"}
LANGUAGES = WHISPER_CODES | _ALIASES
"""codes that the recogniser takes: Whisper's own and what FireRedLID calls the same languages"""

WINDOW_SECONDS = 28.0
"""longer audio is cut at its quietest points: one window of Whisper has 30 s"""
SHORTEST_SECONDS = 0.1
SILENCE = 1e-4
"""root mean square (-80 dBFS) below which nothing is asked: Whisper invents words for silence"""
WINDOW = 30
"""seconds that the encoder reads"""
EARLY = 0.04
"""seconds by which Whisper's word times run ahead: measured on words whose times are known (benchmarks/real)"""
REMEMBERED = 32
"""encoder outputs that are kept, of 3 MB each: the segments of a batch are identified before they are recognised"""
SIMPLIFIED_PROMPT = "以下是普通话的句子。"
"""makes Whisper write simplified characters and Chinese marks; without it, it wrote 換一首歌 and no marks at all"""
_TOKENS_PER_SECOND = 40  # fast speech in scripts that take three tokens a letter (Thai, Burmese)
_MOST_TOKENS = 400  # of the 448 positions, the prompt takes some
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WIDE_MARKS = {",": "，", "?": "？", "!": "！", ":": "：", ";": "；", ".": "。"}
_NARROW_AFTER_HAN = re.compile(f"(?<=[{_HAN}])([,?!:;.])[ ]?(?![0-9A-Za-z])")


def label_code(code: str) -> str:
    """Return what FireRedLID calls the language of a Whisper code: "he" → "iw"."""
    return _LABELS.get(code, code)


class RememberedEncoder:
    """Whisper's encoder with the newest outputs kept: the language of a segment and its text ask for the same one."""

    def __init__(self, encode: Callable[[NDArray[np.float32]], Any], most: int = REMEMBERED) -> None:
        """Take the encoder, and how many outputs are kept."""
        self._encode, self._most = encode, most
        self._known: OrderedDict[bytes, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, features: NDArray[np.float32]) -> Any:
        """Output for (80, 3000) features."""
        key = hashlib.blake2b(features.tobytes(), digest_size=16).digest()
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        found = self._encode(features)
        with self._lock:
            self._known[key] = found
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return found


class WhisperRecognizer:
    """Recognises speech with a Whisper model; the n best and FireRed's scoring options do not apply to it.

    Of `DecodingOptions` it reads `beam_size` (one unless `search` is "beam"), `max_tokens` and `timestamps`.
    Decoding never samples, so that a result does not depend on chance or on other recordings.
    """

    languages = LANGUAGES
    punctuates = True
    uses_language = True

    def __init__(self, model: WhisperModel, name: str = "Whisper-base") -> None:
        """Take a loaded model, which a `WhisperLanguageIdentifier` may share."""
        self.model = model
        self.name = name

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path | None = None,
        device: str = "cpu",
        precision: str = "auto",
        threads: int | None = None,
    ) -> WhisperRecognizer:
        """Load a model.

        Args:
            folder: Whisper in CTranslate2's format; None = Whisper-base of the starter set.
            device: "cpu", "cuda" or "cuda:1".
            precision: "int8", "float32", "float16" …; "auto" = int8 on a CPU, else float16.
            threads: CPU threads; None = the library's choice.

        Raises:
            MissingDependencyError: the starter set is not installed.
            CheckpointError: the folder holds no such model.
        """
        from vermilion.checkpoints.starter import load_whisper

        model = load_whisper(folder, device, precision, threads)
        model.encode = RememberedEncoder(model.encode)
        return cls(model) if folder is None else cls(model, name=Path(folder).name)

    def recognize(
        self,
        recordings: Sequence[AudioInput],
        options: DecodingOptions | None = None,
        /,
        languages: Sequence[str | None] | None = None,
    ) -> list[Recognition | Failure]:
        """Recognise each recording by itself.

        Args:
            recordings: anything that `vermilion.audio.load_audio` reads.
            options: how to search.
            languages: language of each recording where it is known, in FireRedLID's or Whisper's codes; None or a
                code that Whisper lacks = Whisper finds out.

        Returns:
            One entry per recording, in order; `alternatives` holds the best reading only.

        Raises:
            ValueError: `languages` has another length than `recordings`.
        """
        from vermilion.audio import describe

        results: list[Recognition | Failure] = []
        hints = languages if languages is not None else [None] * len(recordings)
        for source, language in zip(recordings, hints, strict=True):
            try:
                results.append(self._one(source, options or DecodingOptions(), language))
            except VermilionError as error:
                results.append(Failure(describe(source), error, "asr"))
        return results

    def _one(self, source: AudioInput, options: DecodingOptions, language: str | None) -> Recognition:
        from vermilion.audio import SAMPLE_RATE, load_audio, quiet_cuts

        samples = load_audio(source)
        known = whisper_code(language) if language else None
        if is_silent(samples):
            return Recognition("", 0.0, language=label_code(known) if known else None, model=self.name)
        code = known or detect(self.model, samples)[0][0]
        cuts = quiet_cuts(samples, WINDOW_SECONDS) if len(samples) > WINDOW_SECONDS * SAMPLE_RATE else []
        bounds = [0, *cuts, len(samples)]
        windows = [(a, b, *self._window(samples[a:b], options, code)) for a, b in pairwise(bounds)]
        heard = [(a / SAMPLE_RATE, (b - a) / SAMPLE_RATE, segment) for a, b, kept, _ in windows for segment in kept]
        flags = list(dict.fromkeys(flag for *_, found in windows for flag in found))
        text = join_texts(_wide_marks(str(segment.text).strip(), code) for _, _, segment in heard)
        words = [w for start, length, segment in heard for w in _words(segment, code, start, length)]
        confidence = _confidence([segment for _, _, segment in heard])
        best = [Hypothesis(text, confidence)] if text else []
        doubt = _doubt([segment for _, _, segment in heard])
        return Recognition(text, confidence, [], words, best, label_code(code), self.name, flags, *doubt)

    def _window(self, samples: NDArray[np.float32], options: DecodingOptions, code: str) -> tuple[list[Any], list[str]]:
        """Decode at most 30 s: the segments with text, and flags; a loop is tried again without repeats."""
        if is_silent(samples):
            return [], []
        found = self._decode(samples, options, code)
        if not options.guards:
            return [s for s in found if s.text.strip()], []
        timed = replace(options, timestamps=True)
        return guarded(
            found,
            len(samples) / 16000,
            lambda: found if options.timestamps else self._decode(samples, timed, code),
            lambda: self._decode(samples, timed, code, no_repeat_ngram_size=3, condition=False),
        )

    def _decode(
        self,
        samples: NDArray[np.float32],
        options: DecodingOptions,
        code: str,
        *,
        no_repeat_ngram_size: int = 0,
        condition: bool = True,
    ) -> list[Any]:
        limit = options.max_tokens or 20 + math.ceil(_TOKENS_PER_SECOND * len(samples) / 16000)
        try:
            segments, _ = self.model.transcribe(
                samples,
                language=code,
                beam_size=options.beam_size if options.search == "beam" else 1,
                temperature=0.0,  # the published fallback samples at rising temperatures: results would vary
                condition_on_previous_text=False,
                initial_prompt=SIMPLIFIED_PROMPT if code == "zh" and condition else None,
                without_timestamps=True,  # one window, one text
                word_timestamps=options.timestamps,
                no_repeat_ngram_size=no_repeat_ngram_size,
                max_new_tokens=min(limit, _MOST_TOKENS),
                no_speech_threshold=0.6,
                log_prob_threshold=-0.7,  # stricter than the published -1.0, which let "You" pass for a quiet hiss
                vad_filter=False,
            )
            # The generator would look again at what lies behind the last word, which is padding, and invent text there.
            first = next(iter(segments), None)
            return [] if first is None else [first]
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{self.name} failed on {len(samples) / 16000:.1f} s of audio: {error}") from error


def is_silent(samples: NDArray[np.float32]) -> bool:
    """Tell whether there is nothing worth asking a Whisper model about: (n,) samples at 16 kHz."""
    import numpy as np

    if len(samples) < SHORTEST_SECONDS * 16000:
        return True
    return bool(np.sqrt(np.mean(np.square(samples, dtype=np.float64))) < SILENCE)


def detect(model: WhisperModel, samples: NDArray[np.float32]) -> list[tuple[str, float]]:
    """Return (Whisper code, probability) of every language, the likeliest first, from the first 30 s at most.

    Raises:
        ModelError: the network failed.
    """
    try:
        features = model.feature_extractor(samples[: WINDOW * 16000])
        # recognition leaves the last frame out: with the same features both share one pass of the encoder
        _, _, found = model.detect_language(features=features[:, :-1])
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"Whisper failed to identify the language: {error}") from error
    return sorted(((code, float(p)) for code, p in found), key=lambda pair: -pair[1])


def _confidence(segments: list[Any]) -> float:
    """Mean word probability, or the mean token's without times; weighted over segments by their length."""
    words = [float(w.probability) for s in segments for w in s.words or []]
    if words:
        return sum(words) / len(words)
    counts = [max(len(s.tokens), 1) for s in segments]
    likelihoods = [math.exp(s.avg_logprob) for s in segments]
    return sum(c * p for c, p in zip(counts, likelihoods, strict=True)) / sum(counts) if counts else 0.0


def _doubt(segments: list[Any]) -> tuple[float | None, float | None]:
    """Mean log-probability of the tokens, and the least probability of silence of any window."""
    if not segments:
        return None, None
    counts = [max(len(s.tokens), 1) for s in segments]
    total = sum(c * float(s.avg_logprob) for c, s in zip(counts, segments, strict=True))
    return total / sum(counts), min(float(s.no_speech_prob) for s in segments)


def _wide_marks(text: str, code: str) -> str:
    """Whisper puts ASCII marks behind Chinese characters: "你好,世界" → "你好，世界"."""
    return _NARROW_AFTER_HAN.sub(lambda m: _WIDE_MARKS[m[1]], text) if code == "zh" else text


def _words(segment: Any, code: str, offset: float, length: float) -> list[Word]:
    """Words of a segment with times on the recording; Chinese and Japanese by the character, Thai by the syllable."""
    pieces: list[Word] = []
    for word in segment.words or []:
        start, end = (min(max(float(t) + EARLY, 0.0), length) for t in (word.start, word.end))
        pieces += _parted(Word(str(word.word), start, max(start, end), float(word.probability)))
    return [
        Word(_wide_marks(p.text.strip(), code), round(offset + p.start, 3), round(offset + p.end, 3), p.confidence)
        for p in _joined(pieces)
    ]


def _parted(word: Word) -> list[Word]:
    """Split "世界。" into "世" and "界。", each with its share of the time; leave other words whole."""
    parts = words_of(word.text)
    if len(parts) < 2:
        return [word]
    edges = [0, *accumulate(max(1, sum(map(str.isalnum, p))) for p in parts)]
    step = (word.end - word.start) / edges[-1]
    times = [word.start + edge * step for edge in edges]
    return [Word(p, a, b, word.confidence) for p, (a, b) in zip(parts, pairwise(times), strict=True)]


def _joined(pieces: list[Word]) -> list[Word]:
    """Put together what belongs to one word: pieces without a space between them ("3" ",5", letters of a syllable)."""
    text, at = "".join(piece.text for piece in pieces), 0
    words: list[Word] = []
    for piece in pieces:
        bare = piece.text.strip()
        first = at + len(piece.text) - len(piece.text.lstrip())
        at += len(piece.text)
        if not bare:
            continue
        apart = first > 0 and (text[first - 1].isspace() or begins_word(text, first))
        if not words or (apart and any(c.isalnum() for c in bare)):
            words.append(piece)
        else:
            words[-1] = _merged(words[-1], piece)
    return words


def _merged(left: Word, right: Word) -> Word:
    confidence = None
    if left.confidence is not None and right.confidence is not None:
        a, b = len(left.text.strip()), len(right.text.strip())
        confidence = (left.confidence * a + right.confidence * b) / (a + b)
    return Word(left.text + right.text.rstrip(), left.start, max(left.end, right.end), confidence)
