"""Packs items of different lengths into batches under a budget, and gives results back in the order of the items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def pack(lengths: Sequence[float], budget: float, most: int = 64) -> list[list[int]]:
    """Group items of similar length so that little of a padded batch is padding.

    Args:
        lengths: size of each item (frames, samples or seconds).
        budget: limit of `longest item × number of items` per batch, in the same unit; an item above it goes alone.
        most: largest number of items per batch.

    Returns:
        Batches of item indices, the longest items first; every index occurs exactly once.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for index in order:
        batch = batches[-1] if batches else []
        if batch and len(batch) < most and lengths[batch[0]] * (len(batch) + 1) <= budget:
            batch.append(index)
        else:
            batches.append([index])
    return batches


def map_batches(
    items: Sequence[T], lengths: Sequence[float], budget: float, work: Callable[[list[T]], Sequence[R]]
) -> list[R]:
    """Run `work` on batches and return its results in the order of the items."""
    results: dict[int, R] = {}
    for batch in pack(lengths, budget):
        for index, result in zip(batch, work([items[i] for i in batch]), strict=True):
            results[index] = result
    return [results[i] for i in range(len(items))]


def windows(items: Iterator[tuple[T, float]], size: float) -> Iterator[list[T]]:
    """Cut a stream of (item, length) into lists whose total length reaches `size` (the last may be shorter)."""
    window: list[T] = []
    total = 0.0
    for item, length in items:
        window.append(item)
        total += length
        if total >= size:
            yield window
            window, total = [], 0.0
    if window:
        yield window
