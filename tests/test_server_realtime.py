"""OpenAI's realtime transcription, spoken by the official client and by hand."""

import asyncio
import base64
import contextlib
import json
import random
import time

import numpy as np
import openai
import pytest
import websockets.sync.client
from live_links import Counter, Engines, chunks, mutations, served, talk
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from websockets.exceptions import ConnectionClosed

from vermilion.errors import VermilionError
from vermilion.server import realtime as module
from vermilion.server import socket_helpers
from vermilion.server.g711 import expand
from vermilion.server.realtime_session import Session, Turns, configure

RATE = 24000
SPEECH = talk(0.5, 1.5, 1.0, 1.0, 1.0, rate=RATE)
EVENTS = TypeAdapter(RealtimeServerEvent)
AUDIO = "input_audio_buffer"
TEXT = "conversation.item.input_audio_transcription"


@pytest.fixture(scope="module")
def there():
    with served() as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_is_left(there):
    yield
    there.settle()


def session(**given):
    return {"type": "transcription", "audio": {"input": given}}


# ---- the official client


async def official(there, wanted, data, *, texts, size=9600, commits=()):
    """Play audio (with commits before these pieces); the events until so many texts are complete or have failed."""
    found, done = [], 0
    async with (
        openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{there.port}/v1", api_key="none") as client,
        client.realtime.connect(extra_query={"intent": "transcription"}) as connection,
    ):
        await connection.session.update(session=wanted)
        for i, piece in enumerate([*chunks(data, size), b""]):
            if i in commits:
                await connection.input_audio_buffer.commit()
            await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
        async for event in connection:
            found.append(event)
            done += event.type in (f"{TEXT}.completed", f"{TEXT}.failed", "error")
            if done == texts:
                break
    return found


def play(there, wanted, data, **more):
    found = asyncio.run(asyncio.wait_for(official(there, wanted, data, **more), 30))
    for event in found:
        strict = EVENTS.validate_python(event.to_dict())  # the client itself takes anything
        assert type(strict).__name__ == type(event).__name__
    assert len({event.event_id for event in found}) == len(found)
    return found


def of_kind(found, kind):
    return [event for event in found if event.type == kind]


def transcripts(found):
    return [event.transcript for event in of_kind(found, f"{TEXT}.completed")]


def test_what_a_client_says_of_turns_is_done(there):
    def started(**turns):
        wanted = session(turn_detection={"type": "server_vad", **turns})
        found = play(there, wanted, SPEECH, texts=2)
        shown = found[1].session.audio.input.turn_detection
        assert all(getattr(shown, name) == value for name, value in turns.items())
        return [e.audio_start_ms for e in of_kind(found, f"{AUDIO}.speech_started")]

    plain = started()
    assert started(prefix_padding_ms=50) == plain  # what is shown where nothing was said is what is done
    assert [a - b for a, b in zip(plain, started(prefix_padding_ms=350), strict=True)] == [300, 300]
    least, most = started(threshold=0.1), started(threshold=1.0)  # of the trailing mean over five frames
    assert [b - a for a, b in zip(least, most, strict=True)] == [40, 40]


def test_voice_activity_detection(there):
    found = play(there, session(transcription={"model": "whisper-1", "language": "en"}), SPEECH, texts=2)
    assert [e.type for e in found[:2]] == ["session.created", "session.updated"]
    shown = found[1].session
    assert (shown.type, shown.audio.input.transcription.model, shown.audio.input.format.rate) == (
        "transcription", "whisper-1", RATE,
    )  # fmt: skip
    assert shown.audio.input.turn_detection.silence_duration_ms == 500
    assert transcripts(found) == ["one two three", "one two"]
    assert there.engines.languages[-1] == "en"
    items = [e.item_id for e in of_kind(found, f"{AUDIO}.speech_started")]
    assert len(set(items)) == 2
    for number, item in enumerate(items):
        own = [
            e for e in found if getattr(e, "item_id", None) == item or getattr(e, "item", None) and e.item.id == item
        ]
        kinds = [e.type for e in own if e.type != f"{TEXT}.delta"]
        assert kinds == [
            f"{AUDIO}.speech_started", f"{AUDIO}.speech_stopped", f"{AUDIO}.committed", "conversation.item.added",
            "conversation.item.done", f"{TEXT}.completed",
        ]  # fmt: skip
        deltas = of_kind(own, f"{TEXT}.delta")
        assert "".join(d.delta for d in deltas) == own[-1].transcript
        assert own.index(deltas[0]) < [e.type for e in own].index(f"{AUDIO}.speech_stopped")  # while it was spoken
        chain = {e.previous_item_id for e in own if hasattr(e, "previous_item_id")}
        assert chain == {items[number - 1] if number else None}
    started, stopped = of_kind(found, f"{AUDIO}.speech_started"), of_kind(found, f"{AUDIO}.speech_stopped")
    assert [e.audio_start_ms for e in started] == pytest.approx([450, 2950], abs=80)
    assert [e.audio_end_ms for e in stopped] == pytest.approx([2120, 4120], abs=80)
    usage = of_kind(found, f"{TEXT}.completed")[0].usage
    assert (usage.type, usage.seconds) == ("duration", pytest.approx(1.67, abs=0.08))


def test_the_size_of_appends_changes_nothing(there):
    for seed in range(4):
        found = play(there, session(), SPEECH, texts=2, size=random.Random(seed))
        assert transcripts(found) == ["one two three", "one two"]


@pytest.mark.parametrize("kind", ["audio/pcm", "audio/pcmu", "audio/pcma"])
def test_commits_of_the_client(there, kind):
    form, rate = {"type": kind}, RATE if kind == "audio/pcm" else 8000
    data = talk(0.0, 2.0, rate=rate)
    if kind != "audio/pcm":
        data = np.random.default_rng(0).integers(0, 256, len(data) // 2, dtype=np.uint8).tobytes()
    second = rate * (2 if kind == "audio/pcm" else 1)
    found = play(there, session(format=form, turn_detection=None), data, size=second // 2, commits=(2, 4), texts=2)
    assert found[1].session.audio.input.turn_detection is None
    assert transcripts(found) == ["one two", "one two"]
    committed = of_kind(found, f"{AUDIO}.committed")
    assert [e.previous_item_id for e in committed] == [None, committed[0].item_id]
    assert [e.item_id for e in of_kind(found, f"{TEXT}.completed")] == [e.item_id for e in committed]
    assert [e.usage.seconds for e in of_kind(found, f"{TEXT}.completed")] == [1.0, 1.0]
    assert not of_kind(found, f"{AUDIO}.speech_started")


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_rates(there, rate):
    wanted = session(format={"type": "audio/pcm", "rate": rate})
    with connect(there) as socket:
        assert ask(socket, update(wanted))["session"]["audio"]["input"]["format"]["rate"] == rate
        say(socket, talk(0.5, 1.5, 1.0, rate=rate))
        assert until(socket, f"{TEXT}.completed")[-1]["transcript"] == "one two three"


def test_telephones_with_voice_activity_detection(there):
    with connect(there) as socket:
        ask(socket, update(session(format={"type": "audio/pcmu"})))
        silence, speech = (
            b"\xff" * 8000,
            np.random.default_rng(1).choice([0x10, 0x90], 12000).astype(np.uint8).tobytes(),
        )
        say(socket, silence + speech + silence)
        assert until(socket, f"{TEXT}.completed")[-1]["transcript"] == "one two three"


# ---- by hand


def connect(there, query="intent=transcription", **more):
    return Plain(websockets.sync.client.connect(there.url(f"/v1/realtime?{query}"), **more))


class Plain:
    """A socket whose greeting is read."""

    def __init__(self, connection):
        self.connection = connection

    def __enter__(self):
        self.socket = self.connection.__enter__()
        self.socket.greeting = json.loads(self.socket.recv(10))
        return self.socket

    def __exit__(self, *error):
        return self.connection.__exit__(*error)


def update(wanted, **more):
    return {"type": "session.update", "session": wanted, **more}


def ask(socket, message):
    socket.send(json.dumps(message) if isinstance(message, dict) else message)
    return json.loads(socket.recv(10))


def append(data):
    return json.dumps({"type": f"{AUDIO}.append", "audio": base64.b64encode(data).decode()})


def say(socket, data, size=16000):
    for piece in chunks(data, size):
        socket.send(append(piece))


def until(socket, kind):
    found = []
    while not found or found[-1]["type"] != kind:
        found.append(json.loads(socket.recv(20)))
    return found


def test_the_beta(there):
    with connect(there, additional_headers={"OpenAI-Beta": "realtime=v1"}, subprotocols=["realtime"]) as socket:
        assert socket.subprotocol == "realtime"
        assert socket.greeting["type"] == "transcription_session.created"
        wanted = {"input_audio_format": "g711_alaw", "turn_detection": None, "include": ["x"]}
        wanted["input_audio_transcription"] = {"model": "whisper-1", "language": "zh", "prompt": "names"}
        answer = ask(socket, {"type": "transcription_session.update", "session": wanted})
        assert answer["type"] == "transcription_session.updated"
        for name in ("input_audio_format", "turn_detection", "input_audio_transcription"):
            assert answer["session"][name] == wanted[name]
        say(socket, bytes(8000))
        socket.send(json.dumps({"type": f"{AUDIO}.commit"}))
        found = until(socket, f"{TEXT}.completed")
        assert [e["type"] for e in found[:2]] == [f"{AUDIO}.committed", "conversation.item.created"]
        assert found[-1]["transcript"] == "one two"
    with connect(there) as socket:  # without the header too
        wanted = {"input_audio_format": "pcm16", "turn_detection": {"type": "server_vad", "silence_duration_ms": 200}}
        answer = ask(socket, {"type": "transcription_session.update", "session": wanted})
        assert answer["session"]["turn_detection"]["silence_duration_ms"] == 200


def test_errors_are_told_and_the_socket_stays(there):
    invalid = [
        {"format": {"type": "audio/mp3"}}, {"format": {"type": ["audio/pcm"]}}, {"format": 7},
        {"format": {"type": "audio/pcm", "rate": 1}}, {"format": {"type": "audio/pcm", "rate": "24000"}},
        {"turn_detection": {"type": "magic"}}, {"turn_detection": {"threshold": "x"}}, {"turn_detection": 1},
        {"turn_detection": {"threshold": 2}}, {"turn_detection": {"silence_duration_ms": -1}}, {"transcription": "x"},
        {"transcription": {"prompt": 7}}, {"transcription": {"language": "x" * 5000}},
    ]  # fmt: skip
    with connect(there) as socket:
        for message, code in (
            ("{", "invalid_json"),
            ("[" * 100_000, "invalid_json"),
            ("[]", "invalid_json"),
            (b"\0\0", "invalid_json"),
            ({"type": "response.create"}, "unknown_event"),
            ({"type": ["\ud800"]}, "unknown_event"),
            ({}, "unknown_event"),
            ({"type": f"{AUDIO}.append", "audio": "*"}, "invalid_audio"),
            ({"type": f"{AUDIO}.append", "audio": "AAA"}, "invalid_audio"),
            ({"type": f"{AUDIO}.append", "audio": "ä"}, "invalid_audio"),
            ({"type": f"{AUDIO}.append", "audio": [1]}, "invalid_audio"),
            ({"type": f"{AUDIO}.append"}, "invalid_audio"),
            ({"type": f"{AUDIO}.commit"}, f"{AUDIO}_commit_empty"),
            (update(session(transcription={"model": "gpt-17"})), "model_not_found"),
            (update(session(transcription={"language": "fr"})), "unsupported_language"),
            (update({"type": "realtime"}), "invalid_value"),
            (update(7), "invalid_value"),
            (update({"audio": []}), "invalid_value"),
            *((update(session(**wrong)), "invalid_value") for wrong in invalid),
        ):
            answer = ask(socket, message)
            assert (answer["type"], answer["error"]["code"]) == ("error", code), str(message)[:100]
            EVENTS.validate_python(answer)
        assert ask(socket, {"type": "nothing", "event_id": "mine"})["error"]["event_id"] == "mine"
        assert ask(socket, {"type": "nothing", "event_id": 7})["error"]["event_id"] is None
        say(socket, SPEECH)
        assert until(socket, f"{TEXT}.completed")[-1]["transcript"] == "one two three"


def test_semantic_vad_is_server_vad(there):
    with connect(there) as socket:
        answer = ask(socket, update(session(turn_detection={"type": "semantic_vad", "eagerness": "low"})))
        turns = answer["session"]["audio"]["input"]["turn_detection"]
        assert (turns["type"], turns["silence_duration_ms"]) == ("server_vad", 1000)


def test_the_model_may_stand_in_the_address(there):
    for query, model in (("model=counter", "counter"), ("model=gpt-realtime", None)):
        with connect(there, query) as socket:
            assert socket.greeting["session"]["audio"]["input"]["transcription"]["model"] == model


def test_clear(there):
    with connect(there) as socket:  # the client commits
        ask(socket, update(session(turn_detection=None)))
        say(socket, talk(0.0, 1.0, rate=RATE))
        assert ask(socket, {"type": f"{AUDIO}.clear"})["type"] == f"{AUDIO}.cleared"
        assert ask(socket, {"type": f"{AUDIO}.commit"})["error"]["code"] == f"{AUDIO}_commit_empty"
    with connect(there) as socket:  # the utterance that is over keeps its text, the open one is forgotten
        say(socket, SPEECH + talk(0.0, 0.7, rate=RATE))
        started = [e for e in until(socket, f"{TEXT}.completed") if e["type"] == f"{AUDIO}.speech_started"]
        socket.send(json.dumps({"type": f"{AUDIO}.clear"}))
        found = until(socket, f"{AUDIO}.cleared")
        assert ask(socket, {"type": f"{AUDIO}.commit"})["error"]["code"] == f"{AUDIO}_commit_empty"
        say(socket, SPEECH)
        found += until(socket, f"{TEXT}.completed")
        assert found[-1]["transcript"] in ("one two", "one two three")
        found += until(socket, f"{TEXT}.completed")
        starts = [e["audio_start_ms"] for e in started + found if e["type"] == f"{AUDIO}.speech_started"]
        assert starts == sorted(starts)
        assert starts[-1] == pytest.approx(5700 + 2950, abs=100)  # the clock goes on
        committed = [e for e in found if e["type"] == f"{AUDIO}.committed"]
        assert len([e for e in found if e["type"] == f"{TEXT}.completed"]) == len(committed)


def test_commit_ends_the_open_utterance(there):
    with connect(there) as socket:
        say(socket, talk(0.5, 2.0, rate=RATE))
        socket.send(json.dumps({"type": f"{AUDIO}.commit"}))
        assert until(socket, f"{TEXT}.completed")[-1]["transcript"] == "one two three four"
        assert ask(socket, {"type": f"{AUDIO}.commit"})["error"]["code"] == f"{AUDIO}_commit_empty"


def test_a_change_in_the_middle_loses_nothing(there):
    with connect(there) as socket:
        say(socket, talk(0.5, 1.0, rate=RATE))
        socket.send(json.dumps(update(session(format={"type": "audio/pcm", "rate": 8000}))))
        say(socket, talk(0.5, 1.5, 1.0, rate=8000))
        found = until(socket, f"{TEXT}.completed") + until(socket, f"{TEXT}.completed")
        assert [e["transcript"] for e in found if e["type"] == f"{TEXT}.completed"] == ["one two", "one two three"]
        starts = [e["audio_start_ms"] for e in found if e["type"] == f"{AUDIO}.speech_started"]
        assert starts == pytest.approx([450, 1950], abs=80)
        before = there.engines.opened
        socket.send(json.dumps(update(session(transcription={"prompt": "names"}))))  # this is no change of the audio
        say(socket, talk(0.5, rate=8000))
        until(socket, "session.updated")
        assert there.engines.opened == before
        ask(socket, update(session(turn_detection=None)))
        say(socket, talk(0.5, rate=8000))
        answer = ask(socket, update(session(turn_detection={"type": "server_vad"}), event_id="e1"))
        assert (answer["error"]["code"], answer["error"]["event_id"]) == ("buffer_not_empty", "e1")


def test_long_frames_are_told():
    with served(limits={"text_bytes": 1000, "binary_bytes": 1000}) as there, connect(there) as socket:
        for frame in (append(bytes(2000)), bytes(2000)):
            assert ask(socket, frame)["error"]["code"] == "frame_too_large"
        assert ask(socket, update(session()))["type"] == "session.updated"


def test_too_much_uncommitted_audio_is_told(there, monkeypatch):
    monkeypatch.setattr(module, "MANUAL_SECONDS", 1.0)
    with connect(there) as socket:
        ask(socket, update(session(turn_detection=None)))
        assert ask(socket, append(bytes(2 * RATE + 2)))["error"]["code"] == "buffer_full"
        for _ in range(5):  # more than may wait: the socket is read again when there is room
            say(socket, bytes(2 * RATE), 2 * RATE)
            socket.send(json.dumps({"type": f"{AUDIO}.commit"}))
        for _ in range(5):
            until(socket, f"{TEXT}.completed")


# ---- what goes wrong


def test_busy_engines(there):
    with served(Engines(most=1)) as there, connect(there) as first, connect(there) as second:
        say(first, talk(0.3, rate=RATE))
        time.sleep(0.1)
        answer = ask(second, append(talk(0.1, rate=RATE)))
        assert (answer["error"]["code"], answer["error"]["type"]) == ("overloaded", "overloaded_error")
        there.engines.most = 2
        say(second, SPEECH)
        assert until(second, f"{TEXT}.completed")[-1]["transcript"] == "one two three"


@pytest.mark.parametrize(
    ("error", "code"), [(VermilionError("it ended"), "failed"), (ValueError("x"), "internal_error")]
)
def test_an_engine_that_fails(error, code):
    with served(Engines(breaks_after=3.05, error=error)) as there, connect(there) as socket:
        say(socket, talk(0.5, 1.0, 1.0, 0.6, rate=RATE))
        found = until(socket, "error")
        assert found[-1]["error"]["code"] == code
        assert [e["transcript"] for e in found if e["type"] == f"{TEXT}.completed"] == ["one two"]
        there.engines.breaks_after = None
        say(socket, SPEECH)  # the next audio opens another session
        assert until(socket, f"{TEXT}.completed")[-1]["transcript"] == "one two three"
    with served(Engines(breaks_after=0, error=error)) as there, connect(there) as socket:
        ask(socket, update(session(turn_detection=None)))
        say(socket, bytes(RATE))
        socket.send(json.dumps({"type": f"{AUDIO}.commit"}))
        assert until(socket, "error" if code == "internal_error" else f"{TEXT}.failed")[-1]["error"]["code"] == code


def test_utterances_that_wait_when_the_engine_fails_have_failed():
    recognizer = Counter()
    recognizer.delay = 1.0
    with served(Engines(recognizer, background=True, breaks_after=2.4)) as there, connect(there) as socket:
        say(socket, talk(0.3, 1.0, 1.2, rate=RATE))
        found = until(socket, "error")
        committed = [e["item_id"] for e in found if e["type"] == f"{AUDIO}.committed"]
        assert [e["item_id"] for e in found if e["type"] == f"{TEXT}.failed"] == committed != []


def test_failed_utterances():
    recognizer = Counter()
    recognizer.fail = True
    with served(Engines(recognizer)) as there:
        found = play(there, session(), SPEECH, texts=2)
        assert ["no memory" in e.error.message for e in of_kind(found, f"{TEXT}.failed")] == [True, True]
        found = play(there, session(turn_detection=None), SPEECH, texts=1, size=1 << 20, commits=(1,))
        assert "no memory" in found[-1].error.message


def test_idle_sockets_are_closed_unless_they_wait_for_a_text():
    with served(Engines(slow=1.0), limits={"idle_seconds": 0.3}) as there, connect(there) as socket:
        ask(socket, update(session(turn_detection=None)))
        say(socket, bytes(RATE))
        socket.send(json.dumps({"type": f"{AUDIO}.commit"}))
        until(socket, f"{TEXT}.completed")
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(10)
        assert caught.value.rcvd.code == 1001


def test_a_client_that_reads_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(socket_helpers, "SEND_SECONDS", 0.5)
    monkeypatch.setattr(socket_helpers, "CLOSE_SECONDS", 0.5)
    with served(Engines(flood=True), limits={"idle_seconds": 2}) as there:
        with (
            contextlib.suppress(ConnectionClosed),
            connect(there, max_queue=1, compression=None, close_timeout=0.5) as socket,
        ):
            for _ in range(100):
                say(socket, talk(0.02, rate=RATE))
                time.sleep(0.02)
        there.settle(20)
        assert there.engines.opened == 1


def test_clients_that_vanish_leave_nothing():
    recognizer = Counter()
    recognizer.delay = 0.2
    with served(Engines(recognizer, background=True, slow=5.0)) as there:
        for i in range(10):
            with connect(there) as socket:
                if i % 2:
                    socket.send(json.dumps(update(session(turn_detection=None))))
                for piece in list(chunks(SPEECH, 24000))[: i + 1]:
                    socket.send(append(piece))
                socket.send(json.dumps({"type": f"{AUDIO}.commit"}))
                if i in (4, 5):
                    socket.send(json.dumps({"type": f"{AUDIO}.clear"}))
                    socket.send(append(SPEECH))
                if i > 6:
                    socket.socket.close()
        there.settle(5)


def test_damaged_frames_harm_nobody(there, caplog):
    frames = [
        update(session(format={"type": "audio/pcm", "rate": 24000}, transcription={"model": "counter"})),
        update(session(turn_detection=None)),
        update(session(turn_detection={"type": "server_vad", "silence_duration_ms": 9, "threshold": 0.5})),
        {"type": "transcription_session.update", "session": {"input_audio_format": "g711_alaw"}},
        {"type": f"{AUDIO}.append", "audio": base64.b64encode(talk(0.0, 0.1)).decode()},
        {"type": f"{AUDIO}.commit", "event_id": "1"},
        {"type": f"{AUDIO}.clear"},
    ]
    seeds = [json.dumps(f).encode() for f in frames]
    count = 0
    with connect(there) as socket:  # one socket stands it all
        for data, text in mutations(seeds + seeds[1:2] + seeds[4:6] * 3, 400, 3):
            socket.send(data.decode("utf-8", "replace") if text else data)
        socket.send('{"type": "last", "event_id": "last"}')
        while (event := json.loads(socket.recv(10)))["type"] != "error" or event["error"]["event_id"] != "last":
            if "session" not in event:  # there the rate may be one that only this server takes
                EVENTS.validate_python(event)
            count += 1
    assert count > 300
    with connect(there) as socket:
        say(socket, SPEECH)
        assert until(socket, f"{TEXT}.completed")[-1]["transcript"] == "one two three"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# ---- parts


def test_sessions_are_read_in_both_shapes():
    before = Session(language="en")
    assert configure(before, None) == configure(before, {}) == before
    assert configure(before, {"turn_detection": None}).turns is None
    given = session(format="audio/pcmu", turn_detection={"threshold": None, "silence_duration_ms": 0})
    found = configure(before, given)
    assert (found.samples_per_second, found.turns, found.language) == (8000, Turns(silence_duration_ms=0), "en")
    assert found.live_options().silence_ms == 20
    assert configure(before, {"input_audio_format": "pcm16"}).rate == 24000


def test_g711_tables_are_those_of_the_standard():
    for kind, pairs in (
        ("audio/pcmu", {0x00: -32124, 0x80: 32124, 0x7F: 0, 0xFF: 0, 0x7E: -8, 0xEF: 132}),
        ("audio/pcma", {0x55: -8, 0xD5: 8, 0x2A: -32256, 0xAA: 32256, 0x54: -24}),
    ):
        for code, sample in pairs.items():
            assert np.frombuffer(expand(bytes([code]), kind), "<i2")[0] == sample, (kind, hex(code))
