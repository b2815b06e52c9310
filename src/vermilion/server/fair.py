"""Which segments come next: every task gets its share, however long it is (fair queueing by virtual time)."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@dataclass
class _Share(Generic[T]):
    items: deque[tuple[T, float]]
    weight: float
    served: float


class FairQueue(Generic[K, T]):
    """Items of several owners; an owner's items keep their order."""

    def __init__(self) -> None:
        """Begin empty."""
        self._shares: dict[K, _Share[T]] = {}
        self._clock = 0.0

    def __len__(self) -> int:
        return sum(len(s.items) for s in self._shares.values())

    def __contains__(self, owner: object) -> bool:
        return owner in self._shares

    def add(self, owner: K, items: Iterable[tuple[T, float]], weight: float = 1.0) -> None:
        """Queue an owner's (item, size) pairs; who comes later begins where the least served one stands."""
        queued = deque(items)
        if queued:
            self._shares[owner] = _Share(queued, weight, self._clock)

    def remove(self, owner: K) -> None:
        """Forget what an owner still has waiting."""
        self._shares.pop(owner, None)

    def take(self, budget: float, most: int = 64) -> list[tuple[K, T]]:
        """Take the next items: at least one if there is any, more while their sizes stay within the budget."""
        taken: list[tuple[K, T]] = []
        total = 0.0
        while self._shares and len(taken) < most:
            owner = min(self._shares, key=lambda k: self._shares[k].served)  # ties: who came first
            share = self._shares[owner]
            item, size = share.items[0]
            if taken and total + size > budget:
                break
            share.items.popleft()
            # the clock goes on with every item: else new owners, who begin at its time, would pass old ones for ever
            self._clock = max(self._clock, share.served) + size / sum(s.weight for s in self._shares.values())
            share.served += size / share.weight
            total += size
            taken.append((owner, item))
            if not share.items:
                del self._shares[owner]
        return taken
