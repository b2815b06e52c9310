"""Errors in OpenAI's shape, and which of our exceptions becomes which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vermilion.errors import (
    AudioError,
    AudioLimitError,
    FormatError,
    MissingDependencyError,
    OptionsError,
    UnsupportedLanguageError,
    VermilionError,
)


class RequestError(VermilionError):
    """A request cannot be served; carries the HTTP status and the fields of OpenAI's error object."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.retry_after = status, code, param, retry_after


class Busy(RequestError):
    """Too much is waiting already; `retry_after` says when to come back."""

    def __init__(self, message: str, *, retry_after: float, status: int = 503, code: str = "overloaded") -> None:
        super().__init__(message, status=status, code=code, retry_after=retry_after)


@dataclass(frozen=True)
class Shape:
    """An error as the client gets it."""

    status: int
    message: str
    type: str
    code: str | None = None
    param: str | None = None
    retry_after: float | None = None

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """`Retry-After` where there is one; a client must not repeat what cannot succeed."""
        found = {} if self.retry_after is None else {"Retry-After": str(max(1, round(self.retry_after)))}
        if self.code in ("deadline_exceeded", "engine_failed", "not_available"):
            found["x-should-retry"] = "false"
        return found


KINDS: list[tuple[type[VermilionError], int, str]] = [
    (AudioLimitError, 413, "audio_too_long"),
    (AudioError, 400, "invalid_audio"),
    (UnsupportedLanguageError, 400, "unsupported_language"),
    (OptionsError, 400, "invalid_value"),
    (FormatError, 400, "unsupported_format"),
    (MissingDependencyError, 501, "not_available"),
]
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def shape(error: Exception) -> Shape:
    """Give any exception its status and fields; what is not ours tells nothing of the inside."""
    if isinstance(error, RequestError):
        return Shape(error.status, str(error), kind_of(error.status), error.code, error.param, error.retry_after)
    for kind, status, code in KINDS:
        if isinstance(error, kind):
            return Shape(status, str(error), kind_of(status), code)
    if isinstance(error, VermilionError):
        return Shape(500, str(error), kind_of(500), "failed")
    return Shape(500, "something inside the server failed; its log says what", kind_of(500), "internal_error")


def kind_of(status: int) -> str:
    """OpenAI's `type` for a status."""
    return TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
