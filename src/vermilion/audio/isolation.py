"""Decodes a recording in a process of its own under limits: hostile files harm nobody else."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path

from vermilion.errors import AudioError, VermilionError

RATE = 16000


class DecoderDied(AudioError):
    """The process that decoded a recording was ended by its limits or by its own fault."""


@dataclass(frozen=True)
class Decoding:
    """What is to be decoded, and what it may cost."""

    source: Path
    target: Path
    """track i is written to `target` with the suffix .i"""
    name: str
    channels: str = "mix"
    max_seconds: float = 8 * 3600.0
    memory: int = 4 << 30
    """bytes of address space"""
    time: float = 600.0
    """seconds of wall clock and of processor"""
    stream: str = ""
    """which audio stream of several, as for `iter_blocks`"""


@dataclass(frozen=True)
class Decoded:
    """Tracks of 16 kHz int16 samples."""

    tracks: list[Path]
    seconds: float
    warnings: list[str] = field(default_factory=list)


def context() -> ForkServerContext | SpawnContext:
    """A fork server has the libraries loaded already, so that a decoder starts in milliseconds."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["vermilion.audio.isolation_child"])
    return found


def warm() -> None:
    """Start the fork server now; else the first decoder waits for it."""
    if isinstance(context(), ForkServerContext):
        from multiprocessing import forkserver

        forkserver.ensure_running()


def decode(work: Decoding, stopped: threading.Event | None = None) -> Decoded:
    """Decode a recording; blocks.

    Args:
        work: source, target, limits.
        stopped: when set, the decoder is ended at once.

    Returns:
        The tracks; they belong to the caller now.

    Raises:
        AudioError: it cannot be decoded, or not within the limits.
        AudioLimitError: it is too long.
        VermilionError: `stopped` was set.
    """
    from vermilion.audio.isolation_child import main

    chosen = context()
    ours, theirs = chosen.Pipe(duplex=False)
    process = chosen.Process(target=main, args=(theirs, work), daemon=True)
    try:
        process.start()
        theirs.close()
        answer = _wait(ours, work, stopped or threading.Event())
        if answer is None:  # killed by its limits, or by its own fault
            process.join(1.0)
            how = _how(process.exitcode)
            answer = DecoderDied(f"cannot read {work.name}: decoding it needs more memory or time than is allowed{how}")
    except BaseException:
        _remove(work)
        raise
    finally:
        ours.close()
        process.kill()
        process.join()
        process.close()
    if isinstance(answer, Decoded):
        return answer
    _remove(work)
    raise answer


def _wait(connection: Connection, work: Decoding, stopped: threading.Event) -> Decoded | VermilionError | None:
    """What the decoder says; None where it ended without a word."""
    waited = 0.0
    while waited < work.time:
        if stopped.is_set():
            raise VermilionError("decoding was cancelled")
        if connection.poll(0.05):
            try:
                answer: Decoded | VermilionError = connection.recv()
            except (EOFError, OSError):
                return None
            return answer
        waited += 0.05
    return AudioError(f"cannot read {work.name}: decoding took longer than {work.time:g} seconds")


def _how(code: int | None) -> str:
    """How a process ended, where a signal ended it."""
    if code is None or code >= 0:
        return ""
    with contextlib.suppress(ValueError):
        return f" ({signal.Signals(-code).name})"
    return f" (signal {-code})"


def _remove(work: Decoding) -> None:
    for path in work.target.parent.glob(work.target.name + ".*"):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
