"""FunASR's protocol, with clients that do what FunASR's own do."""

import json
import random
import time

import pytest
import websockets.sync.client
from live_links import Counter, Engines, chunks, mutations, served, talk
from websockets.exceptions import ConnectionClosed

from vermilion.server import funasr, socket_helpers
from vermilion.server.funasr import stamps
from vermilion.server.pieces import continuation
from vermilion.transcript import Sentence, Word

SPEECH = talk(0.5, 1.5, 1.2, 1.0, 1.2)


@pytest.fixture(scope="module")
def there():
    with served() as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_is_left(there):
    yield
    there.settle()


def connect(there, **more):
    return websockets.sync.client.connect(there.url(), subprotocols=["binary"], **more)


def first(mode, **more):
    message = {"mode": mode, "wav_name": "demo", "is_speaking": True, "wav_format": "pcm", "audio_fs": 16000}
    message |= {"chunk_size": [5, 10, 5], "chunk_interval": 10, "hotwords": '{"阿里巴巴": 20}', "itn": True}
    return json.dumps(message | more)


def stream(socket, mode, data, size=1920, **more):
    """One stream; the messages up to the final one."""
    socket.send(first(mode, **more))
    for piece in chunks(data, size):
        socket.send(piece)
    socket.send('{"is_speaking": false}')
    found = []
    while not found or not found[-1]["is_final"]:
        found.append(json.loads(socket.recv(20)))
    return found


def shown(found):
    """What the clients of FunASR show at the end, and on the way: texts are put behind each other as they come."""
    online, offline, screens = "", "", []
    for message in found:
        if message["mode"] == "2pass-online":
            online += message["text"]
        elif message["mode"] == "online":
            offline += message["text"]
        else:
            online, offline = "", offline + message["text"]
        screens.append(offline + online)
    return screens


def test_2pass(there):
    with connect(there) as socket:
        assert socket.subprotocol == "binary"
        for name in ("one", "two"):  # one stream after the other on one socket
            found = stream(socket, "2pass", SPEECH, wav_name=name)
            assert {m["mode"] for m in found} == {"2pass-online", "2pass-offline"}
            assert {m["wav_name"] for m in found} == {name}
            finals = [m for m in found if m["mode"] == "2pass-offline"]
            assert [m["text"] for m in finals if m["text"]] == ["one two three", " one two"]
            assert [m["is_final"] for m in found] == [False] * (len(found) - 1) + [True]
            assert json.loads(finals[0]["timestamp"]) == finals[0]["stamp_sents"][0]["ts_list"]
            assert finals[0]["stamp_sents"][0]["text_seg"] == "one two three"
            screens = shown(found)
            assert screens[-1] == "one two three one two"
            assert all(screens[-1].startswith(s) for s in screens)
            assert len(set(screens)) >= 4


def test_online_and_offline(there):
    with connect(there) as socket:
        found = stream(socket, "online", SPEECH)
        assert {m["mode"] for m in found} == {"online"}
        assert shown(found)[-1] == "one two three one two"
        [only] = stream(socket, "offline", talk(0.0, 2.0))
        assert (only["mode"], only["text"]) == ("offline", "one two three four")
        assert json.loads(only["timestamp"])[0] == [0, 400]
        assert stream(socket, "2pass", SPEECH)[-1]["is_final"]
        socket.send(first("online"))  # one that ends the socket
    assert there.engines.transcribing == 0


def test_chinese_has_no_blanks():
    with served(Engines(Counter("一二三四", ""))) as there, connect(there) as socket:
        for mode in ("2pass", "online"):
            assert shown(stream(socket, mode, SPEECH))[-1] == "一二三一二"


@pytest.mark.parametrize("mode", ["2pass", "online", "offline"])
def test_the_size_of_frames_changes_nothing(there, mode):
    with connect(there) as socket:
        results = {shown(stream(socket, mode, SPEECH, random.Random(seed)))[-1] for seed in range(4)}
    assert results == {"one two three one two" if mode != "offline" else "one two three four five six seven eight"}


@pytest.mark.parametrize(("mode", "rate"), [("2pass", 8000), ("online", 48000), ("offline", 8000)])
def test_rates(there, mode, rate):
    with connect(there) as socket:
        data = talk(0.0, 1.5, rate=rate) if mode == "offline" else talk(0.5, 1.4, 1.2, rate=rate)
        assert shown(stream(socket, mode, data, audio_fs=rate))[-1] == "one two three"


@pytest.mark.parametrize("mode", ["2pass", "online"])
def test_silence(there, mode):
    with connect(there) as socket:
        for data in (talk(1.0), b"", b"\0"):
            assert [(m["text"], m["is_final"]) for m in stream(socket, mode, data)] == [("", True)]


def test_other_ways_to_end(there):
    with connect(there) as socket:
        socket.send('{"is_speaking": false}')  # nothing was begun
        for end in ({"is_speaking": False, "is_end": True}, {"is_finished": True}):
            for mode in ("2pass", "offline"):
                socket.send(first(mode))
                socket.send(talk(0.3, 1.0, 1.0))
                socket.send(json.dumps(end))
                while not (message := json.loads(socket.recv(20)))["is_final"]:
                    assert "is_end" not in message
                assert message.get("is_end", False) is ("is_end" in end)


def test_the_next_stream_may_begin_before_the_first_is_told():
    recognizer = Counter()
    recognizer.delay = 0.3
    with served(Engines(recognizer, background=True)) as there, connect(there) as socket:
        for name in ("a", "b"):
            socket.send(first("2pass", wav_name=name))
            socket.send(talk(0.3, 1.0, 1.0))
            socket.send('{"is_speaking": false}')
        texts = {}
        while texts.get("b", {}).get("is_final") is not True:
            message = json.loads(socket.recv(20))
            texts[message["wav_name"]] = message
        assert {m["text"] for m in texts.values()} <= {"one two", ""}


@pytest.mark.parametrize(
    "wrong",
    [b"\0\0", "{", "[]", '{"mode": "magic"}', '{"mode": []}', '{"audio_fs": 1}', '{"audio_fs": "x"}',
     '{"audio_fs": 1e9}', '{"wav_format": "mp3"}', '{"mode": "offline", "wav_format": "wav"}'],
)  # fmt: skip
def test_wrong_beginnings_are_told(there, wrong):
    with connect(there) as socket:
        socket.send(wrong)
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(10)
    assert caught.value.rcvd.code == 1008
    assert caught.value.rcvd.reason


def test_offline_recordings_have_a_limit(there, monkeypatch):
    monkeypatch.setattr(funasr, "OFFLINE_BYTES", 32000)
    with connect(there) as socket:
        socket.send(first("offline"))
        socket.send(bytes(32002))
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(10)
    assert (caught.value.rcvd.code, "1 seconds" in caught.value.rcvd.reason) == (1008, True)


def test_busy_and_failing_engines():
    with served(Engines(most=0)) as there, connect(there) as socket:
        socket.send(first("2pass"))
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(10)
        assert caught.value.rcvd.code == 1013
    for mode in ("2pass", "offline"):
        with served(Engines(breaks_after=0, error=ValueError("a secret"))) as there, connect(there) as socket:
            with pytest.raises(ConnectionClosed) as caught:
                stream(socket, mode, talk(1.0))
            assert (caught.value.rcvd.code, "secret" in caught.value.rcvd.reason) == (1011, False)


def test_failed_utterances_are_told():
    recognizer = Counter()
    recognizer.fail = True
    with served(Engines(recognizer)) as there, connect(there) as socket:
        for mode in ("2pass", "online", "offline"):
            found = stream(socket, mode, talk(0.3, 1.0, 1.2))
            assert any("no memory" in m.get("error", "") for m in found), mode


def test_clients_that_vanish_leave_nothing():
    with served(Engines(slow=5.0)) as there:
        for i in range(9):
            socket = connect(there).__enter__()
            socket.send(first(("2pass", "online", "offline")[i % 3]))
            socket.send(SPEECH)
            if i >= 3:
                socket.send('{"is_speaking": false}')
            time.sleep(0.02)
            if i < 6:
                socket.close()
            else:
                socket.socket.close()
        there.settle(3)


def test_a_client_that_reads_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(socket_helpers, "SEND_SECONDS", 0.5)
    monkeypatch.setattr(socket_helpers, "CLOSE_SECONDS", 0.5)
    with served(Engines(flood=True)) as there:
        socket = connect(there, max_queue=1, compression=None)
        socket.send(first("2pass"))
        time.sleep(0.3)
        there.settle(20)
        assert there.engines.opened == 1
        socket.socket.close()


def test_idle_sockets_are_closed():
    with served(limits={"idle_seconds": 0.2}) as there, connect(there) as socket:
        socket.send(first("2pass"))
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(10)
        assert caught.value.rcvd.code == 1001


def test_damaged_frames_harm_nobody(there, caplog):
    seeds = [first(mode).encode() for mode in ("2pass", "online", "offline")] * 2
    seeds += [b'{"is_speaking": false}', talk(0.0, 0.05), talk(0.3, 0.3, 0.3)]
    codes, left, frames = set(), True, mutations(seeds, 300, 2)
    while left:
        left = False
        try:
            with connect(there, close_timeout=5) as socket:
                socket.send(first("2pass"))
                for data, text in frames:
                    left = True
                    socket.send(data.decode("utf-8", "replace") if text else data)
        except ConnectionClosed as end:
            codes.add(end.rcvd.code if end.rcvd else 1006)
    assert codes <= {1000, 1006, 1008}
    there.settle()
    with connect(there) as socket:
        assert shown(stream(socket, "2pass", SPEECH))[-1] == "one two three one two"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_stamps():
    words = [Word("你", 0.1, 0.2), Word("好", 0.25, 0.4)]
    found = stamps([Sentence("你好。", 0.1, 0.4, words), Sentence("ok", 1.0, 1.5, [Word("ok", 1.0, 1.5)])])
    assert found["timestamp"] == "[[100,200],[250,400],[1000,1500]]"
    assert found["stamp_sents"] == [
        {"text_seg": "你 好", "punc": "。", "start": 100, "end": 400, "ts_list": [[100, 200], [250, 400]]},
        {"text_seg": "ok", "punc": "", "start": 1000, "end": 1500, "ts_list": [[1000, 1500]]},
    ]
    assert stamps([]) == stamps([Sentence("no words", 0, 1)]) == {}


def test_pieces_are_never_taken_back():
    rng = random.Random(5)
    for _ in range(300):
        texts = ["".join(rng.choice("aB ,.你好é") for _ in range(rng.randrange(9))) for _ in range(6)]
        said, told = "", ""
        for text in texts:
            piece = continuation(said, text)
            assert text.endswith(piece)
            if piece:
                said, told = text, told + piece
    assert continuation("hello wor", "Hello, world.") == "ld."
