"""Two nodes of Ray give the rows of one machine, whatever is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from corpus_helpers import Calm, make_corpus, write_rows
from ray_helpers import HEAD, SECOND, Cluster, end, family, parents, usable, wait_for
from test_corpus import failures, rows, run
from tiny import noise, write_aed, write_vad

pytest.importorskip("ray.data", reason="Ray is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not usable(), reason="needs Linux, with 127.0.0.2 and 127.0.0.3 on its loopback"),
]
ITEMS, SHORT = 24, 3200
"""recordings, and the samples of the first; each has one more than the one before"""


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A manifest, and its rows from one machine."""
    folder = tmp_path_factory.mktemp("undisturbed")
    manifest = make_corpus(folder / "in", ITEMS, seconds=SHORT / 16000)
    run(manifest, folder / "out", Calm())
    return manifest, rows(folder / "out")


def written(out):
    """Rows that are there already."""
    found = [*(out / "parts").glob("*.open"), *(out / "parts").glob("*.jsonl")] if out.exists() else []
    return sum(path.read_bytes().count(b"\n") for path in found)


def noted(folder):
    """(raylet, actor, samples) of all that was begun."""
    lines = [line for path in folder.glob("*.notes") for line in path.read_text().splitlines()]
    return [tuple(map(int, line.split())) for line in lines if line.count(" ") == 2]


def nodes_of(cluster, notes):
    """Which nodes recordings were begun at."""
    homes = {node: family(process.pid) for node, process in cluster.nodes.items()}
    return {node for node, processes in homes.items() for raylet, _, _ in noted(notes) if raylet in processes}


def held(cluster, notes, node):
    """The actor of a node that is in the middle of a recording."""
    home = family(cluster.nodes[node].pid)
    return next((actor for raylet, actor, n in noted(notes) if raylet in home and n >= SHORT + ITEMS // 2), None)


@pytest.mark.parametrize("killed", ["nothing", "an actor", "the second node"])
def test_two_nodes_give_the_rows_of_one_machine(cluster, undisturbed, tmp_path, killed):
    manifest, expected = undisturbed
    cluster.whole()
    out, notes = tmp_path / "out", tmp_path / "notes"
    notes.mkdir()
    # the second half of the recordings is held until the test has seen that half of the work is done
    arguments = (manifest, out, cluster.address, notes, SHORT + ITEMS // 2 - 1)
    driver = cluster.driver(Path(__file__).with_name("ray_driver.py"), *arguments)

    def said():
        return cluster.said("driver")

    try:
        actor = wait_for(lambda: written(out) >= 4 and held(cluster, notes, SECOND), said)
        wait_for(lambda: nodes_of(cluster, notes) == {HEAD, SECOND}, said)
        assert driver.poll() is None, said()
        assert 4 <= written(out) < ITEMS
        if killed == "an actor":
            os.kill(actor, signal.SIGKILL)
            wait_for(lambda: actor not in parents(), said)
        if killed == "the second node":
            gone = family(cluster.nodes[SECOND].pid)
            cluster.kill(SECOND)
            assert actor in gone
            assert not gone & parents().keys()
        (notes / "go").touch()
        wait_for(lambda: driver.poll() is not None, said)
    finally:
        end(driver.pid)
    assert driver.wait() == 0, said()
    assert f"done {ITEMS} failed 0" in said()
    assert rows(out) == expected
    assert not (out / "failures.jsonl").exists() or failures(out) == {}
    if killed == "an actor":  # others took its place
        assert any(n >= SHORT + ITEMS // 2 and other != actor for _, other, n in noted(notes))


def test_the_command_on_two_nodes(cluster, tmp_path):
    cluster.whole()
    models = tmp_path / "models"
    write_vad(models / "FireRedVAD/VAD")
    write_aed(models / "FireRedASR2-AED")
    for i in range(6):
        soundfile.write(tmp_path / f"{i}.wav", noise(0.6, seed=i), 16000)
    write_rows(tmp_path / "m.jsonl", [{"audio_filepath": f"{i}.wav"} for i in range(6)])
    command = [sys.executable, "-m", "vermilion", "transcribe", "--manifest", "m.jsonl", "--models", "models"]
    command += ["--route", "never", "--no-lid", "--chunk", "2", "--threads", "1", "-o"]
    for more in (["one"], ["two", "--engine", "ray", "--address", cluster.address]):
        found = subprocess.run(
            [*command, *more], cwd=tmp_path, env=cluster.environment, capture_output=True, text=True, check=False
        )
        assert found.returncode == 0, found.stderr
    assert len(rows(tmp_path / "two")) == 6
    assert rows(tmp_path / "two") == rows(tmp_path / "one")


def test_who_has_another_token_is_refused(cluster, tmp_path):
    cluster.whole()
    make_corpus(tmp_path, 1)
    command = [sys.executable, "-m", "vermilion", "transcribe", "--manifest", "manifest.jsonl", "-o", "out"]
    command += ["--engine", "ray", "--address", cluster.address]
    wrong = cluster.environment | {"RAY_AUTH_TOKEN": "0" * 64}
    found = subprocess.run(command, cwd=tmp_path, env=wrong, capture_output=True, text=True, check=False)
    assert found.returncode == 2, found.stderr
    assert "cannot be used" in found.stderr
