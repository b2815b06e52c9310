"""What runs inside a decoder process; the fork server loads this module once for all of them."""

from __future__ import annotations

import contextlib
import math
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

import av  # noqa: F401 - loaded before the limits are set
import numpy as np
import soundfile  # noqa: F401
import soxr  # noqa: F401

from vermilion.audio.isolation import RATE, Decoded, Decoding
from vermilion.audio.reading import iter_blocks
from vermilion.errors import AudioError, VermilionError


def main(connection: Connection, work: Decoding) -> None:
    """Decode, and send a `Decoded` or an error."""
    _limit(work)
    try:
        answer: Decoded | VermilionError = _decode(work)
    except VermilionError as error:
        answer = type(error)(_named(str(error), work))
    except MemoryError:
        answer = AudioError(f"cannot read {work.name}: decoding it needs more memory than is allowed")
    except OSError as error:
        answer = AudioError(f"cannot read {work.name}: {error.strerror or error}")
    connection.send(answer)
    connection.close()


def _limit(work: Decoding) -> None:
    """Memory, processor time and size of files; what the system does not offer is left to the parent's clock."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        seconds = math.ceil(work.time)
        size = int((work.max_seconds + 60) * RATE * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (work.memory, work.memory))


def _named(text: str, work: Decoding) -> str:
    """Clients know their file by its own name, not by ours."""
    return text.replace(str(work.source), work.name)


def _decode(work: Decoding) -> Decoded:
    warnings: list[str] = []
    files: list[IO[bytes]] = []
    count = 0
    channels = "separate" if work.channels == "separate" else "mix"
    with contextlib.ExitStack() as stack:
        blocks = iter_blocks(
            work.source,
            channels=channels,  # type: ignore[arg-type]
            max_seconds=work.max_seconds,
            warnings=warnings,
            stream=work.stream,
        )
        for block in blocks:
            files = files or [stack.enter_context(track(work.target, i).open("xb")) for i in range(len(block))]
            for file, samples in zip(files, block, strict=True):
                file.write(np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes())
            count += block.shape[1]
        if not files:
            stack.enter_context(track(work.target, 0).open("xb"))
    tracks = [track(work.target, i) for i in range(max(1, len(files)))]
    return Decoded(tracks, count / RATE, [_named(w, work) for w in warnings])


def track(target: Path, number: int) -> Path:
    """The file of a channel."""
    return target.with_name(f"{target.name}.{number}")
