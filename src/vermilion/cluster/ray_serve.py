"""The server's engines as a Ray Serve deployment: replicas with the models, batches across requests, autoscaling.

The HTTP layer stays where it is and asks by a handle; Serve opens no port of its own. Files are the HTTP process's:
a replica gets the samples.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vermilion.assembly import Job, Unit, restore_units, unit_state
from vermilion.cluster.ray_data import RayOptions, connect
from vermilion.errors import Cancelled, OptionsError, missing
from vermilion.live.options import LiveOptions
from vermilion.runtime import begin_worker
from vermilion.scheduling import windows
from vermilion.server.backend import Engines, LiveLink, State, Step, Task
from vermilion.server.errors import Busy, RequestError
from vermilion.server.messages import Failed, Ready
from vermilion.server.options import ServerOptions
from vermilion.server.rate import Rate
from vermilion.transcript import Transcript

if TYPE_CHECKING:
    from vermilion.server.uploads import Spool
    from vermilion.server.worker import Models

log = logging.getLogger(__name__)
ATTEMPTS = 2
"""replicas that one request may lose before it is held responsible"""
LONG_SECONDS = 600.0
"""longer recordings share no batch: nobody else should wait for their last segment"""
WATCH_SECONDS = 2.0
"""between two looks at the replicas"""


@dataclass(frozen=True)
class ReplicaOptions:
    """The deployment."""

    address: str = ""
    """Cluster; empty = one on this machine for this server."""
    replicas: tuple[int, int] = (1, 1)
    """Least and most replicas with the models; Serve chooses by the requests that wait."""
    cpus: float = 1.0
    """Cores of a replica."""
    gpus: float = 0.0
    """Share of a GPU of a replica."""
    batch: int = 8
    """Recordings of a batch at most: their segments share batches of the networks."""
    wait: float = 0.02
    """Seconds that a recording waits for others."""

    def __post_init__(self) -> None:
        least, most = self.replicas
        if not 1 <= least <= most:
            raise OptionsError(f"replicas must be two numbers, 1 or more and in order, not {least} {most}")
        if self.batch < 1 or self.wait < 0 or self.cpus < 0 or self.gpus < 0:
            raise OptionsError("batch must be at least 1, and wait, cpus and gpus not negative")


def on_ray_serve(options: ReplicaOptions = ReplicaOptions()) -> Callable[[ServerOptions, Spool], Engines]:
    """Return what `ServerOptions.engines` takes to run the engines on Ray Serve.

    Raises:
        MissingDependencyError: Ray is not installed.
    """
    if not options.address:  # a Ray of this machine alone: on loopback, which Ray decides when it is imported
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    serve_package()
    return lambda server, spool: ServeEngines(server.models, spool, options, f"{socket.gethostname()}-{server.port}")


def serve_package() -> tuple[Any, Any]:
    """The packages ray and ray.serve.

    Raises:
        MissingDependencyError: they are not installed.
    """
    try:
        import ray
        from ray import serve
    except ImportError as error:
        raise missing("the engine ray is not installed", "ray") from error
    return ray, serve


# ---- in the replicas


@dataclass
class Parcel:
    """A task on its way to a replica."""

    task: Task
    """without its files"""
    tracks: list[NDArray[np.int16]]
    """(n,) int16 at 16 kHz each"""
    keep: bool = False
    """send the finished segments too"""
    gone: bool = False
    """nobody waits for it any more"""


@dataclass(frozen=True)
class Result:
    """A transcript from a replica."""

    transcript: Transcript
    segments: list[State] = field(default_factory=list)
    """finished segments as plain values, where they were asked for"""
    count: int = 0
    """segments in all"""
    speech: float = 0.0
    """seconds of speech"""


class Replica:
    """The models, and what is asked of them; errors are answers, so that they stay what they are."""

    def __init__(self, build: Callable[[], Models]) -> None:
        """Build the models."""
        begin_worker()
        from vermilion.server.worker import languages_covered

        self.pipeline = build().pipeline
        self.ready = Ready(self.pipeline.models(), languages_covered(self.pipeline))
        self._front = ThreadPoolExecutor(1, "segments")
        self._networks = ThreadPoolExecutor(1, "networks")

    async def about(self) -> Ready:
        """Models and languages."""
        return self.ready

    async def transcribe(self, parcel: Parcel) -> Result | Failed:
        """Transcribe a recording, in a batch with what else is asked now; who is cancelled leaves its batch."""
        try:
            if parcel.task.seconds > LONG_SECONDS:
                return (await self.together([parcel]))[0]
            found: Result | Failed = await self.batched(parcel)
            return found
        finally:
            parcel.gone = True

    async def batched(self, parcel: Parcel) -> Any:
        """`together` as `serve.batch` makes it."""
        return (await self.together([parcel]))[0]

    async def together(self, parcels: list[Parcel]) -> list[Result | Failed]:
        """Transcribe recordings; the network's thread takes pieces of several such calls in turn."""
        loop = asyncio.get_running_loop()
        jobs = [await loop.run_in_executor(self._front, self._segment, parcel) for parcel in parcels]
        owners = {id(job): parcel for job, parcel in zip(jobs, parcels, strict=True) if isinstance(job, Job)}
        units = [unit for job in jobs if isinstance(job, Job) for unit in job.units if not unit.restored]
        broken: dict[int, Failed] = {}
        for some in windows(((u, u.span.duration) for u in units), self.pipeline.options.batch_seconds):
            wanted = [u for u in some if not owners[id(u.job)].gone and id(u.job) not in broken]
            broken.update(await loop.run_in_executor(self._networks, self._advance, wanted))
        return [
            broken[id(job)] if id(job) in broken
            else await loop.run_in_executor(self._front, self._finish, job, parcel)
            for job, parcel in zip(jobs, parcels, strict=True)
        ]  # fmt: skip

    async def call(self, method: str, values: dict[str, Any], parcel: Parcel | None) -> Any:
        """Run a module alone."""
        from vermilion.server.calls import called
        from vermilion.server.worker import portable, recordings_of

        recordings = recordings_of(parcel.task, parcel.tracks) if parcel is not None else []
        work = asyncio.get_running_loop().run_in_executor
        try:
            return await work(self._front, called, self.pipeline, method, values, recordings)
        except Exception as error:  # noqa: BLE001 - the client is told, the replica goes on
            return Failed(0, portable(error))

    def _segment(self, parcel: Parcel) -> Job | Failed:
        from vermilion.server.worker import portable, recordings_of

        task = parcel.task
        try:
            job = self.pipeline.segment(
                task.name,
                recordings_of(task, parcel.tracks),
                language=task.language,
                events=task.events,
                cached=task.segmentation,
                progress=lambda _, __: _cancel_if(parcel.gone),
            )
            restore_units(job, task.finished)
        except Cancelled:
            return Failed(0, RequestError("the request was cancelled", status=499))
        except Exception as error:  # noqa: BLE001 - one bad recording must not cost the others
            return Failed(0, portable(error))
        return job

    def _advance(self, units: list[Unit]) -> dict[int, Failed]:
        """Run segments; of a batch that fails every recording is tried alone."""
        from vermilion.server.worker import portable

        if not units:
            return {}
        try:
            self.pipeline.advance(units)
        except Exception as error:
            owners = list(dict.fromkeys(id(u.job) for u in units))
            if len(owners) == 1:
                log.exception("a batch failed")
                units[0].job.close()
                return {owners[0]: Failed(0, portable(error))}
            alone = [self._advance([u for u in units if id(u.job) == owner]) for owner in owners]
            return {owner: failed for found in alone for owner, failed in found.items()}
        return {}

    def _finish(self, job: Job | Failed, parcel: Parcel) -> Result | Failed:
        from vermilion.server.worker import portable, portable_transcript

        if isinstance(job, Failed):
            return job
        if parcel.gone:  # nobody reads the answer
            job.close()
            return Failed(0, RequestError("the request was cancelled", status=499))
        fresh = [u for u in job.units if not u.restored] if parcel.keep else []
        states = [state for unit in fresh if (state := unit_state(unit)) is not None]
        count, speech = len(job.units), sum(u.span.duration for u in job.units)
        try:
            transcript = portable_transcript(replace(self.pipeline.finish(job), probabilities=None))
        except Exception as error:  # noqa: BLE001 - as above
            return Failed(0, portable(error))
        return Result(transcript, states, count, speech)


def _cancel_if(gone: bool) -> None:
    if gone:
        raise Cancelled


def deployment(serve: Any, build: Callable[[], Models], options: ReplicaOptions) -> Any:
    """The application that Serve runs."""

    class Engine(Replica):
        @serve.batch(max_batch_size=options.batch, batch_wait_timeout_s=options.wait)  # type: ignore[untyped-decorator]
        async def batched(self, parcels: list[Parcel]) -> list[Result | Failed]:
            return await self.together(parcels)

    least, most = options.replicas
    scaling = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": options.batch}
    size: dict[str, Any] = {"num_replicas": least} if least == most else {"autoscaling_config": scaling}
    return serve.deployment(
        name="Engine",
        max_ongoing_requests=2 * options.batch,  # one batch at work, one that waits for it
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
        graceful_shutdown_timeout_s=5.0,
        **size,
    )(Engine).bind(build)


# ---- in the HTTP process


class ServeEngines:
    """Replicas that answer (`Engines`)."""

    def __init__(self, build: Callable[[], Models], spool: Spool, options: ReplicaOptions, name: str) -> None:
        """Take what replicas are made of.

        Args:
            build: makes the models; called in every replica.
            spool: takes samples that clients sent as one utterance.
            options: the deployment.
            name: of the application; a server that starts again takes the place of its former self.
        """
        self.build, self.spool, self.options, self.name = build, spool, options, f"vermilion-{name}"
        self.rate = Rate()
        self.models: dict[str, str] = {}
        self.languages: list[str] | None = None
        self.live_open = self.deaths = 0
        self._waiting, self._loaded, self._ours, self._closed = 0.0, 0, False, False
        self._suspects = asyncio.Lock()
        self._handle: Any = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the replicas; returns when the least number of them has loaded the models.

        Raises:
            MissingDependencyError: Ray is not installed.
            OptionsError: the cluster cannot be reached.
            RequestError: the replicas cannot be started.
        """
        try:
            self._handle = await asyncio.to_thread(self._deploy)
            ready: Ready = await self._ask(lambda: self._handle.about.remote(), 0.0)
        except BaseException:
            await self.close()
            raise
        self.models, self.languages = ready.models, ready.languages
        await asyncio.to_thread(self._count)
        self._watcher = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """End the replicas, and Ray if it was started for them."""
        self._closed = True
        if self._watcher is not None:
            self._watcher.cancel()
        await asyncio.to_thread(self._remove)

    @property
    def loaded(self) -> int:
        """Replicas that have their models in memory, as of the last look."""
        return self._loaded

    @property
    def available(self) -> bool:
        """Requests can be answered."""
        return not self._closed

    @property
    def waiting_seconds(self) -> float:
        """Audio that waits or is at work."""
        return self._waiting

    # ---- Backend

    async def transcribe(self, task: Task, report: Callable[[Step], Awaitable[None]] | None = None) -> Transcript:
        """Transcribe a recording; its segments are reported when all are finished."""
        parcel = await asyncio.to_thread(_packed, task, report is not None)
        result: Result = await self._ask(lambda: self._handle.transcribe.remote(parcel), task.seconds)
        self.rate.add(result.speech)
        if report is not None:
            await report(Step("asr", result.speech, result.speech, result.segments, result.count))
        return result.transcript

    async def call(self, method: str, **values: Any) -> Any:
        """Run a module alone: segments, events, languages, punctuate."""
        task: Task | None = values.pop("task", None)
        parcel = await asyncio.to_thread(_packed, task, False) if task is not None else None
        seconds = task.seconds if task is not None else 0.0
        return await self._ask(lambda: self._handle.call.remote(method, values, parcel), seconds)

    async def transcribe_samples(self, pcm: bytes, rate: int, language: str | None = None) -> Transcript:
        """Transcribe mono int16 samples that a client sent as one utterance."""
        from vermilion.server.samples import write_16k

        path = self.spool.new()
        try:
            seconds = await asyncio.to_thread(write_16k, pcm, rate, path)
            return await self.transcribe(Task([path], "utterance", language, weight=4.0, seconds=seconds))
        finally:
            self.spool.remove(path)

    async def open_live(self, options: LiveOptions, language: str | None = None) -> LiveLink:
        """Refuse: a session is a conversation with one engine, which Serve's handles do not give."""
        raise RequestError("live sessions need --engine local", status=501, code="not_available")

    # ---- asking

    async def _ask(self, request: Callable[[], Any], seconds: float) -> Any:
        """Ask a replica; who lost one asks again, one at a time, so that who ends replicas ends nobody else's twice."""
        import ray

        self._waiting += seconds
        try:
            with self.rate.busy():
                for attempt in range(ATTEMPTS):
                    async with self._suspects if attempt else contextlib.nullcontext():
                        if self._closed:
                            raise Busy("the server is stopping", retry_after=10, code="stopping")
                        try:
                            return await _answer(request())
                        except ray.exceptions.RayActorError:
                            self.deaths += 1
                            log.error("a replica ended while it had work; attempt %d of %d", attempt + 1, ATTEMPTS)
        finally:
            self._waiting -= seconds
        raise RequestError("the engine ended several times at this request", status=500, code="engine_failed")

    # ---- Serve

    def _deploy(self) -> Any:
        ray, serve = serve_package()
        self._ours = connect(ray, RayOptions(address=self.options.address))
        serve.start(proxy_location="Disabled")
        try:
            return serve.run(deployment(serve, self.build, self.options), name=self.name, route_prefix=None)
        except RuntimeError as error:
            raise RequestError(f"the replicas cannot be started: {self._reason(serve, error)}", status=500) from error

    def _reason(self, serve: Any, error: RuntimeError) -> str:
        """The last line of what the constructor said; Serve itself says only which deployment failed."""
        application = serve.status().applications.get(self.name)
        told = application.deployments["Engine"].message if application is not None else ""
        lines = [line.strip() for line in (told or str(error)).splitlines() if line.strip()]
        ours = [line for line in lines if line.startswith("vermilion.")]
        return (ours or lines or ["no reason given"])[-1]

    def _remove(self) -> None:
        ray, serve = serve_package()
        if not ray.is_initialized():
            return
        try:
            serve.delete(self.name)
            if self._ours:
                serve.shutdown()
        except (ray.exceptions.RayError, RuntimeError) as error:
            log.warning("the replicas cannot be ended: %s", error)
        finally:
            if self._ours:
                ray.shutdown()

    def _count(self) -> None:
        ray, serve = serve_package()
        with contextlib.suppress(ray.exceptions.RayError):  # the next look may succeed
            application = serve.status().applications.get(self.name)
            states = application.deployments["Engine"].replica_states if application is not None else {}
            self._loaded = sum(n for state, n in states.items() if state == "RUNNING")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            await asyncio.to_thread(self._count)


async def _answer(response: Any) -> Any:
    """The answer of a replica; cancelling the caller cancels the request."""
    try:
        answer = await response
    except asyncio.CancelledError:
        response.cancel()
        raise
    if isinstance(answer, Failed):
        raise answer.error
    return answer


def _packed(task: Task, keep: bool) -> Parcel:
    return Parcel(replace(task, tracks=[]), [np.fromfile(path, dtype=np.int16) for path in task.tracks], keep)
