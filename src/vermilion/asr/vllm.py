"""FireRedASR2-LLM by vLLM: in this process, or over HTTP on a server that somebody started.

vLLM decodes greedily here; of `DecodingOptions` the token limits, `repetition_penalty` and `timestamps` are read.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from vermilion.asr.aligner import CtcAligner
from vermilion.asr.llm import LANGUAGES, MOST_SECONDS, checked
from vermilion.asr.long_form import gathered, pieces_of
from vermilion.asr.prompt import prompt_text
from vermilion.decoding.guards import text_without_loops
from vermilion.encoding import Utterance, read_utterances
from vermilion.errors import ModelError, OptionsError, missing
from vermilion.flags import REPETITION
from vermilion.transcript import Failure, Hypothesis, Recognition, Token

if TYPE_CHECKING:
    from vermilion.audio import AudioInput
from vermilion.decoding.options import DecodingOptions

AUDIO = "<|AUDIO|>"
"""vLLM's placeholder of the speech"""
TOKENS_PER_SECOND = 12.5
"""vectors of speech per second: the limit on new tokens where none is given"""
SHORTEST_SAMPLES = 400 + 7 * 160
"""audio with less than one vector is not sent"""
TIMEOUT = 120.0
"""seconds that an answer may take"""
REQUESTS = 32
"""requests on their way at once: the server makes batches of them"""
LARGEST_ANSWER = 1 << 20


@dataclass(frozen=True)
class Answer:
    """What vLLM wrote."""

    text: str
    tokens: list[Token] = field(default_factory=list)
    """with probabilities, where the engine tells them"""


class Engine(Protocol):
    """Answers for pieces of audio."""

    def answer(self, pieces: Sequence[NDArray[np.float32]], options: DecodingOptions) -> list[Answer | ModelError]:
        """Return one entry per piece, in order."""


class VllmRecognizer:
    """FireRedASR2-LLM with the language model in vLLM's hands."""

    punctuates = False
    languages = LANGUAGES
    name = "FireRedASR2-LLM (vLLM)"

    def __init__(self, engine: Engine, aligner: CtcAligner | None = None) -> None:
        """Take the engine, and what gives words their times (None = no times)."""
        self.engine, self.aligner = engine, aligner

    def recognize(
        self, recordings: Sequence[AudioInput], /, options: DecodingOptions | None = None
    ) -> list[Recognition | Failure]:
        """Recognise recordings, as `LlmRecognizer.recognize`; a request that fails costs its own recording only."""
        options = checked(options)
        read = read_utterances(recordings, "asr")
        longest = min(options.max_segment_seconds, MOST_SECONDS)
        pieces = [pieces_of(u.samples, longest) if isinstance(u, Utterance) else [] for u in read]
        flat = [samples for cut in pieces for _, samples in cut]
        heard = [i for i, samples in enumerate(flat) if len(samples) >= SHORTEST_SAMPLES]
        answers: list[Recognition | ModelError] = [Recognition("", 0.0, model=self.name) for _ in flat]
        for i, answer in zip(heard, self.engine.answer([flat[i] for i in heard], options), strict=True):
            answers[i] = answer if isinstance(answer, ModelError) else self._recognition(answer, flat[i], options)
        return gathered(recordings, read, pieces, answers)

    def _recognition(
        self, answer: Answer, samples: NDArray[np.float32], options: DecodingOptions
    ) -> Recognition | ModelError:
        text, flags = answer.text.strip().lower(), []
        if options.guards and (cut := text_without_loops(text, len(samples) / 16000)) != text:
            text, flags = cut, [REPETITION]
        words = []
        if self.aligner is not None and options.timestamps and text:
            try:
                words = self.aligner.words(text, self.aligner.posteriors(samples), len(samples) / 16000) or []
            except ModelError as error:
                return error
        chances = [t.probability for t in answer.tokens] or [w.confidence for w in words if w.confidence is not None]
        confidence = sum(chances) / len(chances) if chances else 0.0
        best = Hypothesis(text, confidence, answer.tokens)
        return Recognition(text, confidence, answer.tokens, words, [best], model=self.name, flags=flags)


def token_limit(samples: NDArray[np.float32], options: DecodingOptions) -> int:
    """Most new tokens of a piece."""
    return options.max_tokens or max(1, int(TOKENS_PER_SECOND * len(samples) / 16000))


class OfflineEngine:
    """vLLM in this process."""

    def __init__(self, folder: str | Path, *, precision: str = "auto", gpus: int = 1, context: str = "") -> None:
        """Load a folder in vLLM's layout (`vermilion convert --to vllm` makes one).

        Args:
            folder: the folder, or the name of a repository on a hub.
            precision: "auto", "bfloat16", "float16" or "float32".
            gpus: the language model is spread over so many.
            context: names and terms that may occur, for the prompt.

        Raises:
            MissingDependencyError: vLLM is not installed.
            ModelError: it cannot load the model.
        """
        try:
            from vllm import LLM, SamplingParams
        except ImportError as error:
            raise missing("this engine needs vLLM", "vllm", error) from error
        self.prompt, self._sampling = prompt_text(context, AUDIO), SamplingParams
        try:
            self.model: Any = LLM(
                model=str(folder), dtype=precision, tensor_parallel_size=gpus, limit_mm_per_prompt={"audio": 1}
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelError(f"vLLM cannot load {folder}: {error}") from error

    def answer(self, pieces: Sequence[NDArray[np.float32]], options: DecodingOptions) -> list[Answer | ModelError]:
        """Generate for all pieces; vLLM forms the batches."""
        try:
            found = self.model.generate(
                [self._request(samples) for samples in pieces],
                [self._sampled(samples, options) for samples in pieces],
                use_tqdm=False,
            )
        except (RuntimeError, ValueError) as error:
            if len(pieces) == 1:
                return [ModelError(f"vLLM failed: {error}")]
            return [answer for piece in pieces for answer in self.answer([piece], options)]
        return [self._answer(output.outputs[0]) for output in found]

    def _request(self, samples: NDArray[np.float32]) -> dict[str, Any]:
        return {"prompt": self.prompt, "multi_modal_data": {"audio": (samples, 16000)}}

    def _sampled(self, samples: NDArray[np.float32], options: DecodingOptions) -> Any:
        limit = token_limit(samples, options)
        return self._sampling(
            temperature=0.0,
            max_tokens=limit,
            min_tokens=min(options.min_tokens, limit),
            repetition_penalty=options.repetition_penalty,
            logprobs=0,
        )

    def _answer(self, output: Any) -> Answer:
        tokens = []
        written = output.token_ids[:-1] if output.finish_reason == "stop" else output.token_ids  # the last one ends it
        for i, chances in zip(written, output.logprobs or [], strict=False):
            chance = chances[i]
            tokens.append(Token(i, chance.decoded_token or "", float(np.exp(chance.logprob))))
        return Answer(output.text, tokens)


class HttpEngine:
    """A vLLM server (`vllm serve FOLDER`), by its transcription interface."""

    def __init__(self, url: str, *, api_key: str | None = None, timeout: float = TIMEOUT) -> None:
        """Ask the server which model it serves.

        Args:
            url: its address, such as http://127.0.0.1:8000.
            api_key: what it was started with, if anything.
            timeout: seconds that an answer may take.

        Raises:
            ModelError: no server answers there, or it serves no model.
            OptionsError: the address is none.
        """
        httpx = _client_library()
        if not _is_address(url):
            raise OptionsError(f"{url!r} is not the address of a server, such as http://127.0.0.1:8000")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.url = url.rstrip("/").removesuffix("/v1")
        self.client = httpx.Client(headers=headers, timeout=timeout, limits=httpx.Limits(max_connections=REQUESTS))
        listed = self._checked(lambda: self.client.get(f"{self.url}/v1/models"))
        try:
            self.model = str(listed["data"][0]["id"])
        except (KeyError, IndexError, TypeError) as error:
            raise ModelError(f"the server at {self.url} serves no model") from error

    def answer(self, pieces: Sequence[NDArray[np.float32]], options: DecodingOptions) -> list[Answer | ModelError]:
        """Send all pieces at once; the server forms the batches.

        Raises:
            OptionsError: a fewest number of tokens, which the interface does not know.
        """
        if options.min_tokens:
            raise OptionsError("a vLLM server takes no min_tokens: leave it at 0")

        def send(samples: NDArray[np.float32]) -> Answer | ModelError:
            try:
                return self._send(samples, options)
            except ModelError as error:
                return error

        with ThreadPoolExecutor(REQUESTS) as pool:
            return list(pool.map(send, pieces))

    def _send(self, samples: NDArray[np.float32], options: DecodingOptions) -> Answer:
        form = {
            "model": self.model,
            "language": "zh",  # the server wants one; the prompt is the same for all
            "response_format": "json",
            "temperature": "0",
            "repetition_penalty": str(options.repetition_penalty),
            "max_completion_tokens": str(token_limit(samples, options)),
        }
        file = {"file": ("speech.wav", _wav(samples), "audio/wav")}
        found = self._checked(lambda: self.client.post(f"{self.url}/v1/audio/transcriptions", data=form, files=file))
        text = found.get("text") if isinstance(found, dict) else None
        if not isinstance(text, str):
            raise ModelError(f"the server at {self.url} sent no text")
        return Answer(text)

    def _checked(self, request: Any) -> Any:
        """The JSON of an answer.

        Raises:
            ModelError: there is none.
        """
        httpx = _client_library()
        try:
            response = request()
        except httpx.HTTPError as error:
            reason = f"{error}; is `vllm serve` running?"
            raise ModelError(f"no answer from the vLLM server at {self.url}: {reason}") from error
        if response.status_code != 200:
            said = response.text[:300].strip()
            raise ModelError(f"the vLLM server at {self.url} refused (HTTP {response.status_code}): {said}")
        if len(response.content) > LARGEST_ANSWER:
            raise ModelError(f"the vLLM server at {self.url} sent {len(response.content)} bytes for a transcript")
        try:
            return response.json()
        except ValueError as error:
            raise ModelError(f"the vLLM server at {self.url} sent no JSON") from error


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that do not close
        return False


def _client_library() -> Any:
    try:
        import httpx
    except ImportError as error:
        raise missing("a vLLM server is asked through httpx", "llm", error) from error
    return httpx


def _wav(samples: NDArray[np.float32]) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16000, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
