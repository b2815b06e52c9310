"""Threads for one kind of blocking work, so that none starves another: decoders wait minutes, the job store moments."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

R = TypeVar("R")


class Threads:
    """A thread pool of its own, asked from the event loop."""

    def __init__(self, size: int, name: str) -> None:
        """Make it; threads are started as they are needed."""
        self._pool = ThreadPoolExecutor(size, name)

    async def run(self, work: Callable[..., R], *values: Any, **named: Any) -> R:
        """Call `work` in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *values, **named))
