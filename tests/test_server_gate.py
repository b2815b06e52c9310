"""Who may call: keys, names of the server, pages of other sites; safe headers; what the log says."""

import json
import logging
import os
import stat

import httpx
import pytest
import websockets.sync.client
from server_helpers import serving, tone, wav
from websockets.exceptions import InvalidStatus

from vermilion.cli import main
from vermilion.errors import OptionsError
from vermilion.server.keys import KeyFile
from vermilion.server.options import Limits, ServerOptions
from vermilion.testing import FakeModels

FILE = {"file": ("secret plan.wav", wav(tone(440)))}
DATA = {"model": "whisper-1"}


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    key = KeyFile(path).add("laptop")
    with serving(keys=path) as url:
        yield url, key, path


@pytest.fixture(scope="module")
def open_url():
    with serving(origins=("https://friend.example",), hosts=("speech.example",)) as url:
        yield url


def test_keys_are_random_and_hashed_at_rest(tmp_path):
    file = KeyFile(tmp_path / "new" / "keys.json")
    one, two = file.add("one"), file.add("two")
    assert one != two
    assert len(one) > 40
    text = file.path.read_text()
    assert one not in text
    assert two not in text
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert (file.name_of(one), file.name_of(two)) == ("one", "two")
    assert file.name_of(one + "x") is None
    assert file.name_of("") is None
    assert file.name_of("\udcff") is None
    with pytest.raises(OptionsError):
        file.add("one")
    with pytest.raises(OptionsError):
        file.add("a b")
    file.remove("one")
    assert file.name_of(one) is None
    with pytest.raises(OptionsError, match="two"):
        file.remove("one")


def test_a_damaged_key_file_is_an_error_not_an_open_door(tmp_path):
    path = tmp_path / "keys.json"
    path.write_text("{")
    with pytest.raises(OptionsError):
        KeyFile(path).name_of("x")


def test_the_keys_command(tmp_path, capsys):
    path = str(tmp_path / "keys.json")
    assert main(["keys", "add", "laptop", "--file", path]) == 0
    key = capsys.readouterr().out.strip()
    assert KeyFile(tmp_path / "keys.json").name_of(key) == "laptop"
    assert main(["keys", "list", "--file", path]) == 0
    shown = capsys.readouterr().out
    assert "laptop" in shown
    assert key not in shown
    assert main(["keys", "list", "--json", "--file", path]) == 0
    assert json.loads(capsys.readouterr().out)["ends_with"] == key[-4:]
    assert main(["keys", "remove", "laptop", "--file", path]) == 0
    assert main(["keys", "remove", "laptop", "--file", path]) == 2
    assert main(["keys", "add", "--file", path]) == 2


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/v1/audio/transcriptions", "/v1/jobs", "/nothing"])
def test_nothing_without_a_key(locked, path):
    found = httpx.get(locked[0] + path)
    assert found.status_code == 401
    assert found.json()["error"]["code"] == "invalid_api_key"
    assert found.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/v1/server", "/docs", "/openapi.json"])
def test_these_are_open(locked, path):
    assert httpx.get(locked[0] + path).status_code == 200


def test_a_key_opens_until_it_is_removed(locked):
    url, key, path = locked
    head = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{url}/v1/models", headers=head).status_code == 200
    assert httpx.get(f"{url}/v1/models", headers={"api-key": key}).status_code == 200
    assert httpx.post(f"{url}/v1/audio/transcriptions", data=DATA, files=FILE, headers=head).status_code == 200
    for wrong in (f"Bearer {key}x", f"Basic {key}", "Bearer", key):
        assert httpx.get(f"{url}/v1/models", headers={"Authorization": wrong}).status_code == 401
    second = KeyFile(path).add("phone")
    head = {"Authorization": f"Bearer {second}"}
    assert httpx.get(f"{url}/v1/models", headers=head).status_code == 200
    KeyFile(path).remove("phone")
    os.utime(path)
    assert httpx.get(f"{url}/v1/models", headers=head).status_code == 401


@pytest.mark.parametrize("path", ["/v1/realtime?intent=transcription", "/v1/live?rate=16000"])
def test_sockets_need_keys_too(locked, path):
    url, key, _ = locked
    address = url.replace("http", "ws") + path
    with pytest.raises(InvalidStatus), websockets.sync.client.connect(address):
        pass
    with websockets.sync.client.connect(address, additional_headers={"Authorization": f"Bearer {key}"}):
        pass
    protocols = ["vermilion", f"key.{key}"] if "live" in path else ["realtime", f"openai-insecure-api-key.{key}"]
    with websockets.sync.client.connect(address, subprotocols=protocols) as socket:
        assert key not in str(socket.subprotocol)


def test_other_names_of_the_server_are_refused(open_url):
    for host, status in (
        ("evil.example", 403),
        ("127.0.0.1.evil.example:8000", 403),
        ("", 403),
        ("127.0.0.1:1", 200),
        ("localhost", 200),
        ("[::1]:8000", 200),
        ("speech.example", 200),
    ):
        assert httpx.get(f"{open_url}/v1/models", headers={"Host": host}).status_code == status, host


def test_pages_of_other_sites_may_not_send(open_url):
    host = open_url.partition("//")[2]
    for origin, status in (
        ("https://evil.example", 403),
        ("null", 403),
        (f"http://{host}", 200),
        ("https://friend.example", 200),
    ):
        found = httpx.post(f"{open_url}/v1/audio/transcriptions", data=DATA, files=FILE, headers={"Origin": origin})
        assert found.status_code == status, origin
    with (
        pytest.raises(InvalidStatus),
        websockets.sync.client.connect(f"ws://{host}/v1/live?rate=16000", origin="https://evil.example"),
    ):
        pass


def test_cors_is_closed_but_for_friends(open_url):
    def ask(origin):
        head = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        return httpx.options(f"{open_url}/v1/audio/transcriptions", headers=head)

    assert ask("https://friend.example").headers["access-control-allow-origin"] == "https://friend.example"
    assert "access-control-allow-origin" not in ask("https://evil.example").headers


def test_safe_headers_everywhere(open_url):
    for path in ("/", "/health", "/nothing", "/docs", "/v1/models"):
        head = httpx.get(open_url + path).headers
        assert head["x-content-type-options"] == "nosniff"
        assert head["x-frame-options"] == "DENY"
        assert "default-src 'none'" in head["content-security-policy"]
        assert head["referrer-policy"] == "no-referrer"
        assert head["x-request-id"].startswith("req_")
        assert "server" not in head
    assert "'unsafe-inline'" not in httpx.get(open_url + "/").headers["content-security-policy"]


def test_files_of_the_page_only(open_url):
    for path in ("/page/../app.py", "/page/%2e%2e/app.py", "/page/..%2fapp.py", "/page/nothing.js", "/page/"):
        assert httpx.get(open_url + path).status_code in (404, 405), path


@pytest.mark.parametrize("shown", [False, True])
def test_the_log_has_no_text_unless_it_is_asked_for(caplog, shown):
    with caplog.at_level(logging.DEBUG, "vermilion"), serving(log_text=shown) as url:
        httpx.post(f"{url}/v1/audio/transcriptions?secret=1", data=DATA, files=FILE)
    said = caplog.text
    assert "/v1/audio/transcriptions 200" in said
    assert "secret=1" not in said
    assert ("440 hertz" in said) == shown
    assert ("secret plan" in said) == shown


def test_others_are_let_in_only_on_purpose(tmp_path):
    with pytest.raises(OptionsError, match="vermilion keys add"):
        ServerOptions(models=FakeModels(), host="0.0.0.0")
    ServerOptions(models=FakeModels(), host="0.0.0.0", insecure=True)
    ServerOptions(models=FakeModels(), host="192.168.1.2", keys=tmp_path / "keys.json")
    with pytest.raises(OptionsError, match="Wyoming"):
        ServerOptions(models=FakeModels(), host="0.0.0.0", keys=tmp_path / "keys.json", wyoming_port=10300)
    for name in ("localhost", "127.0.0.1", "::1", "127.1.2.3"):
        assert ServerOptions(models=FakeModels(), host=name).keys is None
    with pytest.raises(OptionsError):
        Limits(upload_bytes=0)
