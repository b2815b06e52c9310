"""Log-Mel features as a network layer, for devices that are far faster than the way to them (SPEC section 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FRAME_LENGTH, FRAME_SHIFT, FFT_SIZE = 400, 160, 512
PREEMPHASIS, FLOOR, INT16_SCALE = 0.97, 1.1920929e-7, 32768.0


class LogMel(nn.Module):
    """Samples → normalised log-Mel features, float32; the values are those of `FeatureExtractor`."""

    window: Tensor
    mel: Tensor
    mean: Tensor
    inverse_std: Tensor

    def __init__(self, window: Tensor, mel: Tensor, mean: Tensor, inverse_std: Tensor) -> None:
        """Take the tables: window (400,), mel weights (257, 80), statistics (80,) each."""
        super().__init__()
        for name, table in (("window", window), ("mel", mel), ("mean", mean), ("inverse_std", inverse_std)):
            self.register_buffer(name, table.float())

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the features of a padded batch.

        Args:
            samples: (N, n) float32 in [-1, 1], at least one frame long.
            lengths: (N,) valid samples, each at least one frame.

        Returns:
            (N, T, 80), zero past an item's last frame, and (N,) valid frames.
        """
        frames = samples.float().unfold(-1, FRAME_LENGTH, FRAME_SHIFT) * INT16_SCALE  # (N, T, 400)
        frames = frames - frames.mean(-1, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        spectrum = torch.fft.rfft((frames - PREEMPHASIS * before) * self.window, n=FFT_SIZE)
        energies = spectrum.abs().square() @ self.mel
        features = (energies.clamp_min(FLOOR).log() - self.mean) * self.inverse_std
        valid = 1 + (lengths - FRAME_LENGTH) // FRAME_SHIFT
        padding = torch.arange(features.shape[1], device=features.device)[None] >= valid[:, None]
        return features.masked_fill(padding[..., None], 0.0), valid
