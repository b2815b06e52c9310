"""A corpus job in simulated time: chunks, workers that die, nodes that come late, go or are slow, one driver.

The job is the one of `vermilion transcribe --manifest`: a driver gives a free worker the next chunk of recordings and
writes the rows that come back. Events are the end of a chunk, the death of a worker or a node, and their return;
between two events every worker of a node goes on at a speed that depends on how many of its neighbours are at work. One
run is one draw of the random numbers of a seed; `predict` makes several.
"""

from __future__ import annotations

import heapq
import math
import random
import statistics
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from figures import Figures
from numpy.typing import NDArray

from vermilion.cluster.ray_data import RayOptions, chunk_of, round_of
from vermilion.cluster.workers import WorkerOptions, next_chunk
from vermilion.manifests import Utterance

LARGEST = 400_000
"""chunks that are simulated one by one; a larger job is simulated in chunks that are whole multiples"""
HARDEST = 3_000_000
"""the same where rounds of Ray end on single chunks"""
WAVES = 60
"""chunks of a worker and round that a simulation of rounds has at least"""
HOUR = 3600.0
CHUNK_SECONDS = WorkerOptions.chunk_seconds
"""seconds of audio with which a chunk is full in any case"""


@dataclass(frozen=True)
class Workload:
    """The recordings."""

    hours: float
    """of audio"""
    mean_seconds: float = 360.0
    """of a recording"""
    spread: float = 1.0
    """standard deviation of the logarithm of a recording's length; 0 = all alike"""
    bytes_per_second: float = 4000.0
    """of stored audio (4000 = 32 kbit/s)"""
    poison: float = 0.0
    """share of recordings that end every worker that tries them"""

    @property
    def recordings(self) -> int:
        """How many there are."""
        return max(1, round(self.hours * HOUR / self.mean_seconds))


@dataclass(frozen=True)
class Cluster:
    """What the job runs on."""

    nodes: int = 1
    """machines"""
    workers: int = 1
    """workers of a machine"""
    gpus: int = 0
    """GPUs of a machine, which its workers share"""
    engine: Literal["local", "ray"] = "local"
    """ray hands recordings out in rounds"""
    chunk: int = 16
    """recordings that a worker takes at once; fewer where they are long, see `CHUNK_SECONDS`"""
    round: int = 0
    """recordings that are handed to Ray at once; 0 = as many as the job takes; between two rounds actors start anew"""
    boot: float = 0.0
    """seconds from asking for a machine until it is there"""
    per_minute: float = 0.0
    """machines that the autoscaler adds in a minute; 0 = all at once"""
    idle: float = math.inf
    """seconds after which the autoscaler gives a machine back that has nothing to do"""
    speed: float = 1.0
    """of a machine, relative to the measured one"""
    stragglers: float = 0.0
    """standard deviation of the logarithm of a machine's speed"""
    node_failures: float = 0.0
    """per machine and hour; a new one is asked for"""
    worker_crashes: float = 0.0
    """per worker and hour"""
    link: float = math.inf
    """bytes per second that a machine reads"""
    storage: float = math.inf
    """bytes per second that all machines together read"""
    price: float = 0.0
    """of a machine, per hour"""
    driver_price: float = 0.0
    """of the driver, per hour"""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        least = {"nodes": self.nodes, "workers": self.workers, "chunk": self.chunk}
        for name, value in least.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if self.speed <= 0:
            raise ValueError(f"speed is {self.speed:g}; it must be above 0")

    @property
    def in_a_round(self) -> int:
        """Recordings of a round."""
        return self.round or round_of(self.nodes * self.workers, self.chunk)


@dataclass(frozen=True)
class Outcome:
    """One simulated run."""

    wall: float
    """seconds from the command to its end"""
    node_seconds: float
    """that are paid for"""
    cost: float
    """machines and driver"""
    busy: float
    """share of the workers' paid time in which they worked"""
    lost: float
    """seconds of work that was done twice"""
    node_failures: int
    worker_crashes: int
    failed: int
    """recordings that were given up"""
    driver: float
    """share of the wall time in which the driver was writing rows"""


@dataclass(slots=True)
class _Chunk:
    items: int
    audio: float
    """seconds"""
    poison: int = 0
    """recordings of it that end a worker"""
    alone: bool = False
    """tried again because it ended a worker"""


@dataclass(slots=True)
class _Worker:
    node: _Node
    chunk: _Chunk | None = None
    whole: float = 0.0
    """seconds of work that all of the chunk is"""
    goal: float = 1.0
    """share of the chunk at which it ends; below 1, or with a chunk that kills, it dies there"""
    left: float = 0.0
    """seconds of work until then"""
    since: float = 0.0
    """when `left` was right"""
    began: float = 0.0
    version: int = 0
    """events of older versions are void"""
    up: bool = False


@dataclass(slots=True)
class _Node:
    speed: float
    asked: float
    workers: list[_Worker] = field(default_factory=list)
    busy: int = 0
    rate: float = 1.0
    """seconds of full-load work that each of its workers does in a second"""
    worked: float = 0.0
    """when it last had work"""
    gone: bool = False


def chunks_of(workload: Workload, cluster: Cluster, rng: np.random.Generator) -> list[_Chunk]:
    """The whole job, in the chunks of a manifest in random order, or in some of them together."""
    total, few = workload.recordings, grain(workload.mean_seconds, cluster.chunk)
    together = max(1, math.ceil(total / few / LARGEST))
    if cluster.engine == "ray":
        if total > cluster.in_a_round:
            fine = max(1, cluster.in_a_round // (few * cluster.nodes * cluster.workers * WAVES))
            together = min(together, max(fine, math.ceil(total / few / HARDEST)))
        counts, sums = _dealt(total, few * together, cluster.in_a_round, workload.spread, rng)
    else:
        counts, sums = _in_turn(total, few * together, workload.spread, rng)
    poison = rng.binomial(counts, workload.poison) if workload.poison else np.zeros(len(counts), np.int64)
    audio = sums * (workload.hours * HOUR / sums.sum())
    return [_Chunk(*values) for values in zip(counts.tolist(), audio.tolist(), poison.tolist(), strict=True)]


def _in_turn(
    total: int, size: int, spread: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Recordings of chunks in the order of the manifest, and their lengths together in means."""
    counts = np.full(math.ceil(total / size), size)
    counts[-1] = total - size * (len(counts) - 1)
    shift = -(spread**2) / 2  # so that the mean is the mean
    if size <= 64:
        return counts, counts * rng.lognormal(shift, spread, (len(counts), size)).mean(axis=1)
    deviation = math.sqrt((math.exp(spread**2) - 1) / size)  # a sum of many
    return counts, counts * np.maximum(0.05, rng.normal(1.0, deviation, len(counts)))


def _dealt(
    total: int, size: int, of_a_round: int, spread: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The same on Ray: in each round the longest come first, each in another chunk (`ray_data.dealt`)."""
    counts, sums = [], []
    for first in range(0, total, of_a_round):
        here = min(of_a_round, total - first)
        chunks = math.ceil(here / size)
        lengths = np.zeros(chunks * size)
        lengths[:here] = np.sort(rng.lognormal(-(spread**2) / 2, spread, here))[::-1]
        there = (np.arange(chunks * size) < here).reshape(size, chunks)
        counts.append(there.sum(axis=0))
        sums.append(lengths.reshape(size, chunks).sum(axis=0))
    return np.concatenate(counts), np.concatenate(sums)


def grain(mean_seconds: float, chunk: int) -> int:
    """Recordings of a chunk, where they are of such a length."""
    return chunk_of([Utterance("", "", duration=mean_seconds)], RayOptions(chunk=chunk))


def chunks_from(durations: Sequence[float], chunk: int) -> list[_Chunk]:
    """The chunks of a manifest whose lengths are known."""
    items = (Utterance("", "", duration=seconds) for seconds in durations)
    found = []
    while share := next_chunk(items, WorkerOptions(chunk=chunk)):
        found.append(_Chunk(len(share), sum(item.duration or 0.0 for item in share)))
    return found


def simulate(
    chunks: Iterable[_Chunk],
    figures: Figures,
    cluster: Cluster,
    *,
    seed: int = 0,
    bytes_per_second: float = 0.0,
    kills: Sequence[float] = (),
) -> Outcome:
    """Run a job.

    Args:
        chunks: of the manifest, in its order.
        figures: what a machine can do.
        cluster: the machines, and what befalls them.
        seed: of all random numbers.
        bytes_per_second: of stored audio.
        kills: seconds at which one worker that is at work is killed.
    """
    return _Run(list(chunks), figures, cluster, seed, bytes_per_second, kills).result()


class _Run:
    """One simulated job."""

    def __init__(
        self,
        chunks: list[_Chunk],
        figures: Figures,
        cluster: Cluster,
        seed: int,
        bytes_per_second: float,
        kills: Sequence[float],
    ) -> None:
        self.figures, self.cluster, self.random = figures, cluster, random.Random(seed)
        self.chunks: Iterator[_Chunk] = iter(chunks)
        self.ahead: _Chunk | None = None
        """next chunk of the manifest"""
        self.again: deque[_Chunk] = deque()
        self.events: list[tuple[float, int, str, _Worker | _Node | None, int]] = []
        self.number = self.open = self.in_round = 0
        """event numbers; chunks in hand; recordings of the round that have been handed out"""
        self.now = self.driver = self.writing = 0.0
        self.busy = self.lost = self.node_seconds = 0.0
        self.node_failures = self.worker_crashes = self.failed = 0
        self.reading = self._reading(bytes_per_second)
        self.nodes: list[_Node] = []
        for index in range(cluster.nodes):
            late = 60.0 * index / cluster.per_minute if cluster.per_minute else 0.0
            self._ask(late, figures.start)
        for at in kills:
            self._at(at, "kill", None)

    def result(self) -> Outcome:
        """Run until all rows are written."""
        self.ahead = next(self.chunks, None)
        while self.events and not (self.ahead is None and not self.again and self.open == 0):
            self.now, _, kind, about, version = heapq.heappop(self.events)
            if isinstance(about, _Worker):
                if version == about.version and not about.node.gone:
                    self._ready(about) if kind == "ready" else self._through(about)
            elif isinstance(about, _Node):
                self._lose(about)
            else:
                self._kill()
        end = max(self.now, self.driver)
        for node in self.nodes:
            if not node.gone:
                released = max(node.worked, node.asked) + self.cluster.idle
                self.node_seconds += max(0.0, min(end, released) - node.asked)
        paid = self.node_seconds * self.cluster.workers
        cost = (self.node_seconds * self.cluster.price + end * self.cluster.driver_price) / HOUR
        return Outcome(
            end, self.node_seconds, cost, self.busy / paid if paid else 0.0, self.lost,
            self.node_failures, self.worker_crashes, self.failed, self.writing / end if end else 0.0,
        )  # fmt: skip

    def _at(self, time: float, kind: str, about: _Worker | _Node | None, version: int = 0) -> None:
        self.number += 1
        heapq.heappush(self.events, (time, self.number, kind, about, version))

    # ---- machines

    def _ask(self, at: float, load: float) -> None:
        """Ask for a machine; its workers come when it is there and has its models."""
        node = _Node(self.cluster.speed * math.exp(self.random.gauss(0.0, self.cluster.stragglers)), at)
        self.nodes.append(node)
        there = at + self.cluster.boot
        for _ in range(self.cluster.workers):
            worker = _Worker(node)
            node.workers.append(worker)
            self._at(there + load, "ready", worker)
        if self.cluster.node_failures:
            self._at(there + self.random.expovariate(self.cluster.node_failures / HOUR), "lost", node)

    def _reading(self, bytes_per_second: float) -> float:
        """Seconds of work for which a machine can read the audio in a second."""
        if not bytes_per_second or not self.figures.second:
            return math.inf
        reading = min(self.cluster.link, self.cluster.storage / self.cluster.nodes)
        return reading / bytes_per_second * self.figures.second

    def _settle(self, node: _Node, news: _Worker | None = None) -> None:
        """Time the end of a worker's new chunk; where the number at work has changed, those of its neighbours too."""
        busy = max(1, node.busy)
        slowness = self.figures.slowness(busy, self.cluster.workers, self.cluster.gpus)
        rate = min(node.speed / slowness, self.reading / busy)
        about = node.workers if rate != node.rate else [news] if news else []
        for worker in about:
            if worker.chunk is not None:
                self._move(worker)
                worker.version += 1
                self._at(self.now + worker.left / rate, "through", worker, worker.version)
        node.rate, node.worked = rate, self.now

    def _move(self, worker: _Worker) -> None:
        worker.left = max(0.0, worker.left - (self.now - worker.since) * worker.node.rate)
        worker.since = self.now

    # ---- chunks

    def _take(self) -> _Chunk | None:
        if self.again:
            return self.again.popleft()
        chunk = self.ahead
        if chunk is None or self._full(chunk):
            return None
        self.in_round += chunk.items
        self.ahead = next(self.chunks, None)
        return chunk

    def _full(self, chunk: _Chunk) -> bool:
        """Whether a chunk belongs to the next round."""
        return (
            self.cluster.engine == "ray"
            and self.in_round > 0
            and self.in_round + chunk.items > max(self.cluster.in_a_round, chunk.items)
        )

    def _ready(self, worker: _Worker) -> None:
        worker.up = True
        self._give(worker)
        self._settle(worker.node, worker)

    def _give(self, worker: _Worker) -> None:
        chunk = self._take()
        if chunk is None:
            return
        worker.chunk, worker.goal = chunk, 1.0
        worker.began = worker.since = self.now
        worker.whole = self.figures.item * chunk.items + self.figures.second * chunk.audio
        self.open += 1
        worker.node.busy += 1
        if chunk.poison and not chunk.alone:
            worker.goal = self.random.random()
        if self.cluster.worker_crashes:
            survived = self.random.expovariate(self.cluster.worker_crashes / HOUR) * worker.node.rate
            worker.goal = min(worker.goal, survived / worker.whole)
        worker.left = worker.goal * worker.whole

    def _free(self, worker: _Worker) -> None:
        self.busy += self.now - worker.began
        worker.chunk, worker.version = None, worker.version + 1
        worker.node.busy -= 1
        self.open -= 1

    def _through(self, worker: _Worker) -> None:
        """A chunk has ended, or its worker has."""
        chunk = worker.chunk
        if chunk is None:
            return
        worker.left, worker.since = 0.0, self.now
        if chunk.poison or worker.goal < 1.0:
            self._crash(worker)
            return
        self._write(chunk.items)
        self._free(worker)
        self._give(worker)
        self._settle(worker.node, worker)
        self._round()

    def _write(self, items: int) -> None:
        """The driver writes rows one after the other."""
        taken = items * self.figures.row
        self.driver, self.writing = max(self.driver, self.now) + taken, self.writing + taken

    def _round(self) -> None:
        """Begin the next round of Ray where one is through: all actors start anew."""
        if self.open or self.again or self.ahead is None or not self._full(self.ahead):
            return
        self.in_round = 0
        for node in self.nodes:
            for worker in node.workers:
                if worker.up and not node.gone:
                    self._restart(worker, self.figures.start)

    # ---- deaths

    def _restart(self, worker: _Worker, seconds: float) -> None:
        worker.up, worker.version = False, worker.version + 1
        self._at(self.now + seconds, "ready", worker, worker.version)

    def _crash(self, worker: _Worker) -> None:
        """A worker dies; what it leaves is tried again item by item, and it comes back."""
        chunk = worker.chunk
        if chunk is None:
            return
        self.worker_crashes += 1
        if chunk.alone and chunk.poison:  # tried alone: it was the recording
            self._free(worker)
            self.failed += 1
            self.lost += worker.whole
        else:
            each, left = self._leave(worker, 1)
            several = left - min(left, max(self.cluster.chunk, chunk.poison))
            if several:  # a simulated chunk that stands for many: only the last of them was in hand
                self.again.append(_Chunk(several, several * each))
            self.again.extend(_Chunk(1, each, int(i < chunk.poison), alone=True) for i in range(left - several))
        self._restart(worker, self.figures.load)
        self._settle(worker.node)
        self._wake()
        self._round()

    def _leave(self, worker: _Worker, grain: int) -> tuple[float, int]:
        """Take what a worker has in hand; says the mean length of its recordings, and how many are not done."""
        chunk = worker.chunk
        if chunk is None:
            return 0.0, 0
        share = worker.goal - (worker.left / worker.whole if worker.whole else 0.0)
        self._free(worker)
        done = int(share * chunk.items / grain) * grain
        done = min(done, chunk.items - max(1, chunk.poison))
        self.lost += worker.whole * max(0.0, share - done / chunk.items)
        self._write(done)
        return chunk.audio / chunk.items, chunk.items - done

    def _wake(self) -> None:
        """Somebody may be idle while there is work again."""
        for node in self.nodes:
            for worker in node.workers:
                if not self.again:
                    return
                if worker.up and not node.gone and worker.chunk is None:
                    self._give(worker)
                    self._settle(node, worker)

    def _lose(self, node: _Node) -> None:
        """A machine is gone with all that it had in hand; another is asked for."""
        self.node_failures += 1
        node.gone = True
        self.node_seconds += self.now - node.asked
        for worker in node.workers:
            chunk = worker.chunk
            if chunk is not None:
                self._move(worker)
                each, left = self._leave(worker, min(chunk.items, self.cluster.chunk))
                self.again.append(_Chunk(left, left * each, chunk.poison, chunk.alone))
            worker.version += 1
        self._ask(self.now, self.figures.load)
        self._wake()

    def _kill(self) -> None:
        busy = [w for node in self.nodes if not node.gone for w in node.workers if w.chunk is not None]
        if busy:
            self._move(busy[0])
            self._crash(busy[0])


@dataclass(frozen=True)
class Prediction:
    """Several simulated runs of one job."""

    workload: Workload
    cluster: Cluster
    runs: tuple[Outcome, ...]

    def middle(self, name: str) -> float:
        """Median of a value of the runs."""
        return statistics.median(getattr(run, name) for run in self.runs)

    def range(self, name: str) -> tuple[float, float]:
        """Least and largest."""
        found = [getattr(run, name) for run in self.runs]
        return min(found), max(found)


def predict(workload: Workload, figures: Figures, cluster: Cluster, runs: int = 5, seed: int = 0) -> Prediction:
    """Simulate a job several times.

    Args:
        workload: the recordings.
        figures: what a machine can do.
        cluster: the machines, and what befalls them.
        runs: draws of the random numbers.
        seed: of the first.
    """
    found = []
    for number in range(seed, seed + runs):
        chunks = chunks_of(workload, cluster, np.random.default_rng(number))
        found.append(simulate(chunks, figures, cluster, seed=number, bytes_per_second=workload.bytes_per_second))
    return Prediction(workload, cluster, tuple(found))
