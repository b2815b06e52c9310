"""Two processes that train together (gloo on a CPU): one voice, the gradients of a batch twice as large."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate", reason="training needs the extra `training`")
if not torch.distributed.is_available():
    pytest.skip("this build of torch trains in one process only", allow_module_level=True)

from training_helpers import corpus  # noqa: E402

from vermilion.checkpoints.reader import read_checkpoint  # noqa: E402
from vermilion.manifests import read_manifest, write_manifest  # noqa: E402
from vermilion.training.log import read_metrics  # noqa: E402

SIZES = ["--width", "16", "--heads", "2", "--encoder-layers", "1", "--decoder-layers", "1", "--pieces", "30"]
PLAIN = ["--dropout", "0", "--no-mask", "--label-smoothing", "0", "--augment.speeds", "1.0", "--augment.volume", "0"]
PLAIN += ["--augment.reverb", "0", "--augment.noise", "0", "--augment.codec", "0", "--augment.low-pass", "0"]
PLAIN += ["--augment.clip", "0", "--ctc-weight", "0", "--weight-decay", "0"]
STEPS = ["--steps", "2", "--warmup-steps", "0", "--learning-rate", "1e-3", "--clip-norm", "0", "--log-every", "1"]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def start(manifest: Path, folder: Path, items: int, rank: int | None = None, port: int = 0) -> subprocess.Popen:
    command = [sys.executable, "-m", "vermilion", "train", "aed", str(manifest), "--output-dir", str(folder)]
    command += [*SIZES, *PLAIN, *STEPS, "--max-items", str(items), "--device", "cpu", "--threads", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if rank is not None:
        environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment, text=True)


def ended(*processes: subprocess.Popen) -> list[str]:
    found = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), found
    return found


def test_two_processes_are_one_training_with_a_batch_twice_as_large(tmp_path):
    """Eight recordings, all of one length: one process takes all at each step, two take four each."""
    lines = [u for u in read_manifest(corpus(tmp_path / "c", 60)) if len((u.text or "").replace(".", "").split()) < 2]
    lengths = [u.duration for u in lines]
    same = [u for u in lines if u.duration == max(set(lengths), key=lengths.count)][:8]
    assert len(same) == 8
    manifest = tmp_path / "same.jsonl"
    write_manifest(manifest, same)
    port = free_port()
    alone = start(manifest, tmp_path / "one", 8)
    pair = [start(manifest, tmp_path / "two", 4, rank, port) for rank in (0, 1)]
    ended(alone)
    said = ended(*pair)
    assert sum(text.count("finished after 2 steps") for text in said) == 1
    assert sum(text.count("data: 8 utterances") for text in said) == 1
    one, two = (read_checkpoint(tmp_path / name / "model").state for name in ("one", "two"))
    for name in one:
        assert torch.allclose(one[name], two[name], atol=2e-4), name
    for name in ("one", "two"):
        assert sum("loss" in row for row in read_metrics(tmp_path / name / "metrics.jsonl")) == 2
