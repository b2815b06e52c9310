"""Train, dev and test sets that share no speaker, no text and no recording."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vermilion.errors import OptionsError, TrainingError
from vermilion.manifests import BYTES, Utterance

KEYS = ("speaker", "text", "recording")
"""what can be kept apart"""
REST = "train"
_OVERSHOOT = 1.1
"""a group goes into a set only if the set stays below its size times this"""


@dataclass(frozen=True)
class SplitOptions:
    """How large the held-out sets are, and what they may not share. All else is `train`."""

    dev: float = 0.05
    """Size of the development set: a share of the whole below 1, else hours."""
    test: float = 0.05
    """Size of the test set, likewise."""
    apart: tuple[str, ...] = KEYS
    """What no two sets share: speaker, text (as it is spoken: case, marks and blanks do not count), recording."""
    seed: int = 0
    """Another seed gives other sets."""

    def __post_init__(self) -> None:
        """Check the domain.

        Raises:
            OptionsError: a value is out of its domain.
        """
        for name in ("dev", "test"):
            if getattr(self, name) < 0:
                raise OptionsError(f"{name} is {getattr(self, name)}; give a share below 1, or hours")
        if self.dev + self.test >= 1 and max(self.dev, self.test) < 1:
            raise OptionsError(f"shares of {self.dev} and {self.test} leave nothing to train on")
        if unknown := set(self.apart) - set(KEYS):
            raise OptionsError(f"cannot keep {', '.join(sorted(unknown))} apart; there are {', '.join(KEYS)}")


@dataclass(frozen=True)
class Split:
    """The sets."""

    sets: Mapping[str, list[Utterance]]
    """train, dev, test; in the order of the manifest"""
    groups: int
    """utterances that share something belong to one group, which is never divided"""
    largest: int
    """utterances of the largest group"""
    kept: int
    """groups whose turn it was to be held out, but which would have made a set too large: they went to train"""
    measured: bool
    """sizes count seconds; False: durations are missing, so utterances were counted"""

    def size(self, name: str) -> float:
        """Seconds of a set, or its number of utterances."""
        return sum(_size(u, self.measured) for u in self.sets[name])


def split(utterances: Sequence[Utterance], options: SplitOptions = SplitOptions()) -> Split:
    """Divide utterances; the result depends on them and the options only, not on their order.

    Args:
        utterances: of a manifest.
        options: see there.

    Raises:
        OptionsError: hours are asked for, and durations are missing.
        TrainingError: a set would be empty: too much hangs together.
    """
    measured = all(u.duration is not None for u in utterances)
    targets = _targets(utterances, options, measured)
    groups = sorted(_groups(utterances, options.apart), key=lambda g: _rank(utterances, g, options.seed))
    place = [REST] * len(utterances)
    filled = dict.fromkeys(targets, 0.0)
    kept = 0
    for group in groups:
        open_sets = [name for name, target in targets.items() if filled[name] < target]
        size = sum(_size(utterances[i], measured) for i in group)
        chosen = next((n for n in open_sets if filled[n] + size <= _OVERSHOOT * targets[n]), None)
        if chosen is None:
            kept += bool(open_sets)
            continue
        filled[chosen] += size
        for i in group:
            place[i] = chosen
    sets = {n: [u for u, p in zip(utterances, place, strict=True) if p == n] for n in (REST, *targets)}
    found = Split(sets, len(groups), max(map(len, groups), default=0), kept, measured)
    _check(found, options)
    return found


def _targets(utterances: Sequence[Utterance], options: SplitOptions, measured: bool) -> dict[str, float]:
    """Sizes of the sets to fill; test comes first, so that it changes least."""
    total = sum(_size(u, measured) for u in utterances)
    wanted = {"test": options.test, "dev": options.dev}
    if not measured and max(wanted.values()) >= 1:
        raise OptionsError("hours need durations: vermilion data convert --measure writes them into the manifest")
    sizes = {name: 3600 * value if value >= 1 else value * total for name, value in wanted.items() if value}
    if sum(sizes.values()) >= total:
        raise OptionsError(f"{total / 3600:.2f} hours are too few for sets of {options.dev:g} and {options.test:g}")
    return sizes


def _size(utterance: Utterance, measured: bool) -> float:
    return (utterance.duration or 0.0) if measured else 1.0


def _check(found: Split, options: SplitOptions) -> None:
    empty = [name for name, content in found.sets.items() if not content]
    if empty:
        raise TrainingError(
            f"{' and '.join(empty)} would be empty: of {found.groups} groups that share no "
            f"{', '.join(options.apart) or 'line'}, the largest has {found.largest} utterances; keep less apart "
            f"(--apart speaker) or take larger shares"
        )


def spoken(text: str) -> str:
    """A text without what is not heard: compatibility forms, case, marks, blanks."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in plain if unicodedata.category(c)[0] in "LNM")


def _keys(utterance: Utterance, apart: Sequence[str]) -> Iterator[tuple[str, str]]:
    if "speaker" in apart and utterance.speaker:
        yield "speaker", utterance.speaker
    if "text" in apart and utterance.text and (said := spoken(utterance.text)):
        yield "text", said
    if "recording" in apart and BYTES not in utterance.extra:  # a shard is no recording
        yield "recording", utterance.audio


def _groups(utterances: Sequence[Utterance], apart: Sequence[str]) -> list[list[int]]:
    """Connected components of utterances that share a key."""
    parents = list(range(len(utterances)))

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, utterance in enumerate(utterances):
        for key in _keys(utterance, apart):
            a, b = root(first.setdefault(key, i)), root(i)
            parents[max(a, b)] = min(a, b)
    groups: dict[int, list[int]] = {}
    for i in range(len(utterances)):
        groups.setdefault(root(i), []).append(i)
    return list(groups.values())


def _rank(utterances: Sequence[Utterance], group: Sequence[int], seed: int) -> tuple[str, str]:
    """The place of a group in line: by chance, but the same wherever its lines stand."""
    name = min(utterances[i].id for i in group)
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest(), name
