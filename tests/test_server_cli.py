"""`vermilion serve` as a command: what it refuses, and a real start with tiny models."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import httpx
import pytest
from server_helpers import tone, wait_ready, wav
from tiny import write_aed, write_vad

from vermilion.server.running import bind


@contextlib.contextmanager
def command(tmp_path, *arguments):
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    line = [sys.executable, "-m", "vermilion", "serve", "--data", str(tmp_path / "data"), *map(str, arguments)]
    with subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def finished(tmp_path, *arguments):
    with command(tmp_path, *arguments) as process:
        out, err = process.communicate(timeout=60)
    assert out == ""
    assert "Traceback" not in err
    return process.returncode, err


def test_others_need_keys(tmp_path):
    code, err = finished(tmp_path, "--host", "0.0.0.0")
    assert code == 2
    assert "vermilion keys add" in err


def test_a_taken_port_is_told(tmp_path):
    with bind("127.0.0.1", 0) as taken:
        code, err = finished(tmp_path, "--port", taken.getsockname()[1])
    assert code == 2
    assert "cannot listen" in err


def test_missing_models_are_told(tmp_path):
    code, err = finished(tmp_path, "--models", tmp_path / "nothing", "--port", 0)
    assert code == 3
    assert "nothing" in err


@pytest.mark.slow
def test_it_serves_real_networks_and_stops_on_a_signal(tmp_path):
    models = tmp_path / "models"
    write_aed(models / "FireRedASR2-AED")
    write_vad(models / "FireRedVAD/VAD")
    write_vad(models / "FireRedVAD/AED", outputs=3)
    with bind("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    with command(tmp_path, "--models", models, "--port", port) as process:
        url = f"http://127.0.0.1:{port}"
        wait_ready(url, seconds=120)
        file = {"file": ("a.wav", wav(tone(440, 3)))}
        found = httpx.post(f"{url}/v1/audio/transcriptions", data={"model": "vermilion"}, files=file, timeout=60)
        assert found.status_code == 200
        assert isinstance(found.json()["text"], str)
        assert json.loads(httpx.get(f"{url}/v1/server").text)["models"]["asr"]
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in err
    assert list((tmp_path / "data" / "spool").iterdir()) == []
