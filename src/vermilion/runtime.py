"""Where networks run and in which precision: brings a loaded network into the form that is fastest there."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from vermilion.choices import check_choice
from vermilion.errors import OptionsError

if TYPE_CHECKING:
    import torch
    from threadpoolctl import ThreadpoolController
    from torch import Tensor, nn

_PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""as GNU's, Intel's and LLVM's OpenMP are told not to spin"""
_limiting = threading.Lock()
_inside = 0
_limit: Any = None
"""of numpy's threads, and how many are in `one_numpy_thread`"""
PRECISIONS = ("auto", "float32", "bfloat16", "float16", "int8")


@dataclass(frozen=True)
class Runtime:
    """A device and a precision that work together."""

    device: torch.device
    precision: str
    """"float32", "bfloat16", "float16" or "int8"; never "auto" """

    @classmethod
    def of(cls, device: str = "cpu", precision: str = "float32") -> Runtime:
        """Check names and settle "auto": what the device computes natively without a measurable loss of accuracy.

        Args:
            device: torch device.
            precision: one of `PRECISIONS`. "auto" is bfloat16 where the processor has instructions for it (float16 on
                older GPUs), else float32; int8 is only taken when it is asked for.

        Raises:
            OptionsError: a name is unknown, the device is absent, or it cannot run the precision.
        """
        check_choice("precision", precision, PRECISIONS)
        place = torch_device(device)
        found = cls(place, _best_precision(place) if precision == "auto" else precision)
        if found.precision == "int8":
            _require_int8(place)
        return found

    @property
    def dtype(self) -> torch.dtype:
        """Type of the activations: float32 where the weights are int8."""
        import torch

        dtype: torch.dtype = getattr(torch, "float32" if self.precision == "int8" else self.precision)
        return dtype

    @property
    def cache_dtype(self) -> torch.dtype:
        """Type of the decoder's cached keys and values: half the memory to read wherever weights are small too."""
        import torch

        return torch.bfloat16 if self.precision == "int8" else self.dtype

    def prepare(self, network: nn.Module, release: Callable[[Tensor], None] = lambda _: None) -> nn.Module:
        """Fuse a float32 network's layers and convert them in place, layer by layer; `finish` makes it ready.

        Args:
            network: weights in float32 on the CPU, or on the meta device.
            release: called with each weight that is no longer needed.
        """
        from vermilion.nn.packed import Int8Linear, fuse, replace_linears

        fuse(network, release)
        if self.precision == "int8":
            replace_linears(network, Int8Linear.from_float, release)
        elif self.precision != "float32":
            for child in network.modules():
                for name, parameter in list(child.named_parameters(recurse=False)):
                    setattr(child, name, _converted(parameter, self.dtype))
                    release(parameter)
        return network

    def finish(self, network: nn.Module, release: Callable[[Tensor], None] = lambda _: None) -> nn.Module:
        """Move a prepared network to the device and pack its layers for the processor."""
        from vermilion.nn.packed import PackedLinear, float_packing_available, pack_int8, replace_linears

        network = network.to(self.device).eval().requires_grad_(False)
        if self.device.type == "cuda" and self.precision == "float32":
            _use_whole_float32()
        if self.precision == "int8":
            pack_int8(network, release, usable_cores())
        elif self.device.type == "cpu" and float_packing_available(self.dtype):
            replace_linears(network, PackedLinear, release, usable_cores())
        return network


def _use_whole_float32() -> None:
    """Convolutions on newer GPUs would drop to 10 bits of mantissa; products do not unless they are told to."""
    import torch

    torch.backends.cudnn.allow_tf32 = False


def _converted(parameter: nn.Parameter, dtype: torch.dtype) -> nn.Parameter:
    from torch import nn

    return nn.Parameter(parameter.detach().to(dtype), requires_grad=False)


def _best_precision(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        # torch would call emulated bfloat16 supported, which is slow
        recent = bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)
        return "bfloat16" if recent else "float16"
    flags: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch: unknown, so float32
    native = device.type == "cpu" and (flags.get("avx512_bf16") or flags.get("amx_bf16"))
    return "bfloat16" if native else "float32"


def _require_int8(device: torch.device) -> None:
    from vermilion.nn.packed import int8_available

    if device.type != "cpu":
        raise OptionsError(f"int8 runs on the CPU only; on {device.type} choose bfloat16 or float16")
    if not int8_available():
        raise OptionsError("this build of torch has no int8 kernels for this CPU; choose float32 or bfloat16")


def torch_device(name: str) -> torch.device:
    """A torch device that exists.

    Raises:
        OptionsError: the name is wrong or the device is not there.
    """
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise OptionsError(f"device {name!r} cannot be used here: {error}") from error
    return device


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait for each other, unless the user has said how they should.

    For programs, before torch and CTranslate2 are loaded: they read the environment then. A thread that waits in a loop
    takes the core from the one that it waits for as soon as anything else runs on the machine.
    """
    if not any(name in os.environ for name in (*_PASSIVE, "GOMP_SPINCOUNT")):
        os.environ.update(_PASSIVE)


def begin_worker() -> None:
    """What a worker process does first: passive waits, and no lock between processes for progress bars.

    tqdm, which faster-whisper uses, makes such a lock; a worker that is ended leaves its name to Python's resource
    tracker, which complains of it at the end of the whole program.
    """
    wait_passively()
    with suppress(ImportError):
        from tqdm import tqdm

        tqdm.set_lock(threading.RLock())


def set_threads(threads: int = 0) -> int:
    """Set the threads of the CPU's networks; numpy's get one.

    Args:
        threads: 0 = `default_threads()`.

    Returns:
        The number set.

    Raises:
        OptionsError: a negative number.
    """
    import torch

    if threads < 0:
        raise OptionsError(f"threads must not be negative, got {threads}")
    chosen = threads or default_threads()
    limit_numpy()
    torch.set_num_threads(chosen)  # last: where numpy and torch share a library, this holds for both
    return chosen


def limit_numpy() -> None:
    """Give numpy's products (voice activity, features) one thread, from now on and in the whole process.

    Their matrices are small: a second thread gains nothing on an idle machine, and on a busy one the two wait for each
    other in a loop, which was up to 18 times slower.
    """
    _numpy_libraries().limit(limits=1, user_api="blas")


@contextmanager
def one_numpy_thread() -> Iterator[None]:
    """The same for a while, for callers who keep numpy's threads for other work; threads may be in here together."""
    global _inside, _limit
    with _limiting:
        _inside += 1
        if _inside == 1:
            _limit = _numpy_libraries().limit(limits=1, user_api="blas")
    try:
        yield
    finally:
        with _limiting:
            _inside -= 1
            if not _inside:
                _limit.restore_original_limits()


@cache
def _numpy_libraries() -> ThreadpoolController:
    import numpy as np  # noqa: F401 - its library must be there to be limited
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def default_threads(processes: int = 1) -> int:
    """Threads of a process where nobody says how many: `OMP_NUM_THREADS`, else its share of the usable cores.

    Args:
        processes: that work side by side on this machine.
    """
    named = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if named.isascii() and named.isdigit() and int(named) > 0:
        return int(named)
    return max(1, usable_cores() // max(1, processes))


def usable_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: its affinity and its container's quota are respected.

    Args:
        root: of the file system in which the quotas are looked up.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _control_groups(root) if (quota := _quota(folder)) is not None]
    return max(1, min([cores, *(int(quota) for quota in quotas)]))


def _control_groups(root: Path) -> Iterator[Path]:
    """Folders of the process's control groups and of those above them: any of them may have a quota."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    for line in ["0::/", "1:cpu:/", *lines]:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        inner = PurePosixPath(path.lstrip("/"))
        yield from (top / part for part in (inner, *inner.parents))


def _quota(folder: Path) -> float | None:
    """Cores that a control group may use, of version 2 or 1; None = no limit."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            words = " ".join((folder / name).read_text(encoding="ascii") for name in names).split()
            quota, period = int(words[0]), int(words[1])
        except (OSError, ValueError, IndexError):  # not there, or "max"
            continue
        return quota / period if quota > 0 and period > 0 else None
    return None


def give_back_memory() -> None:
    """Return to the system what the allocator keeps of freed arrays (glibc alone keeps, and can return, so much)."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def free_memory() -> int | None:
    """Bytes of memory that a new program can have; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
