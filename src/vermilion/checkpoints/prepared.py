"""Networks in the form they run in, kept beside the model: conversion to int8 or bfloat16 happens once."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vermilion.checkpoints.convert import write_safetensors
from vermilion.checkpoints.reader import Checkpoint, load_strict
from vermilion.runtime import Runtime, give_back_memory

if TYPE_CHECKING:
    from torch import Tensor, nn

FOLDER = ".prepared"
LEAST_BYTES = 64 << 20
"""networks smaller than this are converted at every start, which takes no time"""
_FORMAT = "2"
log = logging.getLogger(__name__)


def load_network(
    build: Callable[[], nn.Module],
    checkpoint: Checkpoint,
    part: str,
    runtime: Runtime,
    *,
    ignore: Iterable[str] = (),
) -> nn.Module:
    """Build a network with the weights of one part of a checkpoint, ready to run.

    Weights are converted layer by layer and what has been read is given back to the system, so that the peak stays
    near the size of the result.

    Args:
        build: makes the network without weights (called on the meta device).
        checkpoint: file with the weights.
        part: prefix of the keys, with its dot; "" = the whole file.
        runtime: device and precision.
        ignore: patterns of keys (without prefix) that the network does not need.

    Raises:
        CheckpointError: the weights do not fit.
    """
    import torch

    with torch.device("meta"), _without_initialisation():
        network = build()
    place = _place(checkpoint, part, runtime)
    kept = _read(place, checkpoint) if place is not None else None
    if place is not None and kept is not None:
        runtime.prepare(network)
        network.load_state_dict(kept, strict=True, assign=True)
        kept = None
        return _finished(network, runtime, PageReleaser(place))
    state = {k.removeprefix(part): v for k, v in checkpoint.state.items() if k.startswith(part)}
    load_strict(network, state, checkpoint.path, ignore=ignore)
    release = PageReleaser(checkpoint.path)
    network = runtime.prepare(network.float(), release)
    if place is not None and sum(t.nbytes for t in network.state_dict().values()) >= LEAST_BYTES:
        _write(place, network, checkpoint)
    return _finished(network, runtime, release)


def _finished(network: nn.Module, runtime: Runtime, release: Callable[[Tensor], None]) -> nn.Module:
    """Pack the layers; what the allocator still holds of the copies goes back to the system."""
    network = runtime.finish(network, release)
    give_back_memory()
    return network


def _without_initialisation() -> AbstractContextManager[object]:
    """A mode in which layers leave their weights alone: on the meta device this alone costs seconds of imports."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Mode(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            fills = (torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.fill_, torch.Tensor.zero_)
            if func in fills or getattr(func, "__module__", "") == "torch.nn.init":
                return args[0] if args else kwargs["tensor"]
            return func(*args, **(kwargs or {}))

    return Mode()


def _place(checkpoint: Checkpoint, part: str, runtime: Runtime) -> Path | None:
    """The file of a prepared network; None where there is nothing to convert."""
    if runtime.device.type != "cpu" or runtime.precision == "float32":
        return None
    name = f"{checkpoint.path.name.split('.')[0]}.{part}{runtime.precision}.safetensors"
    return checkpoint.path.parent / FOLDER / name


def _source(checkpoint: Checkpoint) -> str:
    stats = [(path.name, path.stat()) for path in checkpoint.parts or (checkpoint.path,)]
    return json.dumps([_FORMAT, *([name, stat.st_size, stat.st_mtime_ns] for name, stat in stats)])


def _read(place: Path, checkpoint: Checkpoint) -> dict[str, Tensor] | None:
    """Weights prepared before, if they were made from this very checkpoint."""
    from safetensors import SafetensorError, safe_open

    if not place.exists():
        return None
    try:
        with safe_open(place, framework="pt", device="cpu") as file:
            if (file.metadata() or {}).get("source") != _source(checkpoint):
                return None
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        log.warning("%s is damaged (%s) and is made again", place, error)
        return None


def _write(place: Path, network: nn.Module, checkpoint: Checkpoint) -> None:
    """Keep a prepared network; where nothing can be written the model works all the same."""
    try:
        place.parent.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)  # containers share process numbers
        os.close(handle)
    except OSError as error:
        log.info("prepared weights are not kept beside %s: %s", checkpoint.path, error)
        return
    temporary = Path(name)
    try:
        write_safetensors(temporary, network.state_dict(), {"format": "pt", "source": _source(checkpoint)})
        temporary.replace(place)
    except OSError as error:
        log.info("prepared weights are not kept beside %s: %s", checkpoint.path, error)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


class PageReleaser:
    """Gives the memory-mapped pages of weights back once they are copied; the file still holds them.

    Only addresses inside a mapping of that very file are touched. Elsewhere than on Linux nothing is done.
    """

    def __init__(self, path: Path) -> None:
        """Take the mapped file."""
        self._ranges = list(_mappings(path))

    def __call__(self, tensor: Tensor) -> None:
        """Release the whole pages of a tensor that is not needed any more."""
        if tensor.device.type != "cpu" or not self._ranges:
            return
        page = os.sysconf("SC_PAGE_SIZE")
        first = -(-tensor.data_ptr() // page) * page
        last = (tensor.data_ptr() + tensor.nbytes) // page * page
        if first < last and any(start <= first and last <= end for start, end in self._ranges):
            dont_need = 4
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), dont_need)


def _mappings(path: Path) -> Iterable[tuple[int, int]]:
    if sys.platform != "linux":
        return
    name = str(path.resolve())
    for line in Path("/proc/self/maps").read_text(encoding="utf8", errors="surrogateescape").splitlines():
        columns = line.split(maxsplit=5)
        if len(columns) == 6 and columns[5] == name:
            start, end = columns[0].split("-")
            yield int(start, 16), int(end, 16)
