"""A Ray cluster of two nodes on loopback, as `ray start` makes it, whose processes can be found and killed."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

PATHS = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1] / "src")])
HEAD, SECOND = "127.0.0.2", "127.0.0.3"
PATIENCE = 180.0
"""seconds that anything may take on a slow machine"""


def usable():
    """This machine answers at further addresses of its loopback, and says who runs on it."""
    try:
        return all(free_port(address) for address in (HEAD, SECOND)) and Path("/proc/self/stat").exists()
    except OSError:
        return False


def free_port(address):
    """A port that nobody listens on; it lies above those that Ray gives to workers."""
    with socket.socket() as found:
        found.bind((address, 0))
        return found.getsockname()[1]


def wait_for(what, said, seconds=PATIENCE):
    """The first answer that is something."""
    end = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < end, f"waited {seconds:g} s in vain: {said()}"
        time.sleep(0.05)
    return answer


def parents():
    """Process → its parent, its session."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except (OSError, ValueError):
                continue
            if state != "Z":
                found[int(entry.name)] = (int(parent), int(session))
    return found


def family(process):
    """A process with all that it started, in whatever sessions."""
    known = parents()
    found = {number for number, (_, session) in known.items() if session == process} | ({process} & known.keys())
    while more := {n for n, (parent, session) in known.items() if parent in found or session in found} - found:
        found |= more
    return found


def end(process):
    """Kill a process with all that it started; who leads goes first, so that nobody is started again."""
    numbers = family(process)
    while numbers:
        for number in sorted(numbers):
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                continue
        numbers = (numbers | family(process)) & parents().keys()
        time.sleep(0.02)


@dataclass
class Cluster:
    """Two nodes of a core each, which trust who knows their token."""

    cores: int = 1
    nodes: dict[str, subprocess.Popen] = field(default_factory=dict)

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="vr", ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name)
        self.address = f"{HEAD}:{free_port(HEAD)}"
        without = ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_ADDRESS")
        self.environment = {k: v for k, v in os.environ.items() if k not in without} | {
            "PYTHONPATH": PATHS,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_worker_niceness": "0",
            "OMP_NUM_THREADS": "1",
        }
        try:
            self.whole()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for node in self.nodes.values():
            end(node.pid)
            node.wait()
        self._folder.cleanup()

    def whole(self):
        """Start the nodes that are not there; returns when both are."""
        if HEAD not in self.nodes:
            more = (
                f"--temp-dir={self.folder}",
                "--include-dashboard=false",
                f"--ray-client-server-port={free_port(HEAD)}",
            )
            self._start(HEAD, "--head", f"--port={self.address.rpartition(':')[2]}", *more)
            wait_for(lambda: self._listens() or self._over(HEAD), lambda: self.said(HEAD))
        wait_for(
            lambda: self._count() == len(self.nodes), lambda: self.said(HEAD)
        )  # who was killed is known to be gone
        if SECOND not in self.nodes:
            self._start(SECOND, f"--address={self.address}")
        wait_for(lambda: self._count() == 2, lambda: self.said(SECOND))

    def kill(self, node):
        """End a node with all its processes."""
        process = self.nodes.pop(node)
        end(process.pid)
        process.wait()

    def driver(self, *command):
        """Start a program that may use the cluster."""
        with (self.folder / "driver.log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, *map(str, command)], env=self.environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def said(self, name):
        """The log of a node, or of the "driver"."""
        return (self.folder / f"{name}.log").read_text()

    def _start(self, node, *arguments):
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        command += [f"--num-cpus={self.cores}", "--object-store-memory=100000000", f"--node-ip-address={node}"]
        command += ["--min-worker-port=0", "--max-worker-port=0"]  # such as are free
        command += [f"--dashboard-agent-listen-port={free_port(node)}", *arguments]
        with (self.folder / f"{node}.log").open("w") as log:
            self.nodes[node] = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def _listens(self):
        host, _, port = self.address.rpartition(":")
        with socket.socket() as knock:
            return knock.connect_ex((host, int(port))) == 0

    def _over(self, node):
        if self.nodes[node].poll() is not None:
            raise RuntimeError(f"ray start ended: {self.said(node)}")

    def _count(self):
        for node in list(self.nodes):
            self._over(node)
        code = f"import ray; ray.init('{self.address}', log_to_driver=False); "
        code += "print('alive', sum(n['Alive'] for n in ray.nodes()))"
        found = subprocess.run(
            [sys.executable, "-c", code], env=self.environment, capture_output=True, text=True, check=False
        )
        return int(found.stdout.split("alive")[1]) if "alive" in found.stdout else 0
