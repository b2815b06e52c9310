"""Linear layers prepared for inference on a CPU: weights in the layout its matrix kernels read, float or int8.

A few rows against a large matrix (a decoding step) run 4 to 12 times faster on packed weights than through the plain
layer. int8 keeps one scale per output channel and quantises each row of the input by itself, so that an answer never
depends on what else is in the batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vermilion.errors import OptionsError

T = TypeVar("T")
_PACK_ROWS = 128
"""rows that the layout is chosen for; measured to serve 3 rows as well as 1,000"""
_SMALL = 1 << 16
MOST_WORKERS = 4
"""layers that are held twice while they are packed"""
_LEVELS = 127
"""largest weight of the int8 form"""


class ExactLinear(nn.Linear):
    """A small layer that reads unnormalised values and so stays in float, unpacked, whatever the precision."""


class Pointwise(nn.Conv1d):
    """A bias-free convolution with one tap: a linear layer whose stored weight is (out, in, 1)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        return F.linear(x, self.weight[:, :, 0])


class PackedLinear(nn.Module):
    """A linear layer in float32 or bfloat16 on weights packed by oneDNN."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, _PACK_ROWS)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return result


class Int8Linear(nn.Module):
    """A linear layer with int8 weights: one scale per output channel, input rows quantised as they come."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        """Take weight (out, in) int8, scale (out,) float32, bias (out,) float32; `pack` makes it ready to run."""
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        self.packed: Any = None

    @classmethod
    def from_float(cls, weight: Tensor, bias: Tensor | None) -> Int8Linear:
        """Quantise symmetrically, each output channel by its largest weight."""
        if weight.is_meta:
            scale = torch.empty(len(weight), device="meta")
            return cls(torch.empty(weight.shape, dtype=torch.int8, device="meta"), scale, bias)
        rows = weight.float()
        scale = rows.abs().amax(1).clamp_min(1e-30) / _LEVELS
        quantised = (rows / scale[:, None]).round_().to(torch.int8)
        return cls(quantised, scale, None if bias is None else bias.float())

    def pack(self) -> Tensor:
        """Bring the weights into the kernel's layout; the plain ones are returned and not kept."""
        plain = self.weight
        self.packed = _packed_int8(plain, self.scale)
        self.weight = plain.new_empty(0)
        return plain

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) float32 → (…, out) float32."""
        largest = _activation_levels()
        scale = _peaks(x).clamp_min_(1e-30).mul_(1 / largest)
        y: Tensor = _int8_kernel()(x / scale, 1.0, largest + 1, self.packed)
        return y.mul_(scale) if self.bias is None else torch.addcmul(self.bias, y, scale)


def _peaks(x: Tensor) -> Tensor:
    """Largest magnitude of each row; of many rows without a copy of |x|."""
    if x.numel() < _SMALL:
        return x.abs().amax(-1, keepdim=True)
    return torch.maximum(x.amax(-1, keepdim=True), x.amin(-1, keepdim=True).neg_())


def _packed_int8(weight: Tensor, scale: Tensor) -> Any:
    zeros = torch.zeros(len(scale), dtype=torch.long)
    quantised = torch._make_per_channel_quantized_tensor(weight, scale.double(), zeros, 0)
    return torch.ops.quantized.linear_prepack(quantised, None)


@contextmanager
def _quietly() -> Iterator[None]:
    """Torch announces a successor of its int8 interface that has no kernel for few rows.

    Entered by one thread around all work of others: the filters belong to the process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _int8_kernel() -> Callable[..., Tensor]:
    kernel = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
    return cast(Callable[..., Tensor], kernel)


@lru_cache(maxsize=1)
def _activation_levels() -> int:
    """Largest quantised input, 127, or 63 where the CPU's 16-bit sums of two products would overflow.

    Raises:
        OptionsError: this build of torch has no int8 kernel for this CPU.
    """
    try:
        with _quietly():
            weight = _packed_int8(torch.full((32, 64), _LEVELS, dtype=torch.int8), torch.ones(32))
        found = float(_int8_kernel()(torch.full((4, 64), 127.0), 1.0, 128, weight)[0, 0])
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        raise OptionsError(f"int8 cannot run on this machine ({error}); choose float32 or bfloat16") from error
    return 127 if found == 64.0 * _LEVELS * 127 else 63


def int8_available() -> bool:
    """Tell whether int8 layers run here."""
    try:
        return _activation_levels() > 0
    except OptionsError:
        return False


class Fusable(nn.Module):
    """A module that can merge parts of itself for inference."""

    def fuse(self) -> None:
        """Replace layers by fewer, larger ones with the same results."""
        raise NotImplementedError


def merged(layers: Sequence[nn.Linear], norms: Sequence[nn.LayerNorm] = ()) -> nn.Linear:
    """One linear layer whose outputs are those of several, one after the other; a missing bias is zero.

    Args:
        layers: all with the same number of inputs.
        norms: one per layer; their scales and shifts are folded in, so that the input is only to be normalised.
    """
    rows, columns = sum(layer.out_features for layer in layers), layers[0].in_features
    biased = bool(norms) or any(layer.bias is not None for layer in layers)
    if layers[0].weight.is_meta:
        return nn.Linear(columns, rows, bias=biased, device="meta")
    weights = [layer.weight.detach() for layer in layers]
    biases = [
        layer.bias.detach() if layer.bias is not None else w.new_zeros(len(w))
        for layer, w in zip(layers, weights, strict=True)
    ]
    if norms:
        biases = [b + w @ norm.bias.detach() for b, w, norm in zip(biases, weights, norms, strict=True)]
        weights = [w * norm.weight.detach() for w, norm in zip(weights, norms, strict=True)]
    return linear_of(torch.cat(weights), torch.cat(biases) if biased else None)


def linear_of(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer around given tensors."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


def fuse(network: nn.Module, release: Callable[[Tensor], None] = lambda _: None) -> None:
    """Fuse all parts of a network in place.

    Args:
        network: on any device, the meta device included.
        release: called with each tensor that was replaced.
    """
    for module in list(network.modules()):
        if isinstance(module, Fusable):
            before = dict(module.named_parameters(recurse=True))
            module.fuse()
            for name in before.keys() - dict(module.named_parameters(recurse=True)).keys():
                release(before[name])


def replace_linears(
    network: nn.Module,
    make: Callable[[Tensor, Tensor | None], nn.Module],
    release: Callable[[Tensor], None] = lambda _: None,
    workers: int = 1,
) -> None:
    """Exchange every linear layer, one per worker at a time, so that few are held twice.

    Args:
        network: changed in place.
        make: (weight (out, in), bias) → the new layer.
        release: called with each weight that was replaced.
        workers: threads.
    """

    def exchange(place: tuple[nn.Module, str, nn.Module]) -> None:
        parent, name, child = place
        weight = cast(Tensor, child.weight).detach()
        bias = cast(Tensor | None, child.bias)
        new = make(weight.flatten(1), bias.detach() if bias is not None else None)  # a pointwise weight is (out, in, 1)
        setattr(parent, name, new)
        cast(Any, child).weight = None  # the list of places still holds the layer
        release(weight)

    places = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if type(child) in (nn.Linear, Pointwise)
    ]
    _each(exchange, places, workers)


def pack_int8(network: nn.Module, release: Callable[[Tensor], None] = lambda _: None, workers: int = 1) -> None:
    """Make all int8 layers of a network ready to run."""
    layers = [module for module in network.modules() if isinstance(module, Int8Linear)]
    with _quietly():
        _each(lambda layer: release(layer.pack()), layers, workers)


def _each(work: Callable[[T], None], items: Sequence[T], workers: int) -> None:
    with ThreadPoolExecutor(min(max(1, workers), MOST_WORKERS)) as pool:  # packing runs outside the interpreter's lock
        for _ in pool.map(work, items):
            pass


@lru_cache(maxsize=4)
def float_packing_available(dtype: torch.dtype) -> bool:
    """Tell whether oneDNN's packed layers run here in a type and agree with the plain ones."""
    x, weight = torch.ones(3, 16, dtype=dtype), torch.eye(16, dtype=dtype)
    try:
        return torch.equal(PackedLinear(weight, None)(x), x)
    except (RuntimeError, NotImplementedError, AttributeError):
        return False
