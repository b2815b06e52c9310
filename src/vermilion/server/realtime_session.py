"""What a client of OpenAI's realtime transcription configures, in the present shape and in that of the beta."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vermilion.live.options import LiveOptions
from vermilion.server.errors import RequestError

BETA_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
BETA_FIELDS = {
    "input_audio_format": "format",
    "input_audio_transcription": "transcription",
    "turn_detection": "turn_detection",
}
BETA_NAMES = {kind: name for name, kind in BETA_FORMATS.items()}
RATE, TELEPHONE_RATE = 24000, 8000
TEXT_MOST = 4096
EAGERNESS_MS = {"low": 1000, "high": 300}
"""silence that ends an utterance for those who ask for `semantic_vad`"""
MOST_MS = 60_000
PADDING_MOST_MS = 3000


@dataclass(frozen=True)
class Turns:
    """When an utterance ends (`server_vad`)."""

    threshold: float = 0.5
    """probability from which sound is speech"""
    prefix_padding_ms: int = 50
    """audio before the speech that belongs to it; at most 3000 are kept"""
    silence_duration_ms: int = 500

    def shown(self) -> dict[str, Any]:
        """As the server tells it."""
        return {"type": "server_vad", **vars(self)}


@dataclass(frozen=True)
class Session:
    """What the client has configured."""

    kind: str = "audio/pcm"
    rate: int = RATE
    model: str | None = None
    language: str | None = None
    prompt: str | None = None
    """taken, and changes nothing"""
    turns: Turns | None = Turns()
    """None = the client commits"""

    @property
    def samples_per_second(self) -> int:
        """Telephones have 8000."""
        return self.rate if self.kind == "audio/pcm" else TELEPHONE_RATE

    @property
    def stream(self) -> tuple[object, ...]:
        """What cannot change within a stream of audio."""
        return self.kind, self.samples_per_second, self.language, self.turns

    def live_options(self) -> LiveOptions:
        """When an utterance ends."""
        turns = self.turns or Turns()
        return LiveOptions(
            silence_ms=max(20, min(10_000, turns.silence_duration_ms)),
            threshold=turns.threshold,
            padding_ms=min(PADDING_MOST_MS, turns.prefix_padding_ms),
            events=False,
        )

    def shown(self, id: str, beta: bool) -> dict[str, Any]:
        """As the server tells it."""
        transcription = {"model": self.model, "language": self.language, "prompt": self.prompt or ""}
        turns = self.turns.shown() if self.turns is not None else None
        if beta:
            return {
                "id": id,
                "object": "realtime.transcription_session",
                "input_audio_format": BETA_NAMES[self.kind],
                "input_audio_transcription": transcription,
                "turn_detection": turns,
            }
        form = {"type": self.kind} | ({"rate": self.rate} if self.kind == "audio/pcm" else {})
        audio = {"format": form, "transcription": transcription, "noise_reduction": None, "turn_detection": turns}
        return {
            "type": "transcription",
            "object": "realtime.transcription_session",
            "id": id,
            "audio": {"input": audio},
            "include": None,
        }


def configure(before: Session, value: Any) -> Session:
    """Read the `session` of an update in either shape; what it leaves out stays.

    Raises:
        RequestError: something in it cannot be.
    """
    session = _object(value, "session")
    if session.get("type", "transcription") != "transcription":
        raise _invalid("only sessions of the type transcription are served", "session.type")
    given = _flat(session) | _object(_object(session.get("audio"), "session.audio").get("input"), "session.audio.input")
    found = before if given.get("format") is None else _with_format(before, given["format"])
    found = _with_transcription(found, _object(given.get("transcription"), "transcription"))
    return replace(found, turns=_turns(given["turn_detection"])) if "turn_detection" in given else found


def _flat(session: Mapping[str, Any]) -> dict[str, Any]:
    """The beta's fields, by their present names."""
    return {new: session[old] for old, new in BETA_FIELDS.items() if old in session}


def _with_format(session: Session, value: Any) -> Session:
    form = {"type": value} if isinstance(value, str) else _object(value, "format")
    kind, rate = form.get("type"), form.get("rate")
    kind = BETA_FORMATS.get(kind, kind) if isinstance(kind, str) else kind
    if kind not in list(BETA_NAMES):  # it may be no text
        raise _invalid("the audio format must be audio/pcm, audio/pcmu or audio/pcma", "format")
    if kind != "audio/pcm" or rate is None:
        rate = RATE
    if not isinstance(rate, int) or not 8000 <= rate <= 48_000:
        raise _invalid("the rate must lie between 8000 and 48000", "format.rate")
    return replace(session, kind=kind, rate=rate)


def _with_transcription(session: Session, given: Mapping[str, Any]) -> Session:
    known = {name: given[name] for name in ("model", "language", "prompt") if given.get(name) is not None}
    if not all(isinstance(text, str) and len(text) <= TEXT_MOST for text in known.values()):
        raise _invalid(f"model, language and prompt are texts of at most {TEXT_MOST} characters", "transcription")
    return replace(session, **known)


def _turns(value: Any) -> Turns | None:
    if value is None:
        return None
    given = _object(value, "turn_detection")
    kind = given.get("type", "server_vad")
    if kind == "semantic_vad":
        return Turns(silence_duration_ms=EAGERNESS_MS.get(str(given.get("eagerness")), Turns.silence_duration_ms))
    if kind != "server_vad":
        raise _invalid("turn_detection is null or has the type server_vad", "turn_detection")
    threshold = _number(given, "threshold", Turns.threshold, 1)
    padding = _number(given, "prefix_padding_ms", Turns.prefix_padding_ms, MOST_MS)
    silence = _number(given, "silence_duration_ms", Turns.silence_duration_ms, MOST_MS)
    return Turns(threshold, int(padding), int(silence))


def _number(given: Mapping[str, Any], name: str, default: float, most: float) -> float:
    value = default if given.get(name) is None else given[name]
    if not isinstance(value, int | float) or not 0 <= value <= most:
        raise _invalid(f"{name} must lie between 0 and {most:g}", f"turn_detection.{name}")
    return value


def _object(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _invalid(f"{name} must be an object", name)
    return value


def _invalid(message: str, param: str) -> RequestError:
    return RequestError(message, code="invalid_value", param=param)
