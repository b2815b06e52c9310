"""FLEURS and CommonVoice: folders as their owners distribute them → utterances in the languages that the model has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vermilion.errors import ManifestError
from vermilion.evaluation.corpora.reading import columns, found, table
from vermilion.evaluation.languages import common_voice_language, fleurs_language
from vermilion.manifests import Utterance

RATE = 16000


def fleurs(folder: Path) -> Iterator[Utterance]:
    """FLEURS's test sets: `data/CONFIGURATION/test.tsv` and `…/audio/test/*.wav`, in the 82 languages of the report.

    A configuration whose folder is not there is passed over, one that the model has no label for as well.
    """
    root = found(folder, "data", ".")
    tables = sorted(root.glob("*/test.tsv"))
    if not tables:
        raise ManifestError(f"{root} holds no CONFIGURATION/test.tsv")
    for file in tables:
        configuration = file.parent.name
        language = fleurs_language(configuration)
        if language is None:
            continue
        audio = found(file.parent, "audio/test", "test", "audio")
        for row in columns(file, 6):
            path, samples = audio / row[1], row[5]
            if not samples.isdigit():
                raise ManifestError(f"{file}: {row[1]} has {samples!r} where a number of samples is expected")
            yield Utterance(
                f"{configuration}-{Path(row[1]).stem}", str(path), 0.0, int(samples) / RATE, row[3], language, None,
                {"configuration": configuration, "written": row[2]},
            )  # fmt: skip


def common_voice(folder: Path) -> Iterator[Utterance]:
    """CommonVoice's test sets: `LOCALE/test.tsv` and `LOCALE/clips/*.mp3`, in the languages that the model has."""
    tables = sorted(folder.glob("*/test.tsv")) or sorted(folder.glob("*/*/test.tsv"))
    if not tables:
        raise ManifestError(f"{folder} holds no LOCALE/test.tsv")
    for file in tables:
        locale = file.parent.name
        language = common_voice_language(locale)
        if language is None:
            continue
        for row in table(file):
            if not row.get("path") or row.get("sentence") is None:
                raise ManifestError(f"{file} has no columns 'path' and 'sentence'")
            clip = Path(row["path"])
            path = file.parent / "clips" / (clip if clip.suffix else clip.with_suffix(".mp3"))
            extra = {"locale": locale}
            speaker = row.get("client_id") or None
            yield Utterance(f"{locale}-{clip.stem}", str(path), 0.0, None, row["sentence"], language, speaker, extra)
