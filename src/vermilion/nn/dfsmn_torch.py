"""The network of FireRedVAD for training, in torch (SPEC section 9); `nn.dfsmn` runs the weights that come out of it.

Activations are (C, B, T), time last: the memories filter along rows and nothing is transposed between the layers.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vermilion.nn.dfsmn import DfsmnConfig

BLOCK = 32
"""frames that one row of the blocked convolution covers"""


class DfsmnNetwork(nn.Module):
    """DFSMN with the published keys; gives logits, not probabilities."""

    def __init__(self, config: DfsmnConfig, dropout: float = 0.0) -> None:
        """Build it with fresh weights.

        Args:
            config: sizes.
            dropout: share of hidden units that are dropped in training.
        """
        super().__init__()
        self.config = config
        self.dfsmn = _Body(config, dropout)
        self.out = nn.Linear(config.H if config.M else config.P, config.odim)

    def forward(self, features: Tensor) -> Tensor:
        """Logits of recordings of equal length: (B, T, idim) → (B, T, odim)."""
        batch, frames, _ = features.shape
        x = self.dfsmn(features.reshape(batch * frames, -1).T, batch)  # (H, B·T)
        return cast(Tensor, self.out(x.T)).view(batch, frames, -1)


class _Body(nn.Module):
    """Everything but the classifier."""

    def __init__(self, config: DfsmnConfig, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.fc1 = nn.Sequential(nn.Linear(config.idim, config.H), nn.ReLU())
        self.fc2 = nn.Sequential(nn.Linear(config.H, config.P), nn.ReLU())
        self.fsmn1 = Memory(config)
        self.fsmns = nn.ModuleList(_Block(config, dropout) for _ in range(config.R - 1))
        layers: list[nn.Module] = []
        for i in range(config.M):
            layers += [nn.Linear(config.P if i == 0 else config.H, config.H), nn.ReLU(), nn.Dropout(dropout)]
        self.dnns = nn.Sequential(*layers)

    def forward(self, x: Tensor, batch: int) -> Tensor:
        """(idim, B·T) → (H, B·T)."""
        hidden = F.dropout(_rows(x, self.fc1[0]).relu(), self.dropout, self.training)
        x = self.fsmn1(_rows(hidden, self.fc2[0]).relu(), batch)
        for block in self.fsmns:
            x = block(x, batch)
        for layer in self.dnns:
            x = _rows(x, layer) if isinstance(layer, nn.Linear) else layer(x)
        return x


class _Block(nn.Module):
    """Two layers, a memory, and a way around them."""

    def __init__(self, config: DfsmnConfig, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.fc1 = nn.Sequential(nn.Linear(config.P, config.H), nn.ReLU())
        self.fc2 = nn.Linear(config.H, config.P, bias=False)
        self.fsmn = Memory(config)

    def forward(self, x: Tensor, batch: int) -> Tensor:
        """(P, B·T) → (P, B·T)."""
        hidden = F.dropout(_rows(x, self.fc1[0]).relu(), self.dropout, self.training)
        return x + cast(Tensor, self.fsmn(_rows(hidden, self.fc2), batch))


class Memory(nn.Module):
    """A finite impulse response per channel, added to its input."""

    def __init__(self, config: DfsmnConfig) -> None:
        """Make both filters; a causal one has no look-ahead."""
        super().__init__()
        self.config = config
        # only their weights are used: as layers they would run slowly, and on padded copies
        self.lookback_filter = nn.Conv1d(config.P, config.P, config.N1, groups=config.P, bias=False)
        if config.N2:
            self.lookahead_filter = nn.Conv1d(config.P, config.P, config.N2, groups=config.P, bias=False)

    def taps(self) -> Tensor:
        """The whole filter, (P, look back + 1 + look ahead), oldest frame first, without the skip."""
        config = self.config
        parts = [_spread(self.lookback_filter.weight[:, 0], config.S1, front=False)]
        if config.N2:
            parts.append(_spread(self.lookahead_filter.weight[:, 0], config.S2, front=True))
        return torch.cat(parts, dim=1)

    def forward(self, x: Tensor, batch: int) -> Tensor:
        """(P, B·T) → (P, B·T); frames outside a recording are zero."""
        signal = x.view(len(x), batch, -1)
        with torch.autocast(x.device.type, enabled=False):  # short sums of many channels: nothing to gain
            filtered = filter_rows(signal.float(), self.taps().float(), self.config.look_back)
        return x + filtered.reshape(len(x), -1).to(x.dtype)


def _rows(x: Tensor, layer: nn.Module) -> Tensor:
    """A linear layer on columns: (in, N) → (out, N)."""
    layer = cast(nn.Linear, layer)
    y = layer.weight @ x
    return y if layer.bias is None else y + layer.bias[:, None].to(y.dtype)


def _spread(taps: Tensor, stride: int, *, front: bool) -> Tensor:
    """Put stride − 1 zeros between the taps; in front of the first one too where that is a frame ahead."""
    if stride == 1:
        return taps
    channels, count = taps.shape
    wide = F.pad(taps[:, :, None], (stride - 1, 0) if front else (0, stride - 1)).reshape(channels, -1)
    return wide if front else wide[:, : (count - 1) * stride + 1]


def filter_rows(signal: Tensor, taps: Tensor, look_back: int) -> Tensor:
    """Filter each channel: y[p, b, t] = Σ_k taps[p, k] · x[p, b, t + k − look_back].

    Args:
        signal: (P, B, T) float32.
        taps: (P, K) float32.
        look_back: taps before the current frame.

    Returns:
        (P, B, T).
    """
    if signal.device.type == "cpu":  # torch's depthwise convolution takes three times as long to differentiate there
        return cast(Tensor, _Blocked.apply(signal, taps, look_back))  # type: ignore[no-untyped-call]
    padded = F.pad(signal.transpose(0, 1), (look_back, taps.shape[1] - 1 - look_back))
    return F.conv1d(padded, taps[:, None], groups=len(taps)).transpose(0, 1)


class _Blocked(torch.autograd.Function):
    """The filter and its derivatives as matrix products over overlapping blocks."""

    @staticmethod
    def forward(ctx: Any, signal: Tensor, taps: Tensor, look_back: int) -> Tensor:
        ctx.save_for_backward(signal, taps)
        ctx.look_back = look_back
        return _convolve(signal, taps, look_back)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        signal, taps = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        ahead = taps.shape[1] - 1 - ctx.look_back
        to_signal = _convolve(gradient, taps.flip(1), ahead) if ctx.needs_input_grad[0] else None
        to_taps = _correlate(gradient, signal, ctx.look_back, taps.shape[1]) if ctx.needs_input_grad[1] else None
        return to_signal, to_taps, None


def _convolve(signal: Tensor, taps: Tensor, look_back: int) -> Tensor:
    channels, batch, frames = signal.shape
    count = taps.shape[1]
    width = BLOCK + count - 1
    # one small matrix per channel whose row i holds the taps from column i on
    rows = F.pad(taps, (0, BLOCK))[:, None].expand(channels, BLOCK, width + 1).reshape(channels, -1)
    toeplitz = rows[:, : BLOCK * width].view(channels, BLOCK, width)
    blocks = _blocks(signal, look_back, count)
    return torch.bmm(blocks, toeplitz.transpose(1, 2)).view(channels, batch, -1)[:, :, :frames]


def _correlate(gradient: Tensor, signal: Tensor, look_back: int, count: int) -> Tensor:
    """The derivative of the taps, (P, K): products of all blocks, summed along the diagonals."""
    channels, _, frames = gradient.shape
    width = BLOCK + count - 1
    whole = F.pad(gradient, (0, -frames % BLOCK)).view(channels, -1, BLOCK)
    products = torch.bmm(whole.transpose(1, 2), _blocks(signal, look_back, count))  # (P, BLOCK, width)
    return products.as_strided((channels, BLOCK, count), (BLOCK * width, width + 1, 1)).sum(1)


def _blocks(signal: Tensor, look_back: int, count: int) -> Tensor:
    """Overlapping blocks of all rows: (P, B, T) → (P, B · blocks, BLOCK + K − 1)."""
    width = BLOCK + count - 1
    padded = F.pad(signal, (look_back, -signal.shape[2] % BLOCK + count - 1 - look_back))
    return padded.unfold(2, width, BLOCK).reshape(len(signal), -1, width)
