"""The Wyoming protocol, spoken by its own client, and by clients that do not keep to it."""

import asyncio
import contextlib
import json
import random

import numpy as np
import pytest
from live_links import Counter, Engines, chunks, mutations, served, talk
from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong

from vermilion.server import wyoming as module
from vermilion.server.wyoming import to_mono

RATE = 16000
SPEECH = talk(0.5, 1.5, 1.0, 1.0, 1.0)
TEXT = "one two three one two"


@pytest.fixture(scope="module")
def there():
    with served() as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_is_left(there):
    yield
    there.settle()


def client(there):
    return AsyncTcpClient("127.0.0.1", there.wyoming_port)


def run(work):
    return asyncio.run(asyncio.wait_for(work, 30))


async def say(connection, data, *, form=(RATE, 2, 1), size=4096, asked=None, begin=True):
    """One request; what is told until its transcript (or an error, or the end)."""
    if asked is not None:
        await connection.write_event(asked.event())
    if begin:
        await connection.write_event(AudioStart(*form).event())
    for piece in chunks(data, size):
        await connection.write_event(AudioChunk(*form, piece).event())
    await connection.write_event(AudioStop().event())
    return await answer(connection)


async def answer(connection):
    found = []
    while True:
        event = await connection.read_event()
        found.append(event)
        if event is None or event.type in ("transcript", "error"):
            return found


def wide(data, width, channels):
    samples = np.frombuffer(data, "<i2").astype(np.int64)
    raw = {
        1: lambda: ((samples >> 8) + 128).astype(np.uint8).tobytes(),
        2: lambda: samples.astype("<i2").tobytes(),
        3: lambda: (samples << 8).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes(),
        4: lambda: (samples << 16).astype("<i4").tobytes(),
    }[width]()
    one = np.frombuffer(raw, np.uint8).reshape(-1, width)
    return np.repeat(one[:, None, :], channels, axis=1).tobytes()


def test_description(there):
    async def work():
        async with client(there) as connection:
            await connection.write_event(Describe().event())
            [program] = Info.from_event(await connection.read_event()).asr
            [model] = program.models
            assert (program.name, program.supports_transcript_streaming) == ("vermilion", True)
            assert (model.name, model.languages, model.version) == ("counter", ["en", "zh"], "1.0")
            await connection.write_event(Ping("hello").event())
            assert Pong.from_event(await connection.read_event()).text == "hello"

    run(work())


def test_models_may_be_known_later():
    models = {}
    with served(wyoming={"models": lambda: models, "languages": None}) as there:

        async def work():
            async with client(there) as connection:
                for name in ("vermilion", "late"):
                    await connection.write_event(Describe().event())
                    [model] = Info.from_event(await connection.read_event()).asr[0].models
                    assert (model.name, "yue" in model.languages) == (name, True)
                    models["asr"] = "late"

        run(work())


def test_requests_one_after_the_other(there):
    async def work():
        async with client(there) as connection:
            for language in ("en", "zh", None):
                found = await say(connection, SPEECH, asked=Transcribe(language=language, name="counter"))
                assert [e.type for e in found] == ["transcript-start", *2 * ["transcript-chunk"], "transcript"]
                assert TranscriptStart.from_event(found[0]).language == language
                assert "".join(TranscriptChunk.from_event(e).text for e in found[1:3]) == TEXT
                assert (Transcript.from_event(found[-1]).text, Transcript.from_event(found[-1]).language) == (
                    TEXT,
                    language,
                )
                assert TranscriptStop.is_type((await connection.read_event()).type)
                assert there.engines.languages[-1] == language

    run(work())


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize(("channels", "rate"), [(1, 48000), (2, 16000), (8, 8000)])
def test_widths_channels_and_rates(there, width, channels, rate):
    data = wide(talk(0.5, 1.5, 1.0, rate=rate), width, channels)

    async def work():
        async with client(there) as connection:
            found = await say(connection, data, form=(rate, width, channels), size=9999)  # not whole samples
            assert Transcript.from_event(found[-1]).text == "one two three"

    run(work())


def test_the_size_of_chunks_changes_nothing(there):
    async def work():
        async with client(there) as connection:
            for seed in range(4):
                found = await say(connection, SPEECH, size=random.Random(seed))
                assert Transcript.from_event(found[-1]).text == TEXT
                await connection.read_event()

    run(work())


def test_always_a_transcript(there):
    async def work():
        async with client(there) as connection:
            for data, begin in ((talk(1.0), True), (b"", True), (b"", False), (b"\0", True)):
                [only] = await say(connection, data, begin=begin)
                assert Transcript.from_event(only).text == ""
            found = await say(connection, SPEECH, begin=False)  # chunks say themselves what they are
            assert Transcript.from_event(found[-1]).text == TEXT

    run(work())


def test_a_new_start_forgets_what_was_said(there):
    async def work():
        async with client(there) as connection:
            await connection.write_event(AudioStart(RATE, 2, 1).event())
            await connection.write_event(AudioChunk(RATE, 2, 1, SPEECH).event())
            await connection.write_event(Event("no-such-event", {"x": 1}))
            found = await say(connection, talk(0.3, 1.0, 1.0))
            assert [Transcript.from_event(e).text for e in found if Transcript.is_type(e.type)] == ["one two"]

    run(work())


def header(**fields):
    return json.dumps(fields).encode() + b"\n"


AUDIO = {"rate": RATE, "width": 2, "channels": 1}
WRONG = [
    b"x\n", b"\n", b"[]\n", b"{}\n", header(type=1), header(type="audio-start"), header(type="a", data=1),
    header(type="audio-start", data=AUDIO | {"rate": 1}), header(type="audio-start", data=AUDIO | {"rate": "16000"}),
    header(type="audio-start", data=AUDIO | {"width": 5}), header(type="audio-start", data=AUDIO | {"channels": 9}),
    header(type="audio-start", data=AUDIO | {"channels": 1e999}), b"{" * 100_000 + b"\n", b"[" * 60_000 + b"\n",
    header(type="audio-chunk", payload_length=10**12), header(type="audio-chunk", data_length=10**9),
    header(type="a", data_length=-1), header(type="a", payload_length="1"), header(type="a", data_length=2) + b"[]",
    header(type="a", data_length=2) + b"xx", header(type="transcribe", data={"language": "klingon"}),
    header(type="transcribe", data={"language": "\ud800"}), header(type="transcribe", data={"language": 7}),
    header(type="transcribe", data={"name": "another"}), header(type="transcribe", data={"name": ["\ud800"]}),
    header(type="audio-chunk", data={}), header(type="ping", data={"text": 5}),
    header(type="audio-start", data=AUDIO) + header(type="audio-chunk", data=AUDIO | {"rate": 8000}),
]  # fmt: skip


@pytest.mark.parametrize("raw", WRONG, ids=lambda raw: raw[:50].decode())
def test_what_is_malformed_is_told(there, raw):
    async def work():
        reader, writer = await asyncio.open_connection("127.0.0.1", there.wyoming_port)
        writer.write(raw)
        answer = await reader.read()  # the connection ends
        assert answer.startswith(b'{"type": "error"')
        writer.close()

    run(work())


@pytest.mark.parametrize("more", [{"payload_length": 100}, {"data_length": 100}])
def test_clients_that_leave_in_the_middle(there, more):
    async def work():
        reader, writer = await asyncio.open_connection("127.0.0.1", there.wyoming_port)
        writer.write(header(type="audio-start", data=AUDIO) + header(type="audio-chunk", data=AUDIO, **more) + b"xx")
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()

    run(work())


def test_connections_are_limited_and_time_out():
    with served(wyoming={"max_connections": 1, "idle_seconds": 0.5}) as there:

        async def work():
            reader, _ = await asyncio.open_connection("127.0.0.1", there.wyoming_port)
            await asyncio.sleep(0.1)
            async with client(there) as second:
                assert Error.from_event(await second.read_event()).code == "overloaded"
            assert await reader.read() == b""  # nothing was said
            reader, writer = await asyncio.open_connection("127.0.0.1", there.wyoming_port)
            for byte in header(type="describe")[:9]:  # nor is a drop now and then an event
                writer.write(bytes([byte]))
                await asyncio.sleep(0.1)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""

        run(work())


def test_busy_and_failing_engines(caplog):
    async def work(there, code):
        async with client(there) as connection:
            found = await say(connection, SPEECH)
            error = Error.from_event(found[-1])
            assert (error.code, "secret" in error.text) == (code, False)
            assert await connection.read_event() is None  # those who wait for a transcript see the end

    for engines, code in (
        (Engines(most=0), "overloaded"),
        (Engines(breaks_after=1.0), "failed"),
        (Engines(breaks_after=1.0, error=ValueError("a secret")), "internal_error"),
    ):
        with served(engines) as there:
            run(work(there, code))
    recognizer = Counter()
    recognizer.fail = True
    with served(Engines(recognizer)) as there:
        run(work(there, "failed"))
    assert "one two" not in caplog.text


def test_audio_has_a_limit(there, monkeypatch):
    monkeypatch.setattr(module, "SESSION_SECONDS", 2.0)

    async def work():
        async with client(there) as connection:
            assert Error.from_event((await say(connection, SPEECH))[-1]).code == "audio_too_long"

    run(work())


def test_a_client_that_reads_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.5)
    with served(Engines(flood=True)) as there:

        async def work():
            reader, writer = await asyncio.open_connection("127.0.0.1", there.wyoming_port)
            reader._transport.pause_reading()
            writer.write(header(type="audio-start", data=AUDIO) + header(type="audio-stop"))
            await asyncio.to_thread(there.settle, 20)
            assert there.engines.opened == 1
            writer.transport.abort()

        run(work())


def test_clients_that_vanish_leave_nothing():
    recognizer = Counter()
    recognizer.delay = 0.2
    with served(Engines(recognizer, background=True)) as there:

        async def work():
            for i in range(8):
                connection = client(there)
                await connection.connect()
                await connection.write_event(AudioStart(RATE, 2, 1).event())
                for piece in list(chunks(SPEECH, 16000))[:i]:
                    await connection.write_event(AudioChunk(RATE, 2, 1, piece).event())
                if i % 2:
                    await connection.write_event(AudioStop().event())
                connection._writer.transport.abort() if i % 3 else await connection.disconnect()

        run(work())
        there.settle()


def test_closing_the_server_ends_everything():
    with served(Engines(stuck=True)) as there:

        async def work():
            connection = client(there)
            await connection.connect()
            await connection.write_event(AudioStart(RATE, 2, 1).event())
            await connection.write_event(AudioChunk(RATE, 2, 1, SPEECH).event())
            await asyncio.sleep(0.2)
            assert there.engines.open_sessions == 1
            closing = asyncio.run_coroutine_threadsafe(there.wyoming.close(), there.loop)
            await asyncio.to_thread(closing.result, 5)
            assert there.engines.open_sessions == 0
            assert await connection.read_event() is None

        run(work())


def test_damaged_bytes_harm_nobody(there, caplog):
    chunk = header(type="audio-chunk", data=AUDIO, payload_length=3200) + talk(0.0, 0.1)
    seeds = [
        header(type="describe"), header(type="transcribe", data={"language": "en"}), chunk, header(type="audio-stop"),
        header(type="audio-start", data=AUDIO) + chunk + header(type="audio-stop"),
        header(type="audio-start", data=AUDIO), header(type="transcribe", data_length=18) + b'{"language": "zh"}',
    ]  # fmt: skip

    async def one(pieces):
        reader, writer = await asyncio.open_connection("127.0.0.1", there.wyoming_port)
        try:
            for data, _ in pieces:
                writer.write(data)
            writer.write_eof()
            return await asyncio.wait_for(reader.read(), 10)
        except OSError:
            return b""  # refused before all was said
        finally:
            writer.close()

    async def work():
        frames = list(mutations(seeds, 600, 4))
        for start in range(0, len(frames), 3):
            await one(frames[start : start + 3])
        async with client(there) as connection:
            assert Transcript.from_event((await say(connection, SPEECH))[-1]).text == TEXT

    run(work())
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_samples_become_mono():
    samples = np.array([0, 1000, -1000, 32767, -32768], "<i2")
    for width in (2, 3, 4):
        for channels in (1, 3, 8):
            assert to_mono(wide(samples.tobytes(), width, channels) + b"\0", width, channels) == samples.tobytes()
    low = np.frombuffer(to_mono(wide(samples.tobytes(), 1, 2), 1, 2), "<i2").astype(int)
    assert np.abs(low - samples).max() < 256
    stereo = np.stack([samples, -(samples // 2)], 1).astype("<i2")
    assert np.frombuffer(to_mono(stereo.tobytes(), 2, 2), "<i2").tolist() == pytest.approx(
        ((samples.astype(int) - samples // 2) / 2).tolist(), abs=1
    )
