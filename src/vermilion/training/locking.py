"""One training per folder: two at once would delete each other's checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

from filelock import FileLock, Timeout

from vermilion.errors import TrainingError
from vermilion.training.options import TrainingOptions

LOCK = "training.lock"

P = ParamSpec("P")
R = TypeVar("R")


def exclusive(recipe: Callable[P, R]) -> Callable[P, R]:
    """Let a recipe run only while no other process trains in its output folder.

    Raises:
        TrainingError: (the recipe) another process does, or the folder cannot be used.
    """

    @wraps(recipe)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        training = cast(TrainingOptions, kwargs.get("training", TrainingOptions()))
        with locked(training.output_dir):
            return recipe(*args, **kwargs)

    return run


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder; of several processes of one training the first does it for all.

    Raises:
        TrainingError: another process holds it, or it cannot be used.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TrainingError(
            f"another process trains in {folder}: wait for it, stop it, or give another output_dir"
        ) from error
    except OSError as error:
        raise TrainingError(f"cannot use the folder {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
