"""The same function over many items in several processes, results in order, bounded memory."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import TypeVar

from vermilion.errors import OptionsError, TrainingError

Item = TypeVar("Item")
Result = TypeVar("Result")
Report = Callable[[int, str], None]
"""called with the number of items that are done and what was done last"""

_CHUNK = 16
_AHEAD = 4
"""chunks per process that wait"""


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], processes: int = 1, chunk: int = _CHUNK
) -> Iterator[Result]:
    """Yield `function(item)` for each item, in order.

    Args:
        function: can be pickled (of a module, or a `partial` of one) where there is more than one process.
        items: are taken as they are needed.
        processes: how many work; 1 = this one.
        chunk: items that travel together.

    Raises:
        OptionsError: there are no processes.
        TrainingError: a process died (out of memory, say).
    """
    if processes < 1:
        raise OptionsError(f"{processes} processes cannot do anything; at least 1 is needed")
    if processes == 1:
        yield from map(function, items)
        return
    source = iter(items)
    # spawn: forking a process that runs threads (OpenMP, progress bars) can hang
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        waiting: deque[Future[list[Result]]] = deque()
        try:
            while True:
                while len(waiting) < processes * _AHEAD and (part := list(islice(source, chunk))):
                    waiting.append(pool.submit(_all, function, part))
                if not waiting:
                    return
                yield from waiting.popleft().result()
        except RuntimeError as error:  # BrokenProcessPool
            raise TrainingError(f"a working process ended early ({error}): try fewer processes") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _all(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    return [function(item) for item in items]
