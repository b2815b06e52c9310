"""OpenAI's HTTP interface, spoken by the official client."""

import json
import threading
import time

import httpx
import numpy as np
import openai
import pysubs2
import pytest
from server_helpers import is_emptied, serving, tone, tones, wav

from vermilion.server.options import Limits
from vermilion.testing import FakeModels

LIMITS = Limits(upload_bytes=20_000_000, request_seconds=120.0)


@pytest.fixture(scope="module")
def server():
    details = {}
    with serving(details=details, limits=LIMITS) as url:
        yield url, details


@pytest.fixture
def url(server):
    yield server[0]
    assert is_emptied(server[1]["data"] / "spool")  # whatever happened


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as found:
        yield found


FILE = ("talk.wav", wav(tones(300, 400, 500)), "audio/wav")
TEXT = "Tone 300 hertz. Tone 400 hertz. Tone 500 hertz."


def test_json(client):
    found = client.audio.transcriptions.create(file=FILE, model="whisper-1")
    assert found.text == TEXT
    assert found.usage.type == "duration"
    assert found.usage.seconds == 3


def test_logprobs(client):
    found = client.audio.transcriptions.create(file=FILE, model="vermilion", include=["logprobs"])
    assert [p.token for p in found.logprobs] == TEXT.replace(".", "").lower().split()
    assert found.logprobs[0].logprob == pytest.approx(np.log(0.8), abs=1e-3)
    assert bytes(int(b) for b in found.logprobs[0].bytes).decode() == "tone"


def test_text(client):
    assert client.audio.transcriptions.create(file=FILE, model="whisper-1", response_format="text").strip() == TEXT


def test_srt_and_vtt(client):
    for form in ("srt", "vtt"):
        found = client.audio.transcriptions.create(file=FILE, model="whisper-1", response_format=form)
        cues = pysubs2.SSAFile.from_string(found)
        assert [c.text for c in cues] == TEXT.replace(". ", ".|").split("|")
        assert cues[1].start == 1000


@pytest.mark.parametrize(
    ("granularities", "segments", "words"),
    [(None, True, False), (["segment"], True, False), (["word"], False, True), (["word", "segment"], True, True)],
)
def test_verbose_json(client, granularities, segments, words):
    more = {} if granularities is None else {"timestamp_granularities": granularities}
    found = client.audio.transcriptions.create(file=FILE, model="whisper-1", response_format="verbose_json", **more)
    assert found.task == "transcribe"
    assert found.text == TEXT
    assert found.language == "english"
    assert float(found.duration) == 3.0
    assert (found.segments is not None) == segments
    assert (found.words is not None) == words
    if segments:
        assert [(s.id, s.start, s.end) for s in found.segments] == [(0, 0, 1), (1, 1, 2), (2, 2, 3)]
        assert found.segments[1].seek == 100
        assert found.segments[1].avg_logprob == pytest.approx(np.log(0.8), abs=1e-3)
    if words:
        assert [w.word for w in found.words][3:6] == ["tone", "400", "hertz"]
        assert found.words[3].start == 1.0


def test_diarized_json_names_channels(client):
    stereo = wav(np.stack([tones(300, 400), np.concatenate([tone(600), np.zeros(16000)])]))
    found = client.audio.transcriptions.create(
        file=("call.wav", stereo), model="gpt-4o-transcribe-diarize", response_format="diarized_json"
    )
    assert [(s.speaker, s.text) for s in found.segments] == [
        ("A", "Tone 300 hertz."),
        ("B", "Tone 600 hertz."),
        ("A", "Tone 400 hertz."),
    ]


def test_stream(client):
    events = list(client.audio.transcriptions.create(file=FILE, model="whisper-1", stream=True))
    assert [e.type for e in events] == ["transcript.text.delta"] * 3 + ["transcript.text.done"]
    assert "".join(e.delta for e in events[:-1]) == events[-1].text == TEXT
    assert events[-1].usage.seconds == 3


def test_stream_with_logprobs(client):
    events = list(client.audio.transcriptions.create(file=FILE, model="whisper-1", stream=True, include=["logprobs"]))
    assert [p.token for p in events[1].logprobs] == ["tone", "400", "hertz"]
    assert len(events[-1].logprobs) == 9


def test_language_is_used_and_checked(client):
    found = client.audio.transcriptions.create(
        file=FILE, model="whisper-1", language="zh-CN", response_format="verbose_json"
    )
    assert found.language == "chinese"
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(file=FILE, model="whisper-1", language="klingon-for-beginners")
    assert caught.value.code == "unsupported_language"


def test_what_changes_nothing_is_named(url):
    data = {"model": "whisper-1", "prompt": "Vermilion", "temperature": "0.2"}
    found = httpx.post(f"{url}/v1/audio/transcriptions", data=data, files={"file": FILE})
    assert found.headers["x-vermilion-ignored"] == "prompt, temperature"


@pytest.mark.parametrize(
    ("more", "status", "code", "param"),
    [
        ({"model": "gpt-17"}, 404, "model_not_found", "model"),
        ({"model": None}, 400, "missing_model", "model"),
        ({"response_format": "docx"}, 400, "invalid_value", "response_format"),
        ({"timestamp_granularities[]": "word"}, 400, "invalid_value", "timestamp_granularities"),
        ({"response_format": "verbose_json", "timestamp_granularities[]": "letter"}, 400, "invalid_value", None),
        ({"temperature": "7"}, 400, "invalid_value", "temperature"),
        ({"temperature": "nan"}, 400, "invalid_value", "temperature"),
        ({"stream": "perhaps"}, 400, "invalid_value", "stream"),
        ({"include[]": "everything"}, 400, "invalid_value", "include"),
        ({"include[]": "logprobs", "response_format": "srt"}, 400, "invalid_value", "include"),
    ],
)
def test_wrong_parameters(url, more, status, code, param):
    data = {k: v for k, v in {"model": "whisper-1", **more}.items() if v is not None}
    found = httpx.post(f"{url}/v1/audio/transcriptions", data=data, files={"file": FILE})
    assert found.status_code == status
    error = found.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert error["param"] == param or param is None


def test_names_of_lists_with_and_without_brackets(url):
    for name in ("timestamp_granularities", "timestamp_granularities[]"):
        data = {"model": "whisper-1", "response_format": "verbose_json", name: "word"}
        found = httpx.post(f"{url}/v1/audio/transcriptions", data=data, files={"file": FILE}).json()
        assert "words" in found
        assert "segments" not in found


def test_wrong_files(client, url):
    for content in (b"", b"not audio at all", b"RIFF\x00\x00\x00\x00WAVEjunk"):
        with pytest.raises(openai.BadRequestError) as caught:
            client.audio.transcriptions.create(file=("x.wav", content), model="whisper-1")
        assert caught.value.code == "invalid_audio"
        assert "/" not in str(caught.value.body["message"])  # no path of the server
    missing = httpx.post(f"{url}/v1/audio/transcriptions", files={"model": (None, "whisper-1")})
    assert (missing.status_code, missing.json()["error"]["code"]) == (400, "missing_file")
    plain = httpx.post(f"{url}/v1/audio/transcriptions", content=b"x")
    assert plain.status_code == 415


def test_silence_has_no_text(client):
    found = client.audio.transcriptions.create(file=("s.wav", wav(np.zeros(16000))), model="whisper-1")
    assert found.text == ""
    events = list(
        client.audio.transcriptions.create(file=("s.wav", wav(np.zeros(16000))), model="whisper-1", stream=True)
    )
    assert [e.type for e in events] == ["transcript.text.done"]


def test_too_long_and_too_large(client, url):
    with pytest.raises(openai.APIStatusError) as caught:
        client.audio.transcriptions.create(file=("l.wav", wav(np.zeros(16000 * 121))), model="whisper-1")
    assert (caught.value.status_code, caught.value.code) == (413, "audio_too_long")
    big = httpx.post(
        f"{url}/v1/audio/transcriptions",
        data={"model": "whisper-1"},
        files={"file": ("big.mp3", b"\xff" * 20_100_000)},
    )
    assert (big.status_code, big.json()["error"]["code"]) == (413, "file_too_large")


def test_a_file_that_claims_a_year_is_refused_while_it_streams(url):
    """100 KB of a WAV that is 8 kHz, 8 bit, and says that it goes on for ever; then one of 1 byte per second."""
    import struct

    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 2**32 - 1, b"WAVE", b"fmt ", 16, 1, 1, 1, 1, 1, 8, b"data", 2**32 - 1
    )
    found = httpx.post(
        f"{url}/v1/audio/transcriptions",
        data={"model": "whisper-1"},
        files={"file": ("year.wav", head + b"\x80" * 100_000)},
    )
    assert (found.status_code, found.json()["error"]["code"]) == (413, "audio_too_long")


def test_translations_are_not_supported(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.translations.create(file=FILE, model="whisper-1")
    assert "not supported" in str(caught.value)


def test_models(client):
    names = [m.id for m in client.models.list()]
    assert {"whisper-1", "vermilion", "fake-asr"} <= set(names)
    assert client.models.retrieve("whisper-1").id == "whisper-1"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")


def test_modules(url):
    file = {"file": ("a.wav", wav(np.concatenate([tone(440), np.zeros(16000), tone(550)])))}
    found = httpx.post(f"{url}/v1/audio/segments", files=file).json()
    assert found == {"duration": 3.0, "segments": [{"start": 0.0, "end": 1.0}, {"start": 2.0, "end": 3.0}]}
    found = httpx.post(f"{url}/v1/audio/events", files=file).json()
    assert found["events"] == [{"label": "music", "start": 0.0, "end": 0.5}]
    found = httpx.post(f"{url}/v1/audio/languages", files=file).json()
    assert (found["language"], found["confidence"], len(found["segments"])) == ("en", 0.9, 2)
    assert httpx.post(f"{url}/v1/audio/punctuate", json={"text": "hello"}).json() == {"text": "Hello."}
    several = httpx.post(f"{url}/v1/audio/punctuate", json={"text": ["hello", "you"]})
    assert several.json() == {"text": ["Hello.", "You."]}
    for wrong in ({"text": 1}, {"text": []}, {"text": [1]}, [], {}):
        assert httpx.post(f"{url}/v1/audio/punctuate", json=wrong).status_code == 400
    assert httpx.post(f"{url}/v1/audio/punctuate", content=b"{").status_code == 400
    assert httpx.post(f"{url}/v1/audio/punctuate", json={"text": "x" * 200_000}).status_code == 413


def test_state(url):
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}
    assert httpx.get(f"{url}/ready").json() == {"status": "ok"}
    about = httpx.get(f"{url}/v1/server").json()
    assert about["models"]["asr"] == "fake-asr"
    assert about["limits"]["upload_bytes"] == 20_000_000
    assert about["auth"] is False


def test_metrics_can_be_read(url, client):
    from prometheus_client.parser import text_string_to_metric_families

    client.audio.transcriptions.create(file=FILE, model="whisper-1")
    families = {f.name: f for f in text_string_to_metric_families(httpx.get(f"{url}/metrics").text)}
    counted = {(s.labels["route"], s.labels["status"]): s.value for s in families["vermilion_requests"].samples}
    assert counted["/v1/audio/transcriptions", "200"] >= 1
    assert families["vermilion_audio_seconds"].samples[0].value >= 3
    assert families["vermilion_engines_loaded"].samples[0].value == 1
    assert families["vermilion_requests_inside"].samples[0].value == 0


def test_unknown_paths_and_methods_have_openais_shape(url):
    assert httpx.get(f"{url}/nothing").json()["error"]["type"] == "not_found_error"
    found = httpx.get(f"{url}/v1/audio/transcriptions")
    assert found.status_code == 405
    assert found.json()["error"]["message"]


def test_the_docs_page_needs_nothing_from_outside(url):
    page = httpx.get(f"{url}/docs")
    assert page.status_code == 200
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js"):
        assert f"/docs/{name}" in page.text
        assert httpx.get(f"{url}/docs/{name}").status_code == 200
    assert "//" not in page.text.replace("</", "")
    assert httpx.get(f"{url}/docs/../app.py").status_code == 404


def test_a_stream_tells_while_it_works():
    with serving(FakeModels(delay=0.1)) as url:
        slow = ("slow.wav", wav(np.tile(tone(440), 45)))
        with (
            openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client,
            client.audio.transcriptions.create(file=slow, model="whisper-1", stream=True) as stream,
        ):
            arrived = [(time.monotonic(), e.type) for e in stream]
        assert arrived[0][0] < arrived[-1][0] - 1.5


def test_the_work_ends_when_the_client_leaves():
    details = {}
    with serving(FakeModels(delay=0.5), details=details) as url:
        long = wav(np.tile(tone(440), 60))
        for stream in ("false", "true"):
            with pytest.raises(httpx.TimeoutException):
                httpx.post(
                    f"{url}/v1/audio/transcriptions",
                    data={"model": "whisper-1", "stream": stream},
                    files={"file": ("long.wav", long)},
                    timeout=httpx.Timeout(3.0, read=1.0),
                ).read()
            desk = details["parts"].desk
            for _ in range(200):
                if not desk.admission.inside and not desk.engines.waiting_seconds:
                    break
                threading.Event().wait(0.05)
            assert desk.admission.inside == 0
            assert desk.engines.waiting_seconds == 0
            assert list(desk.spool.folder.iterdir()) == []


def test_openapi_names_every_route_and_form(url):
    found = httpx.get(f"{url}/openapi.json").json()
    form = found["paths"]["/v1/audio/transcriptions"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert {"file", "model", "response_format", "stream"} <= set(form["schema"]["properties"])
    for path in (
        "/v1/models",
        "/health",
        "/ready",
        "/metrics",
        "/v1/audio/segments",
        "/v1/audio/punctuate",
        "/v1/jobs",
    ):
        assert path in found["paths"]
    assert json.dumps(found)
