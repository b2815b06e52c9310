"""WenetSpeech-Yue, WenetSpeech-Chuan and MagicData's dialects: folders as their owners distribute them → utterances."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from vermilion.errors import ManifestError
from vermilion.evaluation.corpora.reading import by_stem, columns, found, lines, needed, pairs
from vermilion.manifests import KALDI_WAVES, Utterance

AUDIO_KEYS = ("wav", "audio", "audio_filepath", "path", "wav_path", "file", "utt", "key", "id")
TEXT_KEYS = ("text", "txt", "transcription", "sentence", "label")
TURN = re.compile(r"\[([\d.]+),([\d.]+)\]\s+(\S+)\s+(\S+)\s*(.*)")
"""a turn of a conversation: [start,end] speaker gender,accent text"""
UNSURE = re.compile(r"\[[^\]]*\]|[*()（）]")
"""what the owners' rules take out: sounds in brackets, * for what nobody understood, ( ) around other speakers"""


def benchmark(folder: Path, subset: str, language: str) -> Iterator[Utterance]:
    """A part of WenetSpeech-Yue's or -Chuan's evaluation set.

    Args:
        folder: holds JSON lines, a Kaldi folder, or recordings each with its text beside it (`x.wav`, `x.txt`), for the
            part named in a file or folder ("Short", "WSC-Eval-Easy", …); case does not count.
        subset: "short", "long", "easy" or "hard".
        language: label of the lines.

    The parentheses around other speakers' words and the stars of the owners' notes are taken out, their words stay.
    """
    place = _part(folder, subset)
    if place.is_dir() and (place / KALDI_WAVES).exists():
        texts = pairs(found(place, "text"))
        rows = [(name, str(place / path), texts.get(name)) for name, path in pairs(place / KALDI_WAVES).items()]
    elif place.is_dir():
        rows = [_beside(path) for path in by_stem(place).values()]
    else:
        rows = list(_json_rows(place))
    for name, path, text in rows:
        if text is None:
            raise ManifestError(f"{place} has no text for {name}")
        yield Utterance(name, path, text=cleaned(text), language=language)


def cleaned(text: str) -> str:
    """A text without the owners' notes."""
    return " ".join(UNSURE.sub("", text).split())


def magicdata(folder: Path, language: str) -> Iterator[Utterance]:
    """A corpus of MagicData, in any of the three forms that they come in.

    Args:
        folder: `TRANS.txt` (or `test/TRANS.txt`: recording, speaker, text); `UTTRANSINFO.txt` or `UTTERANCEINFO.txt`
            (channel, recording, speaker, prompt, text) and `WAV/`; conversations, `TXT/*.txt` and `WAV/*.wav`.
        language: label of the lines.

    Raises:
        ManifestError: it is in none of these forms.
    """
    for name in ("test/TRANS.txt", "TRANS.txt"):
        if (folder / name).exists():
            yield from _listed(folder / name, language, (0, 1, 2))
            return
    for name in ("UTTRANSINFO.txt", "UTTERANCEINFO.txt"):
        if (folder / name).exists() and not (folder / "TXT").is_dir():
            yield from _listed(folder / name, language, (1, 2, 4))
            return
    yield from _conversations(folder, language)


def _listed(file: Path, language: str, places: tuple[int, int, int]) -> Iterator[Utterance]:
    """Rows of a table whose columns hold recording, speaker and text at some places."""
    audio, speaker, text = places
    recordings = by_stem(file.parent)
    for number, row in enumerate(columns(file, max(places) + 1)):
        if number == 0 and not Path(row[audio]).suffix:  # the heading
            continue
        name = Path(row[audio]).stem
        path = str(needed(recordings, name, file))
        yield Utterance(name, path, text=cleaned(row[text]), language=language, speaker=row[speaker])


def _conversations(folder: Path, language: str) -> Iterator[Utterance]:
    recordings = by_stem(found(folder, "WAV", "wav"))
    for file in sorted(found(folder, "TXT", "txt").glob("*.txt")):
        for number, line in enumerate(lines(file), 1):
            turn = TURN.match(line)
            if turn is None:
                raise ManifestError(f"{file}, line {number} is no turn: [start,end], speaker, gender and accent, text")
            start, end, speaker, _, text = turn.groups()
            if not cleaned(text):  # laughter, music, nobody
                continue
            first, length = float(start), round(float(end) - float(start), 4)
            path = str(needed(recordings, file.stem, file))
            yield Utterance(
                f"{file.stem}-{round(1000 * first):08}", path, first, length, cleaned(text), language, speaker
            )


def _part(folder: Path, subset: str) -> Path:
    """The file or folder of a part, the shortest name first; JSON lines before folders."""
    names = [p for p in sorted(folder.rglob("*")) if subset in p.name.lower() and not p.name.startswith(".")]
    files = [p for p in names if p.is_file() and p.suffix in (".jsonl", ".json", ".list")]
    folders = [p for p in names if p.is_dir()]
    for place in (*files, *folders):
        return place
    raise ManifestError(f"{folder} holds no JSON lines and no folder named after the part {subset!r}")


def _beside(path: Path) -> tuple[str, str, str | None]:
    text = path.with_suffix(".txt")
    return path.stem, str(path), " ".join(lines(text)) if text.exists() else None


def _json_rows(file: Path) -> Iterator[tuple[str, str, str | None]]:
    recordings = by_stem(file.parent)
    for number, line in enumerate(lines(file), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ManifestError(f"{file}, line {number} is no JSON: {error}") from error
        audio = next((str(row[k]) for k in AUDIO_KEYS if isinstance(row.get(k), str)), None)
        text = next((row[k] for k in TEXT_KEYS if isinstance(row.get(k), str)), None)
        if audio is None:
            raise ManifestError(f"{file}, line {number} names no recording ({', '.join(AUDIO_KEYS)})")
        own = file.parent / audio
        path = own if own.is_file() else needed(recordings, Path(audio).stem, file)
        yield Path(audio).stem, str(path), text
