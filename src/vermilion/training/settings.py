"""What must not change between the parts of a training, and what is said where it did."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, cast

from vermilion.errors import TrainingError
from vermilion.training.options import MAY_CHANGE, TUNABLE

OF_DATA = frozenset({"utterances", "recordings", "words"})
"""settings of older checkpoints that are facts about the data, which may change"""


def check_settings(saved: Mapping[str, Any], now: Mapping[str, Any], source: Path, retune: bool) -> str:
    """Compare the settings of a checkpoint with today's.

    Args:
        saved: of the checkpoint.
        now: of today.
        source: the checkpoint.
        retune: `TUNABLE` options may have changed.

    Returns:
        What has changed, for people; '' = nothing.

    Raises:
        TrainingError: something that must not.
    """
    changed = list(differences(saved, now))
    fixed = [row for row in changed if not (retune and row[0] in TUNABLE)]
    if not fixed:
        return _said(changed)
    hint = "; --retune allows that" if all(name in TUNABLE for name, _, _ in fixed) else ""
    raise TrainingError(
        f"{source} belongs to another training ({_said(fixed)}): use its options or another output_dir{hint}"
    )


def _said(changed: list[tuple[str, Any, Any]]) -> str:
    return ", ".join(f"{name} was {before!r} and is {now!r}" for name, before, now in changed)


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield settings that have changed, nested ones by their own names; one that is new has its old default."""
    for name in sorted(saved.keys() & now.keys()):
        before, after = saved[name], now[name]
        if isinstance(before, dict) and isinstance(after, dict):
            yield from differences(before, after)
        elif before != after and name not in MAY_CHANGE | OF_DATA:
            yield name, before, after


def data_change(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What has changed in the data since a checkpoint, for people; '' = nothing, or it is not known."""
    if not saved or not now or dict(saved) == dict(now):
        return ""
    parts = [
        f"{now[name]:,} {name}" + (f" instead of {saved[name]:,}" if saved.get(name) != now[name] else "")
        for name in now
        if isinstance(now[name], int | float)
    ]
    return (
        f"the data are not those of the checkpoint ({', '.join(parts)}): the training goes on with today's, from the "
        "same place on; the batches are others than they would have been"
    )


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they look after having been written and read: options become dictionaries, tuples lists.

    Raises:
        TrainingError: they hold something else than values.
    """
    unfolded = {k: asdict(v) if is_dataclass(v) and not isinstance(v, type) else v for k, v in settings.items()}
    with suppress(TypeError):
        return cast(dict[str, Any], json.loads(json.dumps(unfolded, default=str)))
    raise TrainingError("settings of a training must be plain values")
