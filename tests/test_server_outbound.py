"""Requests that the server makes itself go nowhere but to allowed hosts."""

import asyncio
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from vermilion.server.errors import RequestError
from vermilion.server.outbound import check_url, fetch, is_public, post


class Files(BaseHTTPRequestHandler):
    def do_GET(self):
        status, headers, body = self.server.pages[self.path]
        self.server.hosts.append(self.headers["host"])
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def files(pages):
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        server.pages, server.hosts = pages, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server, f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def get(url, target, allowed, find=None, max_bytes=1000):
    more = {"find": find} if find else {}
    return asyncio.run(fetch(url, target, allowed=allowed, max_bytes=max_bytes, timeout=10, **more))


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "127.0.0.1", "169.254.169.254", "192.168.1.1", "172.16.0.1", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:7f00:1",
     "64:ff9b::7f00:1", "2002:7f00:1::", "::7f00:1", "fe80::1%eth0", "2001:db8::1", "198.18.0.1", "nonsense"],
)  # fmt: skip
def test_inner_addresses_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "::ffff:93.184.216.34"]
)
def test_outer_addresses_are(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    ["ftp://good.example/a", "file:///etc/passwd", "http://evil.example/", "http://good.example.evil.example/",
     "http://user@good.example/", "http://user:x@good.example/", "http://good.example@evil.example/", "http:///x", "x",
     "http://2130706433/", "http://0x7f.1/", "http://[::1]/", "http://good.example:99999/", "gopher://good.example",
     "http://evil.example\\@good.example/", "http://good.example\n.evil.example/", "//good.example/", ""],
)  # fmt: skip
def test_urls_that_are_refused_by_their_looks(url):
    with pytest.raises(RequestError):
        check_url(url, ["good.example", "*.parts.example"])


def test_urls_that_are_allowed():
    for url in ("https://good.example/a?b", "http://a.parts.example:8080/", "https://GOOD.example/"):
        assert check_url(url, ["good.example", "*.parts.example"]).host


def test_a_file_is_fetched_from_a_host_that_is_named_with_its_port(tmp_path):
    with files({"/a.wav": (200, {}, b"sound")}) as (server, host):
        assert get(f"http://{host}/a.wav", tmp_path / "a", (host,)) == 5
        assert (tmp_path / "a").read_bytes() == b"sound"
        assert server.hosts == [host]
        with pytest.raises(RequestError):
            get(f"http://{host}/a.wav", tmp_path / "b", ("127.0.0.1",))  # without its port: only if it were public


def test_a_name_is_looked_up_once_and_checked(tmp_path):
    """A name server that answers differently the second time gains nothing."""
    calls = []

    async def find(host, port):
        calls.append(host)
        return ["93.184.216.34"] if len(calls) > 1 else ["127.0.0.1"]

    with pytest.raises(RequestError, match="inner network"):
        get("http://bent.example/", tmp_path / "a", ("bent.example",), find)

    async def both(host, port):
        return ["93.184.216.34", "127.0.0.1"]

    with pytest.raises(RequestError, match="inner network"):
        get("http://bent.example/", tmp_path / "a", ("bent.example",), both)


def test_the_address_that_was_checked_is_the_one_that_is_called(tmp_path):
    with files({"/a": (200, {}, b"sound")}) as (server, host):
        port = host.split(":")[1]

        async def find(name, _):
            return ["127.0.0.1"]

        assert get(f"http://inner.example:{port}/a", tmp_path / "a", (f"inner.example:{port}",), find) == 5
        assert server.hosts == [f"inner.example:{port}"]


def test_names_are_compared_without_their_case():
    for url, name in (("http://Files.Local:81/x", "files.local:81"), ("http://files.local:81/", "FILES.local:81")):
        assert check_url(url, [name]).host == "files.local"


def test_every_address_of_a_name_is_tried(tmp_path):
    """The first is one on which nobody listens, as with IPv6 where the host has none."""
    with files({"/a": (200, {}, b"content")}) as (server, _):
        name = f"Two.Test:{server.server_port}"

        async def find(host, port):
            return ["127.0.0.2", "127.0.0.1"]

        found = asyncio.run(fetch(f"http://{name}/a", tmp_path / "x", allowed=[name], max_bytes=100, find=find))
        assert (found, (tmp_path / "x").read_bytes()) == (7, b"content")
        assert server.hosts == [f"two.test:{server.server_port}"]
        assert (tmp_path / "x").stat().st_mode & 0o077 == 0


def test_redirects_are_checked_too(tmp_path):
    pages = {
        "/good": (302, {"Location": "/a"}, b""),
        "/a": (200, {}, b"sound"),
        "/evil": (302, {"Location": "http://169.254.169.254/secrets"}, b""),
        "/other": (302, {"Location": "http://127.0.0.1:1/"}, b""),
        "/file": (302, {"Location": "file:///etc/passwd"}, b""),
        "/round": (302, {"Location": "/round"}, b""),
    }
    with files(pages) as (_, host):
        assert get(f"http://{host}/good", tmp_path / "a", (host,)) == 5
        for name in ("evil", "other", "file", "round"):
            with pytest.raises(RequestError):
                get(f"http://{host}/{name}", tmp_path / name, (host,))


def test_too_much_is_cut_off(tmp_path):
    pages = {"/a": (200, {}, b"x" * 5000), "/lie": (200, {"Content-Length": "10"}, b"x" * 5000), "/no": (404, {}, b"")}
    with files(pages) as (_, host):
        with pytest.raises(RequestError) as caught:
            get(f"http://{host}/a", tmp_path / "a", (host,))
        assert caught.value.status == 413
        assert get(f"http://{host}/lie", tmp_path / "b", (host,)) == 10
        with pytest.raises(RequestError, match="404"):
            get(f"http://{host}/no", tmp_path / "c", (host,))


def test_posting_goes_to_allowed_hosts_only():
    with pytest.raises(RequestError):
        asyncio.run(post("http://127.0.0.1:1/", b"", {}, allowed=["127.0.0.1:2"]))
