"""Threads: numpy on one, OpenMP that sleeps while it waits, shares of the cores that a container may use."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info
from tiny import write_vad

from vermilion import runtime
from vermilion.runtime import default_threads, limit_numpy, one_numpy_thread, usable_cores


def blas():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def write(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


@pytest.fixture
def many_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 64),
        ({"sys/fs/cgroup/cpu.max": "max 100000"}, 64),
        ({"sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
        ({"sys/fs/cgroup/cpu.max": "250000 100000"}, 2),  # a third thread would be stopped half of the time
        ({"sys/fs/cgroup/cpu.max": "20000 100000"}, 1),
        ({"sys/fs/cgroup/cpu.max": "nonsense"}, 64),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "300000 100000"}, 3),  # of a group above ours
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 64),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n",
                "sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us": "500000",
                "sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us": "100000",
            },
            5,
        ),
    ],
)
def test_usable_cores_respect_the_quotas_of_containers(tmp_path, many_cores, files, cores):
    for name, text in files.items():
        write(tmp_path, name, text)
    assert usable_cores(tmp_path) == cores


def test_usable_cores_where_there_is_no_affinity(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # macOS, Windows
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores(tmp_path) == 6


def test_default_threads_are_a_share_unless_the_user_said_how_many(monkeypatch):
    monkeypatch.setattr(runtime, "usable_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [default_threads(n) for n in (1, 2, 3, 20)] == [8, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert default_threads(2) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "x")
    assert default_threads() == 8


def test_numpy_has_one_thread_while_somebody_asks_for_it():
    before = blas()
    inside, leave = threading.Event(), threading.Event()

    def other():
        with one_numpy_thread():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with one_numpy_thread():
        thread.start()
        assert inside.wait(10)
        assert blas() <= {1}
    assert blas() <= {1}  # the other thread is still in there
    leave.set()
    thread.join(10)
    assert blas() == before


def test_loading_models_limits_numpy(tmp_path):
    from vermilion.loading import Builder

    before = runtime._numpy_libraries().limit(limits=2, user_api="blas")
    try:
        Builder(write_vad(tmp_path / "FireRedVAD" / "VAD").parents[1])
        assert blas() <= {1}
        limit_numpy()
        assert blas() <= {1}
    finally:
        before.restore_original_limits()
    assert float(np.ones((300, 300)).dot(np.ones((300, 300)))[0, 0]) == 300


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("PASSIVE", "0")),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ("ACTIVE", None)),
        ({"GOMP_SPINCOUNT": "9"}, (None, None)),
        ({"KMP_BLOCKTIME": "5"}, (None, "5")),
    ],
)
def test_the_command_line_waits_passively_unless_told_otherwise(given, expected):
    code = (
        "import os, sys\nfrom vermilion.cli import main\nmain(['--version'])\n"
        "print([os.environ.get(n) for n in ('OMP_WAIT_POLICY', 'KMP_BLOCKTIME')], 'torch' in sys.modules)"
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_WAIT", "KMP_", "GOMP_"))}
    environment = {**kept, **given}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{list(expected)} False"


def test_importing_the_library_changes_nothing():
    code = "import os, vermilion, vermilion.loading\nprint('OMP_WAIT_POLICY' in os.environ)"
    kept = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", code], env=kept, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_worker_leaves_no_named_semaphore():
    code = (
        "from multiprocessing import synchronize\n"
        "def never(*_, **__): raise SystemExit('a semaphore was made')\n"
        "synchronize.SemLock.__init__ = never\n"
        "from vermilion.runtime import begin_worker\nbegin_worker()\n"
        "from tqdm import tqdm\nprint(list(tqdm([1, 2], disable=True)))"
    )
    pytest.importorskip("tqdm")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[1, 2]"


@pytest.fixture
def eight_cores(monkeypatch):
    monkeypatch.setattr(runtime, "usable_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_processes_of_a_training_share_the_cores(tmp_path, monkeypatch, eight_cores):
    pytest.importorskip("accelerate")
    import torch

    from vermilion.training.loop import begin
    from vermilion.training.options import TrainingOptions

    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    before = torch.get_num_threads()
    try:
        begin(TrainingOptions(output_dir=tmp_path / "a", steps=1, device="cpu"))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_workers_of_corpora_and_servers_share_the_cores(monkeypatch, eight_cores):
    from vermilion.cli import serve as command
    from vermilion.cli.corpus import Build, shared_out
    from vermilion.pipeline import PipelineOptions
    from vermilion.vad import VadOptions

    build = Build("mini", PipelineOptions(), VadOptions())
    assert [shared_out(n, build)[1].options.threads for n in (0, 2, 3)] == [8, 4, 2]
    threads = []
    monkeypatch.setattr(command, "_run", lambda options, *_: threads.append(options.models.options.threads))
    for workers in (1, 4):
        command.serve(workers=workers, quiet=True)
    assert threads == [0, 2]  # 0: the engine asks for the cores itself
