"""Packs items of different lengths into batches under a budget, and gives results back in the order of the items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, Full, Queue
from threading import Event, Thread
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


@contextmanager
def ahead(items: Iterator[T], depth: int = 1) -> Iterator[Iterator[T]]:
    """Let a thread produce the next items while the caller works on one.

    Args:
        items: consumed in a thread of its own until the block ends.
        depth: items that may wait.

    Yields:
        The same items in the same order; what their production raises is raised in their place.
    """
    ready: Queue[tuple[bool, T | BaseException | None]] = Queue(maxsize=depth)
    stop = Event()
    thread = Thread(target=_produce, args=(items, ready, stop), daemon=True, name="ahead")
    thread.start()
    try:
        yield _consume(ready)
    finally:
        stop.set()
        thread.join(timeout=5.0)  # an interrupt does not wait for the end of a long recording


def _produce(items: Iterator[T], ready: Queue[tuple[bool, T | BaseException | None]], stop: Event) -> None:
    try:
        for item in items:
            if not _put(ready, (True, item), stop):
                return
        _put(ready, (False, None), stop)
    except BaseException as error:  # noqa: BLE001 - raised again where the items are consumed
        _put(ready, (False, error), stop)


def _put(ready: Queue[T], item: T, stop: Event) -> bool:
    """Wait for room, but not for a consumer that has gone."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=0.05)
        except Full:
            continue
        return True
    return False


def _consume(ready: Queue[tuple[bool, T | BaseException | None]]) -> Iterator[T]:
    while True:
        try:
            more, item = ready.get(timeout=0.5)  # a wait without end could not be interrupted everywhere
        except Empty:
            continue
        if more:
            yield item  # type: ignore[misc]
        elif item is None:
            return
        else:
            raise item  # type: ignore[misc]
