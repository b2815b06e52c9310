"""Options with a closed set of values: one check, with the nearest spelling in its message."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from vermilion.errors import OptionsError

DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "npu", "mlu", "xla")
"""kinds of devices that torch runs on, with or without a number behind them"""
_DEVICE = re.compile(r"([a-z]+)(?::(\d+))?")


def check_choice(name: str, value: object, allowed: Iterable[str]) -> None:
    """Refuse a value that is none of those allowed.

    Raises:
        OptionsError: it is not; the message lists them and names the nearest.
    """
    values = list(allowed)
    if value not in values:
        raise OptionsError(f"{name} must be one of {', '.join(values)}, not {value!r}{suggestion(value, values)}")


def check_device(name: str) -> None:
    """Refuse what is no torch device's name ("cpu", "cuda:1"); whether it is there is seen when it is used.

    Raises:
        OptionsError: it is none.
    """
    found = _DEVICE.fullmatch(name)
    if found is None or found[1] not in DEVICES:
        kinds = ", ".join(DEVICES)
        near = suggestion(name.partition(":")[0], DEVICES)
        raise OptionsError(f"device must be one of {kinds}, such as cpu or cuda:1, not {name!r}{near}")


def suggestion(value: object, allowed: Iterable[str]) -> str:
    """`; did you mean 'json'?`, or nothing where no allowed value is near."""
    if not isinstance(value, str):
        return ""
    by_spelling = {name.casefold(): name for name in allowed}
    near = difflib.get_close_matches(value.casefold(), by_spelling, n=1)
    return f"; did you mean {by_spelling[near[0]]!r}?" if near else ""
