"""The live sockets, spoken by real clients against a real server: OpenAI realtime, FunASR, Wyoming, our own."""

import asyncio
import base64
import json
import os
import random
import time
from contextlib import asynccontextmanager, contextmanager

import httpx
import numpy as np
import openai
import pytest
import websockets
import websockets.sync.client
from server_helpers import serving, tone
from websockets.exceptions import ConnectionClosed
from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.info import Describe, Info

from vermilion.server.app import create_app
from vermilion.server.g711 import expand
from vermilion.server.options import Limits
from vermilion.server.pieces import continuation
from vermilion.server.running import funasr_app
from vermilion.server.wyoming import WyomingServer, to_mono
from vermilion.testing import FakeModels

SPEECH = np.concatenate([np.zeros(8000), tone(440, 1.5), np.zeros(16000), tone(600, 1.0), np.zeros(16000)])


def pcm(samples, rate=16000):
    if rate != 16000:
        import soxr

        samples = soxr.resample(np.asarray(samples), 16000, rate)
    return (np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes()


@pytest.fixture(scope="module")
def server():
    details = {}
    with serving(details=details) as url:
        yield url, details["parts"].desk.engines


@pytest.fixture
def url(server):
    yield server[0]
    settled(server[1])


def settled(engines):
    """No session and no request is left behind."""
    for _ in range(100):
        if not engines.live_open and not engines.waiting_seconds:
            break
        time.sleep(0.05)
    assert engines.live_open == 0
    assert engines.waiting_seconds == 0


def run(work, seconds=30):
    return asyncio.run(asyncio.wait_for(work, seconds))


# ---- OpenAI realtime


async def realtime(url, session, audio, *, commit=False, events=2, chunk=9600):
    """Play audio through the official client; returns its events until so many transcripts are complete."""
    found, done = [], 0
    async with (
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client,
        client.realtime.connect(extra_query={"intent": "transcription"}) as connection,
    ):
        if session is not None:
            await connection.session.update(session=session)
        for start in range(0, len(audio), chunk):
            await connection.input_audio_buffer.append(audio=base64.b64encode(audio[start : start + chunk]).decode())
        if commit:
            await connection.input_audio_buffer.commit()
        async for event in connection:
            found.append(event)
            done += event.type.endswith((".completed", ".failed")) or event.type == "error"
            if done == events:
                break
    return found


def session(**given):
    return {"type": "transcription", "audio": {"input": given}}


def test_realtime_with_voice_activity_detection(url):
    found = run(realtime(url, session(transcription={"model": "whisper-1", "language": "en"}), pcm(SPEECH, 24000)))
    kinds = [e.type for e in found]
    assert kinds[:2] == ["session.created", "session.updated"]
    assert found[1].session.audio.input.transcription.language == "en"
    assert found[1].session.audio.input.turn_detection.type == "server_vad"
    assert all(e.event_id for e in found)
    texts = [e.transcript for e in found if e.type.endswith("transcription.completed")]
    assert [t.split()[1] for t in texts] == ["440", "600"]
    started = [e for e in found if e.type.endswith("speech_started")]
    stopped = [e for e in found if e.type.endswith("speech_stopped")]
    committed = [e for e in found if e.type.endswith("committed")]
    assert abs(started[0].audio_start_ms - 500) < 150
    assert abs(stopped[0].audio_end_ms - 2000) < 300
    items = [e.item_id for e in started]
    assert items == [e.item_id for e in stopped] == [e.item_id for e in committed]
    assert [e.previous_item_id for e in committed] == [None, items[0]]
    for item, text in zip(items, texts, strict=True):
        of_item = [e for e in found if getattr(e, "item_id", None) == item]
        said = "".join(e.delta for e in of_item if e.type.endswith("transcription.delta"))
        assert text.casefold().startswith(said[:4].casefold())  # words of a hypothesis have no capitals yet
        assert of_item[-1].type.endswith("completed")
        assert of_item[-1].usage.seconds > 0.9


def test_realtime_with_commits_of_the_client(url):
    found = run(realtime(url, session(turn_detection=None), pcm(tone(500), 24000), commit=True, events=1))
    assert [e.type for e in found][2:] == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
    ]
    assert found[-1].transcript == "Tone 500 hertz."
    assert found[-1].usage.seconds == 1.0


@pytest.mark.parametrize("kind", ["audio/pcmu", "audio/pcma"])
def test_realtime_of_telephones(url, kind):
    wanted = session(format={"type": kind}, turn_detection=None)
    coded = compress(pcm(tone(500), 8000), kind)
    found = run(realtime(url, wanted, coded, commit=True, events=1))
    assert found[-1].transcript == "Tone 500 hertz."


def compress(data, kind):
    """The nearest code of each sample."""
    table = np.frombuffer(expand(bytes(range(256)), kind), "<i2").astype(int)
    order = np.argsort(table, kind="stable")
    samples = np.frombuffer(data, "<i2").astype(int)
    at = np.clip(np.searchsorted(table[order], samples), 1, 255)
    left = np.abs(table[order][at - 1] - samples) <= np.abs(table[order][at] - samples)
    return order[np.where(left, at - 1, at)].astype(np.uint8).tobytes()


def test_g711_tables_are_those_of_the_standard():
    for kind, pairs in (
        ("audio/pcmu", {0x00: -32124, 0x80: 32124, 0x7F: 0, 0xFF: 0, 0x7E: -8, 0xEF: 132}),
        ("audio/pcma", {0x55: -8, 0xD5: 8, 0x2A: -32256, 0xAA: 32256, 0x54: -24}),
    ):
        for code, sample in pairs.items():
            assert np.frombuffer(expand(bytes([code]), kind), "<i2")[0] == sample, (kind, hex(code))


def sync(url, path="/v1/realtime?intent=transcription", **more):
    return websockets.sync.client.connect(url.replace("http", "ws") + path, **more)


def ask(socket, message):
    socket.send(json.dumps(message) if isinstance(message, dict) else message)
    return json.loads(socket.recv(10))


def test_realtime_in_the_shape_of_the_beta(url):
    with sync(url, additional_headers={"OpenAI-Beta": "realtime=v1"}, subprotocols=["realtime"]) as socket:
        assert socket.subprotocol == "realtime"
        assert json.loads(socket.recv())["type"] == "transcription_session.created"
        wanted = {
            "input_audio_format": "pcm16",
            "input_audio_transcription": {"model": "gpt-4o-transcribe"},
            "turn_detection": None,
        }
        answer = ask(socket, {"type": "transcription_session.update", "session": wanted})
        assert answer["type"] == "transcription_session.updated"
        assert answer["session"]["input_audio_format"] == "pcm16"
        audio = base64.b64encode(pcm(tone(500), 24000)).decode()
        socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        assert ask(socket, {"type": "input_audio_buffer.commit"})["type"] == "input_audio_buffer.committed"
        assert json.loads(socket.recv())["type"] == "conversation.item.created"


def test_realtime_tells_errors_and_goes_on(url):
    with sync(url) as socket:
        socket.recv()
        for message, code in (
            ("{", "invalid_json"),
            ("[]", "invalid_json"),
            ({"type": "response.create", "event_id": "mine"}, "unknown_event"),
            ({"type": "input_audio_buffer.append", "audio": "*"}, "invalid_audio"),
            ({"type": "input_audio_buffer.append"}, "invalid_audio"),
            ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty"),
            ({"type": "session.update", "session": session(transcription={"model": "gpt-17"})}, "model_not_found"),
            ({"type": "session.update", "session": session(transcription={"language": "tlh-x"})}, None),
            ({"type": "session.update", "session": session(format={"type": "audio/mp3"})}, "invalid_value"),
            ({"type": "session.update", "session": session(format={"type": "audio/pcm", "rate": 1})}, "invalid_value"),
            ({"type": "session.update", "session": session(turn_detection={"type": "magic"})}, "invalid_value"),
            ({"type": "session.update", "session": {"type": "realtime"}}, "invalid_value"),
            ({"type": "session.update", "session": 7}, "invalid_value"),
        ):
            answer = ask(socket, message)
            if code is not None:
                assert answer["type"] == "error", message
                assert answer["error"]["code"] == code
        assert ask(socket, {"type": "nothing", "event_id": "mine"})["error"]["event_id"] == "mine"
        assert ask(socket, {"type": "input_audio_buffer.clear"})["type"] == "input_audio_buffer.cleared"


# ---- FunASR: a client after the facts of its protocol


@pytest.fixture(scope="module")
def funasr():
    details = {}

    def app_of(options, parts):
        app = funasr_app(parts, options)

        @app.get("/ready")
        async def ready():
            return {}

        app.router.lifespan_context = lambda _: parts.running()
        return app

    with serving(app_of=app_of, details=details) as url:
        yield url
        settled(details["parts"].desk.engines)


def funasr_client(url, mode, samples, *, rate=16000, chunk=960, name="demo", socket=None):
    """Messages until the one that is final."""
    first = {"mode": mode, "wav_name": name, "is_speaking": True, "wav_format": "pcm", "audio_fs": rate,
             "chunk_size": [5, 10, 5], "chunk_interval": 10, "hotwords": '{"阿里巴巴": 20}', "itn": True}  # fmt: skip
    data = pcm(samples, rate)
    socket.send(json.dumps(first))
    for start in range(0, len(data), chunk):
        socket.send(data[start : start + chunk])
    socket.send(json.dumps({"is_speaking": False}))
    found = []
    while not found or not found[-1]["is_final"]:
        found.append(json.loads(socket.recv(20)))
    return found


@contextmanager
def funasr_socket(url):
    with websockets.sync.client.connect(url.replace("http", "ws"), subprotocols=["binary"]) as socket:
        assert socket.subprotocol == "binary"
        yield socket


def test_funasr_2pass(funasr):
    with funasr_socket(funasr) as socket:
        for name in ("one", "two"):  # the next stream on the same socket
            found = funasr_client(funasr, "2pass", SPEECH, name=name, socket=socket)
            finals = [m for m in found if m["mode"] == "2pass-offline" and m["text"]]
            assert [m["text"].split()[1] for m in finals] == ["440", "600"]
            assert {m["mode"] for m in found} <= {"2pass-online", "2pass-offline"}
            assert {m["wav_name"] for m in found} == {name}
            times = json.loads(finals[0]["timestamp"])
            assert len(times) == 3
            assert 300 <= times[0][0] < times[-1][1] <= 2600
            sentence = finals[0]["stamp_sents"][0]
            assert sentence["punc"] == "."
            assert sentence["ts_list"] == times
            assert sentence["text_seg"].split()[0] == "tone"
            assert [m["is_final"] for m in found].count(True) == 1


@pytest.mark.parametrize(("mode", "rate"), [("offline", 8000), ("online", 16000), ("2pass", 48000)])
def test_funasr_modes_and_rates(funasr, mode, rate):
    with funasr_socket(funasr) as socket:
        found = funasr_client(funasr, mode, SPEECH, rate=rate, chunk=961, socket=socket)  # half samples too
        text = "".join(m["text"] for m in found if m["mode"] in ("offline", "online", "2pass-offline"))
        assert "440" in text
        assert "600" in text
        if mode == "offline":
            assert [m["mode"] for m in found] == ["offline"]


def test_funasr_silence_ends_too(funasr):
    with funasr_socket(funasr) as socket:
        assert [m["text"] for m in funasr_client(funasr, "2pass", np.zeros(16000), socket=socket)] == [""]


@pytest.mark.parametrize(
    "first", [b"\0\0", "{", "[]", '{"mode": "magic"}', '{"audio_fs": 1}', '{"audio_fs": "x"}', '{"wav_format": "mp3"}']
)
def test_funasr_wrong_beginnings_are_told(funasr, first):
    with funasr_socket(funasr) as socket:
        socket.send(first)
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(10)
        assert caught.value.rcvd.code == 1008
        assert caught.value.rcvd.reason


def test_pieces_make_a_text():
    assert continuation("", "Tone 440.") == "Tone 440."
    assert continuation("tone", "tone 440") == " 440"
    assert continuation("tone 4", "Tone, 440 hertz.") == "40 hertz."
    assert continuation("tone", "Tone") == ""
    assert continuation("你好", "你好，世界。") == "，世界。"
    assert continuation("a longer text", "short") == ""
    assert continuation("Congratulations,", "Congratulations! You won.") == " You won."
    assert continuation("Well, ", "Well. You won.") == "You won."
    assert continuation("你好，", "你好。“世界”") == "“世界”"
    assert continuation("Congratulations", "Congratulations! You") == "! You"


# ---- our own


def live(url, samples, rate=16000, chunk=3200, query=""):
    found = []
    with sync(url, f"/v1/live?rate={rate}{query}", subprotocols=["vermilion"]) as socket:
        data = pcm(samples, rate)
        for start in range(0, len(data), chunk):
            socket.send(data[start : start + chunk])
        socket.send('{"type": "finish"}')
        while not found or found[-1]["type"] != "finished":
            found.append(json.loads(socket.recv(20)))
    return found


def test_live(url):
    found = live(url, SPEECH, 48000)
    kinds = [e["type"] for e in found]
    assert [k for k in kinds if k.startswith("Speech")] == ["SpeechStarted", "SpeechEnded"] * 2
    assert kinds.index("SpeechEnded") < kinds.index("Final")  # it may come after the next start: decoding takes time
    assert kinds[-1] == "finished"
    assert [e["text"].split()[1] for e in found if e["type"] == "Final"] == ["440", "600"]


def test_live_does_not_depend_on_the_frames(url):
    whole = [e for e in live(url, SPEECH, chunk=100_000) if e["type"] == "Final"]
    odd = [e for e in live(url, SPEECH, chunk=1777) if e["type"] == "Final"]
    for a, b in zip(whole, odd, strict=True):
        assert (a["text"], a["start_ms"], a["end_ms"]) == (b["text"], b["start_ms"], b["end_ms"])


def test_live_cuts_by_hand(url):
    with sync(url, "/v1/live?rate=16000") as socket:
        socket.send(pcm(np.concatenate([np.zeros(8000), tone(440, 2.0)])))
        socket.send('{"type": "cut"}')
        while (event := json.loads(socket.recv(20)))["type"] != "Final":
            pass
        assert event["text"].split()[1] == "440"


@pytest.mark.parametrize("query", ["rate=1", "rate=x", "rate=", "rate=16000&language=klingon", "rate=99999999999"])
def test_live_refuses_what_cannot_be(url, query):
    with pytest.raises((ConnectionClosed, websockets.exceptions.InvalidStatus)), sync(url, f"/v1/live?{query}") as s:
        s.recv(10)


def test_live_sessions_are_limited_and_freed():
    details = {}
    with serving(limits=Limits(live_sessions=2), details=details) as url:
        for _ in range(3):
            with sync(url, "/v1/live?rate=16000") as a, sync(url, "/v1/live?rate=16000") as b:
                a.send(pcm(tone(440)))
                b.send(pcm(tone(440)))
                with sync(url, "/v1/live?rate=16000") as c:
                    assert json.loads(c.recv(10))["error"]["code"] == "overloaded"
                    with pytest.raises(ConnectionClosed) as caught:
                        c.recv(10)
                    assert caught.value.rcvd.code == 1013
            settled(details["parts"].desk.engines)


# ---- Wyoming


@contextmanager
def wyoming_server(**more):
    """The pool lives in the loop of its own server: Wyoming is served from there."""
    found = {}

    def app_of(options, parts):
        app = create_app(options, parts)
        inner = app.router.lifespan_context

        @asynccontextmanager
        async def lifespan(a):
            async with inner(a):
                server = WyomingServer(
                    parts.desk.engines, models={"asr": "fake-asr"}, languages=["en"], version="1", **more
                )
                await server.start("127.0.0.1", 0)
                found["port"] = server.port
                yield
                await server.close()

        app.router.lifespan_context = lifespan
        return app

    details = {}
    with serving(app_of=app_of, details=details):
        yield found["port"]
        settled(details["parts"].desk.engines)


@pytest.fixture(scope="module")
def wyoming_port():
    with wyoming_server() as port:
        yield port


async def say(client, samples, *, width=2, channels=1, rate=16000):
    data = np.frombuffer(pcm(samples, rate), "<i2")
    if width == 4:
        data = data.astype("<i4") << 16
    data = np.repeat(data[:, None], channels, axis=1)
    await client.write_event(Transcribe(language="en").event())
    await client.write_event(AudioStart(rate, width, channels).event())
    raw = data.tobytes()
    for start in range(0, len(raw), 4096 * channels):
        await client.write_event(AudioChunk(rate, width, channels, raw[start : start + 4096 * channels]).event())
    await client.write_event(AudioStop().event())
    events = []
    while not events or not Transcript.is_type(events[-1].type):
        events.append(await client.read_event())
    return events


def test_wyoming_describes_itself(wyoming_port):
    async def work():
        async with AsyncTcpClient("127.0.0.1", wyoming_port) as client:
            await client.write_event(Describe().event())
            info = Info.from_event(await client.read_event())
            assert info.asr[0].models[0].languages == ["en"]
            assert info.asr[0].supports_transcript_streaming

    run(work())


@pytest.mark.parametrize(("width", "channels", "rate"), [(2, 1, 16000), (2, 2, 22050), (4, 1, 48000)])
def test_wyoming_transcribes(wyoming_port, width, channels, rate):
    async def work():
        async with AsyncTcpClient("127.0.0.1", wyoming_port) as client:
            for _ in range(2):
                events = await say(client, SPEECH, width=width, channels=channels, rate=rate)
                found = Transcript.from_event(events[-1])
                assert found.text.split()[1::3] == ["440", "600"]
                assert found.language == "en"
                assert TranscriptStart.is_type(events[0].type)
                chunks = [TranscriptChunk.from_event(e).text for e in events if TranscriptChunk.is_type(e.type)]
                assert "".join(chunks) == found.text
                await client.read_event()  # transcript-stop

    run(work())


def test_wyoming_always_gives_a_transcript(wyoming_port):
    async def work():
        async with AsyncTcpClient("127.0.0.1", wyoming_port) as client:
            assert Transcript.from_event((await say(client, np.zeros(16000)))[-1]).text == ""
            await client.write_event(AudioStop().event())
            assert Transcript.from_event(await client.read_event()).text == ""

    run(work())


@pytest.mark.parametrize(
    "raw",
    [b"x\n", b"[]\n", b"{}\n", b'{"type": 1}\n', b'{"type": "audio-start"}\n', b'{"type": "a", "data": 1}\n',
     b'{"type": "audio-start", "data": {"rate": 1, "width": 2, "channels": 1}}\n', b"{" * 100_000 + b"\n",
     b'{"type": "audio-chunk", "payload_length": 1000000000000}\n', b'{"type": "a", "data_length": -1}\n',
     b'{"type": "transcribe", "data": {"language": "klingon"}}\n', b'{"type": "audio-chunk", "data": {}}\n'],
)  # fmt: skip
def test_wyoming_refuses_what_is_malformed(wyoming_port, raw):
    async def work():
        reader, writer = await asyncio.open_connection("127.0.0.1", wyoming_port)
        writer.write(raw)
        writer.write_eof()
        answer = await reader.read()
        assert b'"error"' in answer
        writer.close()

    run(work())


def test_wyoming_connections_are_limited_and_time_out():
    async def work(port):
        first = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.1)
        async with AsyncTcpClient("127.0.0.1", port) as client:
            assert Error.from_event(await client.read_event()).code == "overloaded"
        assert await first[0].read() == b""  # idle for too long
        first[1].close()

    with wyoming_server(max_connections=1, idle_seconds=0.5) as port:
        run(work(port))


def test_samples_of_every_width_become_mono():
    samples = np.array([0, 1000, -1000, 32767, -32768], "<i2")
    assert to_mono(samples.tobytes() + b"\0", 2, 1) == samples.tobytes()
    wide = (samples.astype("<i4") << 16).tobytes()
    assert to_mono(wide, 4, 1) == samples.tobytes()
    three = b"".join(b"\0" + s.tobytes() for s in samples)
    assert to_mono(three, 3, 1) == samples.tobytes()
    eight = ((samples.astype(int) >> 8) + 128).astype(np.uint8).tobytes()
    assert np.abs(np.frombuffer(to_mono(eight, 1, 1), "<i2").astype(int) - samples).max() < 256
    assert np.frombuffer(to_mono(np.repeat(samples, 2).tobytes(), 2, 2), "<i2").tolist() == samples.tolist()


# ---- hostile frames


def mutations(seeds, count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data) + 1)
            match rng.randrange(4):
                case 0:
                    data[at : at + 1] = bytes([rng.randrange(256)])
                case 1:
                    del data[at : at + rng.randrange(8)]
                case 2:
                    data[at:at] = rng.randbytes(rng.randrange(8))
                case 3:
                    data[at:at] = rng.choice(seeds)[: rng.randrange(40)]
        yield bytes(data), rng.random() < 0.8


def seeds():
    audio = base64.b64encode(pcm(tone(440, 0.1), 24000)).decode()
    frames = [
        {"type": "session.update", "session": session(format={"type": "audio/pcm", "rate": 24000})},
        {"type": "transcription_session.update", "session": {"input_audio_format": "g711_alaw"}},
        {"type": "session.update", "session": session(turn_detection=None)},
        {"type": "session.update", "session": session(turn_detection={"type": "server_vad", "silence_duration_ms": 9})},
        {"type": "input_audio_buffer.append", "audio": audio},
        {"type": "input_audio_buffer.commit"},
        {"type": "finish"},
        {"type": "cut"},
        {"mode": "2pass", "is_speaking": True, "audio_fs": 16000},
        {"is_speaking": False},
    ]
    return [json.dumps(f).encode() for f in frames] + [pcm(tone(440, 0.05))]


COUNT = int(os.environ.get("VERMILION_TEST_FUZZ", "300"))


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/v1/realtime", "/v1/live?rate=16000"])
def test_mutated_frames_harm_nobody(url, path):
    hostile(url, path, COUNT)


def test_mutated_frames_of_funasr_harm_nobody(funasr):
    hostile(funasr, "/", COUNT)


def hostile(url, path, count):
    """Sends mutated frames; a socket that is closed is opened again. At the end a good client is served."""
    frames = mutations(seeds(), count, 11)
    sent, codes = 0, set()
    while sent < count:
        try:
            with sync(url, path, close_timeout=5) as socket:
                for data, text in frames:
                    sent += 1
                    socket.send(data.decode("utf-8", "replace") if text else data)
        except ConnectionClosed as end:
            codes.add(end.rcvd.code if end.rcvd else 1006)
    assert codes <= {1000, 1003, 1006, 1007, 1008, 1009}  # never 1011: nothing failed inside
    assert httpx.get(f"{url}/ready").status_code == 200


def test_clients_that_vanish_leave_nothing(server):
    url, engines = server
    for i in range(12):
        path = ("/v1/realtime", "/v1/live?rate=16000")[i % 2]
        socket = sync(url, path)
        data = pcm(tone(440, 0.5))
        if i % 2:
            socket.send(data)
        else:
            socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(data).decode()}))
        socket.socket.close()
    settled(engines)


def test_slow_models_do_not_lose_events():
    with serving(FakeModels(delay=0.3)) as url:
        found = live(url, SPEECH)
        assert [e["text"].split()[1] for e in found if e["type"] == "Final"] == ["440", "600"]
