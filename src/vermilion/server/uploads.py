"""Uploads: streamed into private files under limits, and removed when the request is over."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from vermilion.server.errors import Busy, RequestError
from vermilion.server.options import MEGABYTE, Limits

if TYPE_CHECKING:
    from fastapi import Request

FIELDS = 64
FIELD_BYTES = 64 * 1024
JSON_BYTES = 4 * MEGABYTE
CHECKED_EVERY = 8 * MEGABYTE
"""bytes of an upload between two looks at the quota"""
HEAD_BYTES = 4096


@dataclass
class Upload:
    """A received file."""

    path: Path
    name: str
    """what the client calls it, without folders"""
    size: int


class Spool:
    """The folder of temporary files: private, under a quota, empty at the start."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """Take the folder and its quota."""
        self.folder, self.limit = folder, limit_bytes

    def prepare(self) -> None:
        """Make the folder; remove what a killed server left there."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):
                path.unlink()

    def new(self) -> Path:
        """A name that nobody can guess."""
        return self.folder / secrets.token_hex(16)

    def create(self) -> tuple[Path, IO[bytes]]:
        """Open a new file that only this user can read."""
        path = self.new()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        return path, os.fdopen(descriptor, "wb")

    def used(self) -> int:
        """Bytes of all temporary files."""
        total = 0
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def check(self, more: int = 0) -> None:
        """Raise Busy unless `more` bytes find room."""
        if self.used() + more > self.limit:
            raise Busy("the server's space for uploads is full at the moment", retry_after=30, code="storage_full")

    def keep(self, upload: Upload, target: Path) -> None:
        """Move a file out of the spool; it is on the disk when this returns."""
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with upload.path.open("rb") as file:
            os.fsync(file.fileno())
        upload.path.replace(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def remove(self, *paths: Path) -> None:
        """Remove files; those that are gone already do not matter."""
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


@dataclass
class Form:
    """A request's fields and files."""

    values: dict[str, list[str]] = field(default_factory=dict)
    """by name, without the `[]` that some clients write behind the names of lists"""
    files: dict[str, Upload] = field(default_factory=dict)

    def first(self, name: str) -> str | None:
        """The first value of a field; None if it is absent or empty."""
        return next((v for v in self.values.get(name, []) if v != ""), None)

    def close(self) -> None:
        """Remove the files that nobody moved away."""
        for upload in self.files.values():
            with contextlib.suppress(FileNotFoundError):
                upload.path.unlink()


@contextlib.asynccontextmanager
async def receive(
    request: Request,
    spool: Spool,
    limits: Limits,
    *,
    seconds: float | None = None,
    check: Callable[[str, str], None] = lambda _, __: None,
) -> AsyncIterator[Form]:
    """Read a multipart request.

    Args:
        request: its body is read here, and nowhere else.
        spool: takes the files.
        limits: sizes and times.
        seconds: longest recording where its header tells the length; None = `limits.audio_seconds`, for a job.
        check: called with every field when it is complete; what it raises ends the upload.

    Yields:
        The fields and files; files that are still in the spool afterwards are removed.

    Raises:
        RequestError: 400 malformed, 408 too slow, 413 too large or too long, 415 not multipart.
        Busy: no space.
    """
    declared = _declared(request)
    if declared is not None:
        if declared > limits.upload_bytes + MEGABYTE:
            raise _too_large(limits.upload_bytes)
        spool.check(declared)
    reader = _Reader(_boundary(request), spool, limits, seconds, check)
    try:
        await _feed(request, reader, limits)
        yield reader.form
    finally:
        reader.close()


async def read_json(request: Request, limits: Limits) -> Any:
    """Read a small JSON body.

    Raises:
        RequestError: 400 not JSON, 408 too slow, 413 too large.
    """
    body = bytearray()
    async for chunk in _chunks(request, limits):
        body += chunk
        if len(body) > JSON_BYTES:
            raise _too_large(JSON_BYTES)
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise RequestError("the request's body is not JSON", code="invalid_json") from error


async def _chunks(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    """The body, as long as the client keeps sending."""
    stream = request.stream()
    try:
        async with asyncio.timeout(limits.deadline):
            while True:
                async with asyncio.timeout(limits.stalled):
                    chunk = await anext(stream, None)
                if chunk is None:
                    return
                yield chunk
    except TimeoutError as error:
        raise RequestError("the upload came too slowly", status=408, code="upload_stalled") from error


async def _feed(request: Request, reader: _Reader, limits: Limits) -> None:
    async for chunk in _chunks(request, limits):
        reader.write(chunk)
    reader.finish()


def _declared(request: Request) -> int | None:
    value = request.headers.get("content-length")
    return int(value) if value is not None and value.isascii() and value.isdigit() else None


def _boundary(request: Request) -> bytes:
    from python_multipart.multipart import parse_options_header

    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise RequestError("send the request as multipart/form-data", status=415, code="unsupported_media_type")
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 200:
        raise RequestError("the multipart boundary is missing or too long", code="invalid_form")
    return boundary


def _too_large(limit: int) -> RequestError:
    return RequestError(f"the file is larger than {limit:,} bytes", status=413, code="file_too_large", param="file")


class _Reader:
    """Callbacks of the multipart parser."""

    def __init__(
        self,
        boundary: bytes,
        spool: Spool,
        limits: Limits,
        seconds: float | None,
        check: Callable[[str, str], None],
    ) -> None:
        from python_multipart.multipart import MultipartParser

        self.spool, self.limits, self.check = spool, limits, check
        self.seconds, self.is_job = seconds or limits.audio_seconds, seconds is None
        self.form = Form()
        self._name, self._value, self._file = "", bytearray(), None
        self._headers: dict[bytes, bytes] = {}
        self._header, self._content = b"", b""
        self._upload: Upload | None = None
        self._handle: IO[bytes] | None = None
        self._head = b""
        self._most = limits.upload_bytes
        self._checked = self._parts = 0
        self._complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part,
                "on_header_field": self._on_field,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header,
                "on_headers_finished": self._begin,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._on_end,
            },
        )

    def write(self, chunk: bytes) -> None:
        from python_multipart.exceptions import FormParserError

        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise RequestError(f"the form is malformed: {error}", code="invalid_form") from error

    def finish(self) -> None:
        if not self._complete:
            raise RequestError("the form ends too early", code="invalid_form")

    def close(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None
        if self._upload is not None:
            self.form.files.setdefault("", self._upload)
        self.form.close()

    def _on_end(self) -> None:
        self._complete = True

    def _part(self) -> None:
        self._parts += 1
        if self._parts > FIELDS:
            raise RequestError(f"the form has more than {FIELDS} fields", code="invalid_form")
        self._headers, self._value = {}, bytearray()
        self._header = self._content = b""

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]

    def _on_header(self) -> None:
        self._headers[self._header.lower()] = self._content
        self._header = self._content = b""

    def _begin(self) -> None:
        from python_multipart.multipart import parse_options_header

        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if not name:
            raise RequestError("a field of the form has no name", code="invalid_form")
        self._name = name.removesuffix("[]")
        if b"filename" in options:
            self._open(options[b"filename"])

    def _open(self, filename: bytes) -> None:
        if self._name != "file" or self.form.files:
            raise RequestError("send one file, in the field `file`", code="invalid_form", param=self._name)
        path, self._handle = self.spool.create()
        self._upload = Upload(path, file_name(filename.decode("utf-8", "replace")), 0)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._upload is None or self._handle is None:
            if len(self._value) + end - start > FIELD_BYTES:
                raise RequestError(f"the field {self._name[:100]!r} is too long", status=413, code="field_too_large")
            self._value += data[start:end]
            return
        self._upload.size += end - start
        self._check(self._upload, data[start:end])
        self._handle.write(data[start:end])

    def _check(self, upload: Upload, chunk: bytes) -> None:
        if len(self._head) < HEAD_BYTES:
            self._head += chunk[: HEAD_BYTES - len(self._head)]
            self._most = min(self._most, most_bytes(self._head, self.seconds) or self._most)
        if upload.size > self._most:
            if self._most < self.limits.upload_bytes:
                raise too_long(self.seconds, self.is_job)
            raise _too_large(self.limits.upload_bytes)
        if upload.size - self._checked > CHECKED_EVERY:
            self._checked = upload.size
            self.spool.check()

    def _end(self) -> None:
        if self._upload is not None and self._handle is not None:
            self._handle.close()
            self.form.files[self._name] = self._upload
            self._upload = self._handle = None
            return
        value = bytes(self._value).decode("utf-8", "replace")
        self.check(self._name, value)
        self.form.values.setdefault(self._name, []).append(value)


def too_long(seconds: float, is_job: bool = False) -> RequestError:
    """The recording is longer than what is allowed."""
    advice = "send it in parts" if is_job else "send it as a job (POST /v1/jobs), or in parts"
    return RequestError(
        f"the recording is longer than {seconds:g} seconds; {advice}",
        status=413,
        code="audio_too_long",
        param="file",
    )


def file_name(name: str) -> str:
    """The last part of a client's file name, fit to be shown: no folders, no control characters."""
    last = re.split(r"[/\\]", name)[-1]
    return re.sub(r"[\x00-\x1f\x7f]", "", last)[:200] or "audio"


def most_bytes(head: bytes, seconds: float) -> int | None:
    """How large a file of this header may be if it is to last so long; 1 if it says that it lasts longer.

    Only what tells it at the beginning: WAV (byte rate) and FLAC (total samples); None for all others.
    """
    if head[:4] in (b"RIFF", b"RF64", b"RIFX") and (at := head.find(b"fmt ")) >= 0 and len(head) >= at + 20:
        order = ">" if head[:4] == b"RIFX" else "<"
        (rate,) = struct.unpack_from(order + "I", head, at + 16)
        return HEAD_BYTES * 4 + int(rate * seconds) if rate else None
    if head[:4] == b"fLaC" and len(head) >= 26:
        packed = int.from_bytes(head[18:26], "big")  # 20 bits rate, 3 channels, 5 bits per sample, 36 total samples
        rate, total = packed >> 44, packed & ((1 << 36) - 1)
        return 1 if rate and total / rate > seconds else None
    return None
