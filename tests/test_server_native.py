"""Our own live socket."""

import contextlib
import json
import random
import time

import pytest
import websockets.sync.client
from live_links import Counter, Engines, chunks, mutations, served, talk
from websockets.exceptions import ConnectionClosed

from vermilion.server import socket_helpers

SPEECH = talk(0.5, 1.5, 1.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def there():
    with served() as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_is_left(there):
    yield
    there.settle()


def connect(there, query="rate=16000", **more):
    return websockets.sync.client.connect(there.url(f"/v1/live?{query}"), **more)


def rest(socket):
    """What is still told, and how the socket ends."""
    found = []
    try:
        while True:
            found.append(json.loads(socket.recv(20)))
    except ConnectionClosed as end:
        return found, end.rcvd


def play(there, data, size=3200, query="rate=16000"):
    with connect(there, query) as socket:
        for piece in chunks(data, size):
            socket.send(piece)
        socket.send('{"type": "finish"}')
        found, end = rest(socket)
    assert end.code == 1000
    assert found[-1] == {"type": "finished", "events": len(found) - 1}
    return found[:-1]


def finals(found):
    return [(e["text"], e["start_ms"], e["end_ms"]) for e in found if e["type"] == "Final"]


def test_events_in_order(there):
    with connect(there, subprotocols=["vermilion", "key.abc"]) as socket:
        assert socket.subprotocol == "vermilion"
    found = play(there, SPEECH)
    assert [e["type"] for e in found if e["type"] != "Partial"] == 2 * ["SpeechStarted", "SpeechEnded", "Final"]
    assert [text for text, _, _ in finals(found)] == ["one two three", "one two"]
    assert any(e["type"] == "Partial" and e["text"] for e in found)
    assert all(w["text"] for e in found if e["type"] == "Final" for w in e["words"])


def test_the_size_of_frames_changes_nothing(there):
    expected = finals(play(there, SPEECH))
    for seed in range(5):
        assert finals(play(there, SPEECH, random.Random(seed))) == expected
    assert finals(play(there, SPEECH, 1 << 20)) == expected


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_rates_and_languages(there, rate):
    found = play(there, talk(0.5, 1.5, 1.0, rate=rate), query=f"rate={rate}&language=zh")
    assert [text for text, _, _ in finals(found)] == ["one two three"]
    assert there.engines.languages[-1] == "zh"


def test_nothing_said(there):
    assert play(there, talk(1.0)) == []
    assert play(there, b"") == []
    assert play(there, b"\0") == []


def test_cut_by_hand(there):
    with connect(there) as socket:
        socket.send(talk(0.5, 2.0))
        socket.send('{"type": "cut"}')
        while (event := json.loads(socket.recv(20)))["type"] != "Final":
            pass
        assert event["text"] == "one two three four"


@pytest.mark.parametrize(
    "frame", ["", "{", "[]", "7", '{"type": 7}', '{"type": "nothing"}', '{"type": ["cut"]}', "\x00"]
)
def test_wrong_text_is_told(there, frame):
    with connect(there) as socket:
        socket.send(frame)
        found, end = rest(socket)
    assert found[-1]["type"] == "error"
    assert found[-1]["error"]["type"] == "invalid_request_error"
    assert end.code == 1008


def test_long_frames_close(there):
    with connect(there) as socket:
        socket.send(bytes((1 << 20) + 2))
        assert rest(socket)[1].code == 1009


def test_busy_and_failing_engines():
    with served(Engines(most=1, breaks_after=1.0)) as there:
        with connect(there) as first:
            first.send(talk(0.5))
            time.sleep(0.1)
            with connect(there) as second:
                found, end = rest(second)
            assert (found[0]["error"]["code"], end.code) == ("overloaded", 1013)
            first.send(talk(0.6))
            found, end = rest(first)
            assert (found[-1]["error"]["message"], end.code) == ("the engine ended", 1011)
        there.settle()
        there.engines.error = ValueError("a secret of the inside")
        with connect(there) as third:
            third.send(talk(1.1))
            found, end = rest(third)
        assert end.code == 1011
        assert "secret" not in json.dumps(found) + end.reason


def test_a_failed_utterance_is_told():
    recognizer = Counter()
    recognizer.fail = True
    with served(Engines(recognizer)) as there:
        [final] = [e for e in play(there, talk(0.5, 1.0, 1.0)) if e["type"] == "Final"]
        assert "no memory" in final["failure"]


def test_silence_of_the_client_and_long_sessions_end():
    with served(limits={"idle_seconds": 0.3, "session_seconds": 1.2}) as there:
        with connect(there) as socket:
            socket.send(talk(0.2))
            _, end = rest(socket)
            assert (end.code, end.reason) == (1001, "nothing was sent for too long")
        with connect(there) as socket:
            with contextlib.suppress(ConnectionClosed):
                for _ in range(100):
                    socket.send(talk(0.1))
                    time.sleep(0.05)
            _, end = rest(socket)
            assert (end.code, end.reason) == (1001, "the session is too long")


def test_a_slow_answer_is_waited_for():
    recognizer = Counter()
    recognizer.delay = 1.0
    with served(Engines(recognizer, background=True), limits={"idle_seconds": 0.3}) as there:
        assert [text for text, _, _ in finals(play(there, talk(0.3, 1.0, 1.0)))] == ["one two"]


def test_a_client_that_reads_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(socket_helpers, "SEND_SECONDS", 0.5)
    monkeypatch.setattr(socket_helpers, "CLOSE_SECONDS", 0.5)
    with served(Engines(flood=True)) as there:
        socket = connect(there, max_queue=1, compression=None)
        there.settle(20)
        assert there.engines.opened == 1
        socket.socket.close()


def test_an_engine_that_takes_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(socket_helpers, "STALL_SECONDS", 0.3)
    with served(Engines(stuck=True)) as there, connect(there) as socket:
        socket.send(talk(0.2))
        assert rest(socket)[1].code == 1013


def test_clients_that_vanish_leave_nothing():
    recognizer = Counter()
    recognizer.delay = 0.3
    with served(Engines(recognizer, background=True)) as there:
        for after in range(8):
            socket = connect(there).__enter__()
            for piece in list(chunks(SPEECH, 16000))[:after]:
                socket.send(piece)
            if after == 7:
                socket.send('{"type": "finish"}')
            if after % 2:
                socket.close()
            else:
                socket.socket.close()
        there.settle()
        assert there.engines.opened <= 8


def test_damaged_frames_harm_nobody(there, caplog):
    seeds = [b'{"type": "finish"}', b'{"type": "cut"}', talk(0.0, 0.05), talk(0.3, 0.3, 0.3)]
    codes = hostile(there, "/v1/live?rate=16000", mutations(seeds, 300, 1))
    assert codes <= {1000, 1006, 1008}
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_others_go_on_meanwhile(there):
    with connect(there) as good:
        good.send(SPEECH[:60_000])
        for wrong in ("{", bytes((1 << 20) + 1), "\x00"):
            with connect(there) as bad:
                bad.send(SPEECH)
                bad.send(wrong)
                assert rest(bad)[1].code in (1008, 1009)
        good.send(SPEECH[60_000:])
        good.send('{"type": "finish"}')
        found, end = rest(good)
    assert ([text for text, _, _ in finals(found)], end.code) == (["one two three", "one two"], 1000)


def hostile(there, path, frames):
    """Send all of them; a socket that is closed is opened again."""
    codes, left = set(), True
    while left:
        left = False
        try:
            with websockets.sync.client.connect(there.url(path), close_timeout=5) as socket:
                for data, text in frames:
                    left = True
                    socket.send(data.decode("utf-8", "replace") if text else data)
        except ConnectionClosed as end:
            codes.add(end.rcvd.code if end.rcvd else 1006)
    there.settle()
    assert [text for text, _, _ in finals(play(there, SPEECH))] == ["one two three", "one two"]
    return codes
