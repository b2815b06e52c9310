"""Test sets of others: a name and the folder that its owners distribute → a native manifest.

The names are those of the report's tables (`vermilion.evaluation.published`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from vermilion.errors import ManifestError, OptionsError
from vermilion.evaluation.corpora.dialects import benchmark, magicdata
from vermilion.evaluation.corpora.mandarin import aishell1, aishell2, kespeech, opencpop, wenetspeech
from vermilion.evaluation.corpora.multilingual import common_voice, fleurs
from vermilion.manifests import Utterance, write_manifest

Preparer = Callable[[Path], Iterator[Utterance]]
YUE, XINAN, WU, XIANG = "zh yue", "zh xinan", "zh wu", "zh xiang"
MAGICDATA = {
    "md-heavy": "zh", "md-yue-conv": YUE, "md-yue-daily": YUE, "md-yue-vehicle": YUE, "md-chuan-conv": XINAN,
    "md-chuan-daily": XINAN, "md-shanghai-conv": WU, "md-shanghai-daily": WU, "md-wu": WU, "md-zhengzhou-conv": "zh",
    "md-zhengzhou-daily": "zh", "md-wuhan": XINAN, "md-tianjin": "zh", "md-changsha": XIANG,
}  # fmt: skip
"""MagicData's sets and the dialect group of the report's appendix; it lists none for Zhengzhou, Tianjin and accents"""
PREPARERS: Mapping[str, Preparer] = MappingProxyType(
    {
        "aishell1": aishell1,
        "aishell2": aishell2,
        "ws-net": partial(wenetspeech, subset="TEST_NET"),
        "ws-meeting": partial(wenetspeech, subset="TEST_MEETING"),
        "kespeech": kespeech,
        "ws-yue-short": partial(benchmark, subset="short", language=YUE),
        "ws-yue-long": partial(benchmark, subset="long", language=YUE),
        "ws-chuan-easy": partial(benchmark, subset="easy", language=XINAN),
        "ws-chuan-hard": partial(benchmark, subset="hard", language=XINAN),
        **{name: partial(magicdata, language=language) for name, language in MAGICDATA.items()},
        "opencpop": opencpop,
        "fleurs": fleurs,
        "commonvoice": common_voice,
    }
)
"""name of the set → what reads its folder"""


def prepare(name: str, folder: str | Path, output: str | Path, progress: Callable[[int], None] = lambda _: None) -> int:
    """Write the manifest of a test set.

    Args:
        name: out of `PREPARERS`.
        folder: as the set's owners distribute it, archives unpacked.
        output: manifest to write, or a folder, where it becomes NAME.jsonl.
        progress: told how many lines there are so far.

    Returns:
        How many utterances it lists.

    Raises:
        OptionsError: no set is known by that name.
        ManifestError: the folder is not laid out as expected, or recordings are missing.
    """
    if name not in PREPARERS:
        raise OptionsError(f"{name!r} is none of the sets that can be prepared: {', '.join(PREPARERS)}")
    root = Path(folder)
    if not root.is_dir():
        raise ManifestError(f"there is no folder {root}")
    target = target_of(name, output)
    partial_file = target.with_name(target.name + ".partial")
    count = write_manifest(partial_file, _checked(PREPARERS[name](root), root, progress))
    if not count:
        partial_file.unlink()
        raise ManifestError(f"{root} holds no utterance of {name}")
    partial_file.replace(target)
    return count


def target_of(name: str, output: str | Path) -> Path:
    """The manifest that `prepare` writes."""
    place = Path(output)
    return place if place.suffix == ".jsonl" else place / f"{name}.jsonl"


def _checked(utterances: Iterator[Utterance], root: Path, progress: Callable[[int], None]) -> Iterator[Utterance]:
    for count, utterance in enumerate(utterances, 1):
        if not Path(utterance.audio).is_file():
            raise ManifestError(f"{utterance.audio} is missing ({utterance.id}); is everything in {root} unpacked?")
        if count % 1000 == 0:
            progress(count)
        yield utterance


__all__ = ["PREPARERS", "prepare", "target_of"]
