"""What requests and responses look like, for the OpenAPI description."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class ErrorDetail(BaseModel):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """Every error looks like this."""

    error: ErrorDetail


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Responses of a route that tell of errors."""
    return {status: {"model": ErrorBody, "description": MEANINGS[status]} for status in statuses}


MEANINGS = {
    400: "the request or the recording cannot be used",
    401: "no key, or not one of this server's",
    403: "not allowed here",
    404: "no such thing",
    405: "no such method",
    408: "the upload came too slowly",
    409: "not finished yet",
    413: "too large or too long",
    415: "wrong content type",
    429: "too many requests of one client; see Retry-After",
    500: "failed inside",
    501: "this server has no such model",
    503: "overloaded or not ready; see Retry-After",
}
ERRORS = errors(400, 401, 403, 404, 408, 413, 415, 429, 500, 501, 503)
"""for `responses=` of routes that take uploads"""


class Usage(BaseModel):
    """What OpenAI would charge for."""

    type: Literal["duration"]
    seconds: int


class Logprob(BaseModel):
    """A word and the logarithm of its confidence."""

    token: str
    logprob: float
    bytes: list[int]


class Transcription(BaseModel):
    """`json`."""

    text: str
    logprobs: list[Logprob] | None = None
    usage: Usage


class TimedWord(BaseModel):
    """A word with its time in seconds."""

    word: str
    start: float
    end: float


class TranscriptionSegment(BaseModel):
    """A sentence, in the shape of Whisper's segments."""

    id: int
    seek: int = Field(description="start in frames of 10 ms")
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    flags: list[str] | None = Field(default=None, description="remarks on the text, such as repetition; not OpenAI's")


class TranscriptionVerbose(BaseModel):
    """`verbose_json`."""

    task: Literal["transcribe"]
    language: str = Field(description="name of the language of most of the speech, such as english")
    duration: float
    text: str
    segments: list[TranscriptionSegment] | None = None
    words: list[TimedWord] | None = None
    usage: Usage


class DiarizedSegment(BaseModel):
    """A sentence and its speaker."""

    type: Literal["transcript.text.segment"]
    id: str
    start: float
    end: float
    text: str
    speaker: str = Field(description="A, B …: the channel; recordings of one channel have only A")


class TranscriptionDiarized(BaseModel):
    """`diarized_json`."""

    task: Literal["transcribe"]
    duration: float
    text: str
    segments: list[DiarizedSegment]
    usage: Usage


class Model(BaseModel):
    """A name that requests may give."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"]
    data: list[Model]


class TimeSpan(BaseModel):
    """A stretch of time in seconds."""

    start: float
    end: float


class Segments(BaseModel):
    """Where somebody speaks."""

    duration: float
    segments: list[TimeSpan]


class LabelledSpan(TimeSpan):
    """What is heard there."""

    label: Literal["speech", "singing", "music"] | str


class Events(BaseModel):
    """Speech, singing, music."""

    duration: float
    events: list[LabelledSpan]
    ratios: dict[str, float] = Field(description="share of the recording in which each is heard")


class LanguageSegment(TimeSpan):
    """The language of a segment of speech."""

    language: str
    dialect: str | None = None
    confidence: float


class Languages(BaseModel):
    """The languages of a recording."""

    duration: float
    language: str | None = Field(description="that of most of the speech; null without speech")
    dialect: str | None = None
    confidence: float
    segments: list[LanguageSegment]


class PunctuateRequest(BaseModel):
    """Text without marks."""

    text: str | list[str] = Field(description="one text or several")


class PunctuateResponse(BaseModel):
    """The same with marks and casing."""

    text: str | list[str]


class Health(BaseModel):
    """The server's state."""

    status: Literal["ok", "stopping", "starting"]


class ServerLimits(BaseModel):
    """What one request may hold."""

    upload_bytes: int
    audio_seconds: float
    request_seconds: float


class ServerInfo(BaseModel):
    """What is here."""

    version: str
    models: dict[str, str]
    languages: list[str] | None = Field(description="codes that are recognised; null = any")
    limits: ServerLimits
    auth: bool = Field(description="a key is needed")


FILE = {"type": "string", "format": "binary", "description": "the recording: any audio or video file"}


def form_of(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """`openapi_extra` of a route that takes a multipart form."""
    schema = {"type": "object", "required": required, "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def transcription_form(formats: tuple[str, ...]) -> dict[str, Any]:
    """The form of a transcription."""
    return form_of(
        {
            "file": FILE,
            "model": {"type": "string", "minLength": 1, "description": "one of GET /v1/models", "example": "vermilion"},
            "language": {"type": "string", "description": "such as en; identified where it is not given"},
            "response_format": {"type": "string", "enum": list(formats), "default": "json"},
            "timestamp_granularities[]": {
                "type": "array",
                "items": {"type": "string", "enum": ["word", "segment"]},
                "description": "only with verbose_json; segment if it is not given",
            },
            "include[]": {"type": "array", "items": {"type": "string", "enum": ["logprobs"]}},
            "stream": {"type": "boolean", "default": False, "description": "server-sent events"},
            "temperature": {"type": "number", "minimum": 0, "maximum": 1, "description": "changes nothing here"},
            "prompt": {"type": "string", "description": "changes nothing here"},
        },
        ["file", "model"],
    )
