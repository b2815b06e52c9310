"""Fetches one file over HTTP: resumed where it broke off, retried, checked against size and hash."""

from __future__ import annotations

import hashlib
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from vermilion.errors import HubError

ATTEMPTS = 5
"""tries without any progress before giving up"""
PAUSE = 0.5
"""seconds before the second try; doubled each time"""
TIMEOUT = 60.0
"""seconds without a byte"""
PART = ".part"
_BLOCK = 1 << 20

Advance = Callable[[int], None]
"""told how many bytes of the file are there"""


@dataclass(frozen=True)
class RemoteFile:
    """A file as a hub lists it."""

    path: str
    """inside the repository, parts joined by "/" """
    size: int
    """bytes"""
    url: str = ""
    """where to get it"""
    sha256: str = ""
    """hash of the content, empty if the hub gives none"""
    git_oid: str = ""
    """git blob id (SHA-1 over a header and the content), empty if the hub gives none"""


def safe_path(folder: Path, name: str) -> Path:
    """Join a folder and a path that a hub sent.

    Raises:
        HubError: the path would lead out of the folder.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0] or "\0" in name:
        raise HubError(f"the hub lists a file {name!r}, which would be stored outside its folder; nothing was stored")
    return folder.joinpath(*parts)


def get_json(url: str, headers: Mapping[str, str] | None = None) -> Any:
    """Fetch a JSON document, with retries.

    Raises:
        HubError: the hub cannot be reached, refuses, or sends something else.
    """
    failure: Exception | None = None
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE * 2**attempt if attempt else 0)
        try:
            with _open(url, headers or {}) as response:
                return json.loads(response.read())
        except json.JSONDecodeError as error:
            raise HubError(f"{_host(url)} sent no JSON: is this address a model hub?") from error
        except urllib.error.HTTPError as error:
            failure = _refused(error, url)
        except (OSError, http.client.HTTPException) as error:
            failure = error
    raise _unreachable(url, failure)


def fetch(
    file: RemoteFile, target: Path, headers: Mapping[str, str] | None = None, advance: Advance | None = None
) -> None:
    """Download a file, or finish a download that was broken off.

    Args:
        file: what to fetch; its size and hash are checked.
        target: where it goes once it is complete; until then it grows in `<target>.part`.
        headers: sent to the file's own host only, never to a host that it redirects to.
        advance: progress callback.

    Raises:
        HubError: unreachable, refused, or the content does not match the hub's own size or hash.
    """
    part = target.with_name(target.name + PART)
    part.parent.mkdir(parents=True, exist_ok=True)
    resumed = part.exists()
    report = advance or (lambda _: None)
    _fill(file, part, headers or {}, report)
    problem = mismatch(file, part)
    if problem and resumed:  # the old part may have been of another version: once more from the beginning
        part.unlink()
        _fill(file, part, headers or {}, report)
        problem = mismatch(file, part)
    if problem:
        part.unlink(missing_ok=True)
        raise HubError(f"{file.path} from {_host(file.url)} is corrupt: {problem}; it was deleted, pull it again")
    part.replace(target)


def mismatch(file: RemoteFile, content: Path) -> str:
    """Say in what a stored file differs from what the hub lists; empty if in nothing."""
    size = content.stat().st_size
    if size != file.size:
        return f"{size} bytes instead of {file.size}"
    if file.sha256:
        return "" if _digest(content, hashlib.sha256()) == file.sha256.lower() else "its SHA-256 is not the hub's"
    if file.git_oid:
        start = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
        return "" if _digest(content, start) == file.git_oid.lower() else "its git id is not the hub's"
    return ""


def _digest(content: Path, digest: hashlib._Hash) -> str:
    with content.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _fill(file: RemoteFile, part: Path, headers: Mapping[str, str], report: Advance) -> None:
    """Append to the part until it has the listed size."""
    idle = 0
    failure: Exception | None = None
    have = _resumable(part, file.size)
    while have < file.size or not part.exists():
        time.sleep(PAUSE * 2 ** (idle - 1) if idle else 0)
        try:
            _append(file, part, have, headers, report)
            failure = None
        except urllib.error.HTTPError as error:
            failure = _refused(error, file.url)
        except (http.client.HTTPException, urllib.error.URLError, TimeoutError, ConnectionError) as error:
            failure = error
        except OSError as error:
            raise HubError(f"cannot store {part}: {error}") from error
        now = _resumable(part, file.size)
        idle = 0 if now > have else idle + 1
        have = now
        if idle >= ATTEMPTS:
            raise _unreachable(file.url, failure)
    report(have)


def _resumable(part: Path, size: int) -> int:
    """Bytes that are there already; a part that is longer than the file is of no use."""
    have = part.stat().st_size if part.exists() else 0
    if have > size:
        part.unlink()
        return 0
    return have


def _append(file: RemoteFile, part: Path, have: int, headers: Mapping[str, str], report: Advance) -> None:
    asked = {**headers, "Range": f"bytes={have}-"} if have else dict(headers)
    with _open(file.url, asked) as response:
        if have and response.status != http.client.PARTIAL_CONTENT:  # this server cannot resume
            have = 0
        with part.open("ab" if have else "wb") as out:
            while have <= file.size and (block := response.read(_BLOCK)):  # one block too many shows a wrong size
                out.write(block)
                have += len(block)
                report(min(have, file.size))


class _SameHostHeaders(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but shows tokens and cookies to the first host only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Return the next request, without credentials if it goes to another host or leaves HTTPS."""
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if following is not None and (old.netloc != new.netloc or old.scheme != new.scheme):
            for name in ("Authorization", "Cookie"):
                following.remove_header(name)
        return following


def _open(url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    if urlsplit(url).scheme not in ("http", "https"):
        raise HubError(f"{url} is no http(s) address")
    request = urllib.request.Request(url, headers={"User-Agent": "vermilion", **headers})
    response: http.client.HTTPResponse = urllib.request.build_opener(_SameHostHeaders).open(request, timeout=TIMEOUT)
    return response


def _host(url: str) -> str:
    return urlsplit(url).netloc or url


def _refused(error: urllib.error.HTTPError, url: str) -> HubError:
    """Turn a status into advice: raised at once if trying again is useless, returned otherwise."""
    known = refusal(error.code, _host(url), urlsplit(url).path)
    if error.code in (408, 425, 429) or error.code >= 500:
        return known
    raise known from error


def refusal(code: int, host: str, what: str) -> HubError:
    """Describe a refused request and what to do about it."""
    advice = {
        401: "it asks for a token: set HF_TOKEN (Hugging Face) or MODELSCOPE_API_TOKEN (ModelScope)",
        403: "access is refused: accept the model's conditions on its page, or check the token",
        404: "it has no such model, revision or file: check the name, or try the other hub with --hub",
        429: "it limits requests: wait a few minutes, or set a token",
    }.get(code, "try again later, or use the other hub with --hub")
    return HubError(f"{host} answered {code} for {what}: {advice}")


def _unreachable(url: str, failure: Exception | None) -> HubError:
    if isinstance(failure, HubError):
        return failure
    reason = getattr(failure, "reason", None) or failure or "the connection broke off"
    return HubError(
        f"cannot download from {_host(url)}: {reason}; check the network or name a mirror "
        "(HF_ENDPOINT, MODELSCOPE_DOMAIN); what has arrived is kept and the next pull resumes"
    )
