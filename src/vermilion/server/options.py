"""What the server allows, and where things lie."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vermilion.errors import OptionsError

if TYPE_CHECKING:
    from vermilion.server.backend import Engines
    from vermilion.server.uploads import Spool
    from vermilion.server.worker import Models

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What one client, and all of them, may ask for."""

    upload_bytes: int = 2048 * MEGABYTE
    """largest recording"""
    spool_bytes: int = 16384 * MEGABYTE
    """all temporary files together"""
    audio_seconds: float = 8 * 3600.0
    """longest recording of a job"""
    request_seconds: float = 2 * 3600.0
    """longest recording of a request that waits for its answer"""
    requests: int = 64
    """requests at work or waiting"""
    backlog_seconds: float = 4 * 3600.0
    """audio of all requests that wait for their answers"""
    per_client: int = 32
    """requests of one client at once"""
    live_sessions: int = 16
    """live sessions at once, on all engines"""
    sockets: int = 128
    """WebSockets at once; of one client as many as it may have requests"""
    socket_bytes: int = 1024 * MEGABYTE
    """audio that all sockets hold until it is transcribed"""
    jobs: int = 10_000
    """jobs that wait"""
    jobs_at_once: int = 4
    """jobs that share the engines"""
    deadline: float = 1800.0
    """seconds until a waiting client is told that it takes too long"""
    stalled: float = 30.0
    """seconds without a byte after which an upload is given up"""
    decode_seconds: float = 600.0
    """time that the decoder may take for one recording"""
    decode_memory: int = 4096 * MEGABYTE
    """address space of the decoder"""
    text_characters: int = 100_000
    """characters of a text to be punctuated"""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise OptionsError(f"{name} must be positive, not {value}")


@dataclass(frozen=True)
class ServerOptions:
    """Everything that `vermilion serve` decides."""

    models: Callable[[], Models]
    """builds the modules inside an engine process; must be picklable"""
    engines: Callable[[ServerOptions, Spool], Engines] | None = None
    """makes the engines; None = processes of this machine (`vermilion.server.engines`)"""
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    """engine processes"""
    data: Path = field(default_factory=lambda: state_folder())
    """job store, uploads of jobs, temporary files"""
    database: str | None = None
    """URL of a PostgreSQL database for jobs; None = SQLite under `data`"""
    keys: Path | None = None
    """file with the hashes of API keys; None = no key is asked for"""
    insecure: bool = False
    """no keys although others can reach the server"""
    origins: tuple[str, ...] = ()
    """web pages of other origins that may call"""
    hosts: tuple[str, ...] = ()
    """further names of this server that a `Host` header may give"""
    job_folders: tuple[Path, ...] = ()
    """folders whose files a job may name by path"""
    fetch_hosts: tuple[str, ...] = ()
    """hosts from which a job may fetch a recording"""
    webhook_hosts: tuple[str, ...] = ()
    """hosts that a job may notify"""
    keep_alive: float | None = None
    """seconds without work after which an engine gives its memory back; None = never"""
    keep_jobs_days: float = 7.0
    """finished jobs are deleted after so many days"""
    funasr_port: int | None = None
    wyoming_port: int | None = None
    log_text: bool = False
    """write transcripts into the log"""
    page: bool = True
    """serve the web page"""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise OptionsError(f"workers must be at least 1, not {self.workers}")
        if not is_loopback(self.host) and self.keys is None and not self.insecure:
            raise OptionsError(
                f"{self.host} can be reached by others: make a key with `vermilion keys add NAME` and start with "
                "--keys FILE, or say --insecure if the network itself keeps strangers out"
            )
        if self.wyoming_port is not None and not is_loopback(self.host) and not self.insecure:
            raise OptionsError("the Wyoming protocol has no keys: bind to 127.0.0.1, or say --insecure as well")

    @property
    def spool(self) -> Path:
        """Temporary files; emptied when the server starts, so servers that share `data` have one each."""
        import socket

        own = f"spool-{socket.gethostname()}-{self.port}" if self.database is not None else "spool"
        return self.data / own

    @property
    def uploads(self) -> Path:
        """Recordings of jobs that are not finished."""
        return self.data / "uploads"


def is_loopback(host: str) -> bool:
    """Only this machine can reach it."""
    import ipaddress

    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def state_folder() -> Path:
    """Where the server keeps its things by default."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "vermilion"
