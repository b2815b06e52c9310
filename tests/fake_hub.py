"""A model hub on the loopback interface: enough of two protocols for a download, with faults on demand."""

import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    files: dict[str, bytes]
    """content by path, the same for both protocols and for every repository of `repositories`"""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """content of repositories that differ"""
    token: str = ""
    """refuse requests without it"""
    cut: dict[str, int] = field(default_factory=dict)
    """bytes after which the next response for a file breaks off (once)"""
    corrupt: set[str] = field(default_factory=set)
    """files whose content is sent with one byte changed"""
    busy: int = 0
    """answer 503 so many times"""
    ranges: bool = True
    """understand Range"""
    redirect_to: str = ""
    """send file requests on to this base address"""
    missing: bool = False
    """answer 404 to everything"""
    extra_path: str = ""
    """a further name in the listing"""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """method, path and headers of what was asked"""
    url: str = ""

    def content(self, repo: str) -> dict[str, bytes]:
        return self.repositories.get(repo, self.files)

    def downloads(self) -> list[str]:
        return [p for _, p, _ in self.requests if "/resolve/" in p or "FilePath=" in p]


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def log_message(self, *_):
        pass

    def do_GET(self):
        hub, parts = self.hub, urlsplit(self.path)
        hub.requests.append(("GET", self.path, dict(self.headers)))
        path, query = unquote(parts.path), parse_qs(parts.query)
        if hub.busy:
            hub.busy -= 1
            return self.answer(503, b"busy")
        if hub.token and hub.token not in self.headers.get("Authorization", ""):
            return self.answer(401, b"{}")
        if hub.missing:
            return self.answer(404, b"{}")
        if path.startswith("/api/v1/models/"):
            repo = path.removeprefix("/api/v1/models/").partition("/repo")[0]
            if path.endswith("/repo/files"):
                return self.answer(200, json.dumps(self.modelscope_listing(repo)).encode())
            return self.send_content(repo, query["FilePath"][0])
        if path.startswith("/api/models/"):
            repo = path.removeprefix("/api/models/").partition("/revision/")[0]
            return self.answer(200, json.dumps(self.hugging_face_listing(repo)).encode())
        repo, _, rest = path.strip("/").partition("/resolve/")
        return self.send_content(repo, rest.partition("/")[2])

    def hugging_face_listing(self, repo):
        rows = []
        for name, data in self.hub.content(repo).items():
            row = {"rfilename": name, "size": len(data), "blobId": git_id(data)}
            if len(data) > 1000:
                row["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            rows.append(row)
        if self.hub.extra_path:
            rows.append({"rfilename": self.hub.extra_path, "size": 1, "blobId": "a" * 40})
        return {"id": repo, "sha": COMMIT, "siblings": rows}

    def modelscope_listing(self, repo):
        files = self.hub.content(repo)
        rows = [
            {
                "Path": n,
                "Name": n.split("/")[-1],
                "Type": "blob",
                "Size": len(d),
                "Sha256": hashlib.sha256(d).hexdigest(),
            }
            for n, d in files.items()
        ]
        rows += [{"Path": n.split("/")[0], "Type": "tree", "Size": 0} for n in files if "/" in n]
        if self.hub.extra_path:
            rows.append({"Path": self.hub.extra_path, "Type": "blob", "Size": 1, "Sha256": ""})
        return {"Code": 200, "Success": True, "Data": {"Files": rows}}

    def send_content(self, repo, name):
        hub = self.hub
        if hub.redirect_to:
            self.send_response(302)
            self.send_header("Location", hub.redirect_to + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        data = hub.content(repo).get(name)
        if data is None:
            return self.answer(404, b"no such file")
        if name in hub.corrupt:
            data = bytes([data[0] ^ 1]) + data[1:]
        start = 0
        asked = self.headers.get("Range")
        if asked and hub.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        body = data[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        stop = hub.cut.pop(name, None)
        self.wfile.write(body if stop is None else body[:stop])
        if stop is not None:
            self.wfile.flush()
            self.close_connection = True
        return None

    def answer(self, code, body):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def running(hub: FakeHub):
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
