"""Where networks run and in which precision: brings a loaded network into the form that is fastest there."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vermilion.choices import check_choice
from vermilion.errors import OptionsError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

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


def set_threads(threads: int = 0) -> int:
    """Set the threads of the CPU's networks, numpy's among them: more than the cores at hand make everything slower.

    Args:
        threads: 0 = the cores that this process may use.

    Returns:
        The number set.

    Raises:
        OptionsError: a negative number.
    """
    import torch
    from threadpoolctl import threadpool_limits

    if threads < 0:
        raise OptionsError(f"threads must not be negative, got {threads}")
    chosen = threads or usable_cores()
    torch.set_num_threads(chosen)
    threadpool_limits(chosen, user_api="blas")  # voice activity: two workers with all cores each were five times slower
    return chosen


def usable_cores() -> int:
    """Cores that this process may use: its affinity and its container's quota are respected."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


def give_back_memory() -> None:
    """Return to the system what the allocator keeps of freed arrays (glibc alone keeps, and can return, so much)."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
