"""Averages of weights: along the training (EMA) and over its last checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from vermilion.errors import TrainingError
from vermilion.training.checkpoints import read_training_checkpoint


class ExponentialAverage:
    """A moving average of all weights that are trained, in float32."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Start from the weights as they are.

        Args:
            network: its parameters with gradients are followed.
            decay: weight of the past; at first less, so that the beginning is soon forgotten.
        """
        self.decay = decay
        self._names = [n for n, p in network.named_parameters() if p.requires_grad]
        self._weights = [p for p in network.parameters() if p.requires_grad]
        self._averages = [p.detach().float().clone() for p in self._weights]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the weights after the step with this number (the first is 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        now = [p.detach().float() for p in self._weights]
        torch._foreach_lerp_(self._averages, now, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the network for a while."""
        kept = [p.detach().clone() for p in self._weights]
        self.copy_to_network()
        try:
            yield
        finally:
            self._fill(kept)

    def copy_to_network(self) -> None:
        """Put the average into the network for good."""
        self._fill(self._averages)

    @torch.no_grad()
    def _fill(self, values: Sequence[Tensor]) -> None:
        for weight, value in zip(self._weights, values, strict=True):
            weight.copy_(value)

    def state_dict(self) -> dict[str, Tensor]:
        """The average by name of the weight."""
        return dict(zip(self._names, self._averages, strict=True))

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a saved average.

        Raises:
            TrainingError: it is that of another network.
        """
        if sorted(state) != sorted(self._names):
            raise TrainingError("the checkpoint's moving average is that of another network: use another output_dir")
        for name, average in zip(self._names, self._averages, strict=True):
            average.copy_(state[name])


def mean_of_checkpoints(files: Sequence[Path]) -> dict[str, Tensor]:
    """Average the trained weights of training checkpoints.

    Args:
        files: at least one, all of one training.

    Returns:
        Means by name, summed in float64; integer tensors (counters) are those of the last file.

    Raises:
        TrainingError: there is no file, or they do not fit each other.
    """
    if not files:
        raise TrainingError("there is no checkpoint to average")
    sums: dict[str, Tensor] = {}
    last: dict[str, Tensor] = {}
    for file in files:
        last = read_training_checkpoint(file).weights
        if sums and sums.keys() != last.keys():
            raise TrainingError(f"{file} is a checkpoint of another network than {files[0]}")
        for name, tensor in last.items():
            if tensor.is_floating_point():
                sums[name] = sums.get(name, 0.0) + tensor.double()
    return {name: (sums[name] / len(files)).to(t.dtype) if name in sums else t for name, t in last.items()}
