"""`vermilion serve`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from vermilion.cli.console import OK, Terminal
from vermilion.cli.options import MODELS, OUTPUT, Hardware, ModelsOption, Quiet, Search, Sounds
from vermilion.errors import missing
from vermilion.pipeline import PipelineOptions
from vermilion.runtime import default_threads
from vermilion.server.building import LoadModels
from vermilion.server.options import Limits, ServerOptions, is_loopback, state_folder

if TYPE_CHECKING:
    from vermilion.server.backend import Engines
    from vermilion.server.uploads import Spool

EXAMPLES = """Examples:
  vermilion serve                                  http://127.0.0.1:8000
  vermilion serve --workers 2 --keep-alive 600     two engines; idle ones end
  vermilion keys add laptop && vermilion serve --host 0.0.0.0
  vermilion serve --wyoming-port 10300             for Home Assistant
  vermilion serve --engine ray --replicas 1 4      engines on Ray Serve
  vermilion serve --funasr-port 10095              for FunASR's clients
  vermilion serve --job-folders /srv/recordings    jobs name files by path

Clients of OpenAI's transcription interface work with
  OPENAI_BASE_URL=http://127.0.0.1:8000/v1
The page at / transcribes files and the microphone; /docs shows the interface.
SIGTERM lets requests finish; jobs go on at the next start."""

ADDRESS = Group.create_ordered("Address")
ACCESS = Group.create_ordered("Who may call")
ENGINES = Group.create_ordered("Engines")
JOBS = Group.create_ordered("Jobs")
LIMITS = Group.create_ordered("Limits")
DEFAULT_KEYS = Path("keys.json")


def serve(
    *,
    host: Annotated[str, Parameter(group=ADDRESS, help="Address to listen on; 0.0.0.0 = all, needs keys.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, Parameter(group=ADDRESS, help="HTTP and WebSockets.")] = 8000,
    funasr_port: Annotated[
        int | None, Parameter(group=ADDRESS, help="FunASR's WebSocket protocol too, usually 10095.")
    ] = None,
    wyoming_port: Annotated[int | None, Parameter(group=ADDRESS, help="Wyoming (TCP) too, usually 10300.")] = None,
    tls_certificate: Annotated[Path | None, Parameter(group=ADDRESS, help="PEM file; then it is https.")] = None,
    tls_key: Annotated[Path | None, Parameter(group=ADDRESS, help="PEM file of its private key.")] = None,
    keys: Annotated[
        Path | None,
        Parameter(
            group=ACCESS, help="File of API keys (`vermilion keys`). [default: that of `vermilion keys` if it exists]"
        ),
    ] = None,
    insecure: Annotated[
        bool, Parameter(negative="", show_default=False, group=ACCESS, help="Let others in without keys.")
    ] = False,
    hosts: Annotated[
        list[str] | None,
        Parameter(consume_multiple=True, group=ACCESS, help="Further names of this server, where there are no keys."),
    ] = None,
    origins: Annotated[
        list[str] | None,
        Parameter(consume_multiple=True, group=ACCESS, help="Other web sites that may call, as https://example.org."),
    ] = None,
    models: ModelsOption = "auto",
    recognizer: Annotated[
        Literal["auto", "aed", "llm", "whisper"], Parameter(group=MODELS, help="Which recogniser.")
    ] = "auto",
    hardware: Hardware = Hardware(),  # noqa: B008 - frozen
    search: Search = Search(),  # noqa: B008 - frozen
    workers: Annotated[int, Parameter(group=ENGINES, help="Engine processes; each loads the models.")] = 1,
    keep_alive: Annotated[
        float | None, Parameter(group=ENGINES, help="Seconds without work after which an engine frees its memory.")
    ] = None,
    engine: Annotated[
        Literal["local", "ray"], Parameter(group=ENGINES, help="local = processes; ray = Ray Serve (extra ray).")
    ] = "local",
    address: Annotated[
        str, Parameter(group=ENGINES, help="Ray cluster, such as auto or 10.0.0.5:6379; empty = a local one.")
    ] = "",
    replicas: Annotated[
        tuple[int, int], Parameter(group=ENGINES, help="Least and most engines on Ray; each loads the models.")
    ] = (1, 1),
    drain_seconds: Annotated[float, Parameter(group=ENGINES, help="Time to finish after SIGTERM.")] = 30.0,
    data: Annotated[Path | None, Parameter(group=JOBS, help="Folder for jobs, uploads, temporary files.")] = None,
    database: Annotated[
        str | None, Parameter(group=JOBS, help="PostgreSQL for jobs: postgresql://…; SQLite in --data without.")
    ] = None,
    job_folders: Annotated[
        list[Path] | None,
        Parameter(consume_multiple=True, group=JOBS, help="Folders whose files a job may name by path."),
    ] = None,
    fetch_hosts: Annotated[
        list[str] | None,
        Parameter(consume_multiple=True, group=JOBS, help="Hosts that a job's recording may be fetched from."),
    ] = None,
    webhook_hosts: Annotated[
        list[str] | None,
        Parameter(
            consume_multiple=True,
            group=JOBS,
            help="Hosts that a job may notify (signed with VERMILION_WEBHOOK_SECRET).",
        ),
    ] = None,
    keep_jobs_days: Annotated[float, Parameter(group=JOBS, help="Finished jobs are deleted after so long.")] = 7.0,
    limits: Annotated[Limits, Parameter(name="*", group=LIMITS)] = Limits(),  # noqa: B008 - frozen
    page: Annotated[bool, Parameter(group=OUTPUT, help="Serve the web page.")] = True,
    log_text: Annotated[
        bool, Parameter(negative="", show_default=False, group=OUTPUT, help="Write transcripts into the log.")
    ] = False,
    sounds: Sounds = Sounds(),  # noqa: B008 - frozen
    quiet: Quiet = False,
) -> int:
    """Serve transcription over HTTP and WebSockets, with a web page."""
    folder = data or state_folder()
    if engine == "local" and workers > 1 and not hardware.threads:  # they share the cores
        hardware = replace(hardware, threads=default_threads(workers))
    pipeline = hardware.apply(sounds.apply(PipelineOptions(recognizer=recognizer, decoding=search.plain())))
    options = ServerOptions(
        models=LoadModels(models, pipeline),
        engines=_on_ray(address, replicas, hardware) if engine == "ray" else None,
        host=host,
        port=port,
        workers=workers,
        data=folder,
        database=database,
        keys=None if insecure else keys or _known_keys(host),
        insecure=insecure,
        origins=tuple(origins or ()),
        hosts=tuple(hosts or ()),
        job_folders=tuple(path.resolve() for path in job_folders or ()),
        fetch_hosts=tuple(fetch_hosts or ()),
        webhook_hosts=tuple(webhook_hosts or ()),
        keep_alive=keep_alive,
        keep_jobs_days=keep_jobs_days,
        funasr_port=funasr_port,
        wyoming_port=wyoming_port,
        log_text=log_text,
        page=page,
        limits=limits,
    )
    Terminal(quiet).say("loading models; Ctrl-C stops")
    _run(options, drain_seconds, not quiet, tls_certificate, tls_key)
    return OK


def _on_ray(address: str, replicas: tuple[int, int], hardware: Hardware) -> Callable[[ServerOptions, Spool], Engines]:
    """Each replica has a GPU where the networks run on one, and as many cores as it has threads."""
    from vermilion.cluster.ray_serve import ReplicaOptions, on_ray_serve

    gpus = 1.0 if hardware.device.startswith("cuda") else 0.0
    return on_ray_serve(ReplicaOptions(address, replicas, cpus=max(1, hardware.threads), gpus=gpus))


def _known_keys(host: str) -> Path | None:
    """Who made keys wants them asked for where others can reach the server."""
    found = state_folder() / DEFAULT_KEYS
    return found if not is_loopback(host) and found.exists() else None


def _run(options: ServerOptions, drain: float, verbose: bool, certificate: Path | None, key: Path | None) -> None:
    try:
        from vermilion.server.running import Running, serve
    except ImportError as error:
        raise missing("the server needs more packages", "server", f"{error.name} is missing") from error
    serve(options, Running(drain, verbose, certificate, key))
