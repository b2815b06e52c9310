"""Low-rank additions to the matrices of a network that is trained already (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from vermilion.errors import TrainingError
from vermilion.nn.lora import LoraLinear, merged_weight
from vermilion.nn.packed import ExactLinear, Pointwise


def add_lora(network: nn.Module, rank: int, alpha: float, within: str = "layer_stack") -> int:
    """Freeze a network and give the matrices of its layers additions that are trained; at first they add nothing.

    Args:
        network: changed in place; a part named "ctc" stays trainable as it is.
        rank: of the additions.
        alpha: they are scaled by alpha / rank.
        within: only matrices below a module of this name.

    Returns:
        How many matrices were found.

    Raises:
        TrainingError: none was found.
    """
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith("ctc."))
    places = [
        (parent, name, child)
        for path, parent in network.named_modules()
        if within in path.split(".")
        for name, child in parent.named_children()
        if type(child) in (nn.Linear, Pointwise) and not isinstance(child, ExactLinear)
    ]
    if not places:
        raise TrainingError(f"{type(network).__name__} has no matrices that LoRA could change")
    for parent, name, child in places:
        weight = cast(Tensor, child.weight)
        a = torch.empty(rank, weight.shape[1], dtype=torch.float32)
        nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        layer = LoraLinear(child, a, torch.zeros(weight.shape[0], rank), alpha / rank)
        layer.a.requires_grad_(True)
        layer.b.requires_grad_(True)
        setattr(parent, name, layer)
    return len(places)


def merge_lora(network: nn.Module) -> None:
    """Put the additions into the matrices: the network has its published keys again."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoraLinear):
                weight = cast(Tensor, child.base.weight)
                merged = merged_weight(weight.flatten(1), child.a, child.b, child.scale)
                weight.data.copy_(merged.view_as(weight))
                setattr(parent, name, child.base)
