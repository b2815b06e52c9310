"""Requests that the server makes itself: only to hosts of an allow list, never to where a name is bent afterwards."""

from __future__ import annotations

import asyncio
import fnmatch
import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urljoin, urlsplit

import httpx

from vermilion.server.errors import RequestError

REDIRECTS = 3
CHUNK_SECONDS = 30.0
Resolve = Callable[[str, int], Awaitable[list[str]]]
"""name and port → addresses"""
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


async def resolve(host: str, port: int) -> list[str]:
    """Ask the system for a name's addresses."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def check_url(url: str, allowed: Sequence[str]) -> httpx.URL:
    """Check a URL by its looks.

    Args:
        url: http or https.
        allowed: hosts: `example.org`, `*.example.org`, or `host:port` for one that may have a private address.

    Raises:
        RequestError: 403 not allowed, 400 no such URL.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        found = httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise RequestError("this is not a URL", code="invalid_url") from error
    if parts.scheme not in ("http", "https") or not host or len(url) > 4096:
        raise RequestError("the URL must begin with http:// or https://", code="invalid_url")
    if parts.username is not None or parts.password is not None:
        raise RequestError("the URL must not hold a user's name", code="invalid_url")
    if found.host != host:  # two readings of one URL: an attack, or as good as one
        raise RequestError("the URL is ambiguous", code="invalid_url")
    if not _is_allowed(host, port or _default_port(parts.scheme), allowed):
        raise RequestError(f"this server may not call {host[:100]!r}", status=403, code="host_not_allowed")
    return found


def _default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def _is_allowed(host: str, port: int, allowed: Sequence[str]) -> bool:
    return _is_exact(host, port, allowed) or any(fnmatch.fnmatchcase(host, name.lower()) for name in allowed)


def _is_exact(host: str, port: int, allowed: Sequence[str]) -> bool:
    """`host:port` stands in the list: then its address may be a private one."""
    named = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return named.lower() in (name.lower() for name in allowed)


def is_public(address: str) -> bool:
    """An address of the open internet; those that only carry another one (6to4, NAT64 …) are judged by it."""
    try:
        found: IPAddress = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    inner = _inner(found)
    if inner is not None:
        return is_public(str(inner))
    return found.is_global and not found.is_multicast and not found.is_reserved


def _inner(address: IPAddress) -> ipaddress.IPv4Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped or address.sixtofour:
        return address.ipv4_mapped or address.sixtofour
    if address.teredo:
        return address.teredo[1]
    nat64 = ipaddress.ip_network("64:ff9b::/96")
    if address in nat64 or int(address) >> 32 == 0:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


async def _pinned(url: httpx.URL, allowed: Sequence[str], find: Resolve) -> list[str]:
    """The addresses that may be called: looked up once, checked, and then used."""
    port = url.port or _default_port(url.scheme)
    try:
        addresses = await find(url.host, port)
    except OSError as error:
        raise RequestError(f"there is no host called {url.host[:100]!r}", code="host_not_found") from error
    if not addresses:
        raise RequestError(f"there is no host called {url.host[:100]!r}", code="host_not_found")
    if not _is_exact(url.host, port, allowed):
        for address in addresses:
            if not is_public(address):
                raise RequestError(
                    f"{url.host[:100]!r} has an address of an inner network", status=403, code="host_not_allowed"
                )
    return addresses


@asynccontextmanager
async def _request(
    method: str,
    url: httpx.URL,
    addresses: Sequence[str],
    headers: Mapping[str, str],
    content: bytes | None,
    timeout: float,
) -> AsyncIterator[httpx.Response]:
    """Call the first address that lets us in, under the name of the host; certificates are checked for the name."""
    sent = {"Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity", "User-Agent": "vermilion", **headers}
    limits = httpx.Timeout(timeout, read=min(timeout, CHUNK_SECONDS))
    async with httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=limits) as client:
        for address in addresses:
            request = client.build_request(
                method,
                url.copy_with(host=address),
                headers=sent,
                content=content,
                extensions={"sni_hostname": url.host},
            )
            try:
                response = await client.send(request, stream=True)
                break
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if address == addresses[-1]:
                    raise
        try:
            yield response
        finally:
            await response.aclose()


async def post(
    url: str,
    content: bytes,
    headers: Mapping[str, str],
    *,
    allowed: Sequence[str],
    timeout: float = 15.0,
    find: Resolve = resolve,
) -> int:
    """Send something; redirects are not followed.

    Returns:
        The status.

    Raises:
        RequestError: the host is not allowed, or there is none.
        httpx.HTTPError, TimeoutError: it does not answer.
    """
    checked = check_url(url, allowed)
    async with asyncio.timeout(timeout):
        addresses = await _pinned(checked, allowed, find)
        async with _request("POST", checked, addresses, headers, content, timeout) as response:
            return response.status_code


async def fetch(
    url: str,
    target: Path,
    *,
    allowed: Sequence[str],
    max_bytes: int,
    timeout: float = 1800.0,
    find: Resolve = resolve,
) -> int:
    """Fetch a file; every redirect is checked as the first URL was.

    Returns:
        Its size in bytes.

    Raises:
        RequestError: not allowed, not there, too large, too slow.
    """
    try:
        async with asyncio.timeout(timeout):
            return await _fetch(url, target, allowed, max_bytes, find)
    except TimeoutError as error:
        raise RequestError("fetching the recording took too long", code="fetch_failed") from error
    except httpx.HTTPError as error:
        raise RequestError(f"the recording cannot be fetched: {type(error).__name__}", code="fetch_failed") from error


async def _fetch(url: str, target: Path, allowed: Sequence[str], max_bytes: int, find: Resolve) -> int:
    for _ in range(REDIRECTS + 1):
        checked = check_url(url, allowed)
        addresses = await _pinned(checked, allowed, find)
        async with _request("GET", checked, addresses, {}, None, CHUNK_SECONDS) as response:
            if response.is_redirect:
                url = urljoin(url, response.headers.get("location", ""))
                continue
            if response.status_code != 200:
                raise RequestError(f"the other server answers {response.status_code}", code="fetch_failed")
            return await _save(response, target, max_bytes)
    raise RequestError("the URL leads from one redirect to the next", code="fetch_failed")


async def _save(response: httpx.Response, target: Path, max_bytes: int) -> int:
    size = 0
    file: IO[bytes]
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        async for chunk in response.aiter_raw():
            size += len(chunk)
            if size > max_bytes:
                raise RequestError(
                    f"the recording is larger than {max_bytes:,} bytes", status=413, code="file_too_large"
                )
            file.write(chunk)
    return size
