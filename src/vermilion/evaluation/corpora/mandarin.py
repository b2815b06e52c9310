"""AISHELL-1 and -2, WenetSpeech, KeSpeech, opencpop: folders as their owners distribute them → utterances."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vermilion.errors import ManifestError
from vermilion.evaluation.corpora.reading import by_stem, found, json_objects, lines, needed, pairs
from vermilion.evaluation.languages import dialect_label
from vermilion.manifests import Utterance

NOISE = "<SPOKEN_NOISE>"


def aishell1(folder: Path) -> Iterator[Utterance]:
    """AISHELL-1's test set: `data_aishell/wav/test/*/*.wav`, `data_aishell/transcript/aishell_transcript_v0.8.txt`.

    The texts are divided into words there; the blanks are taken out.
    """
    root = found(folder, "data_aishell", ".")
    texts = pairs(found(root, "transcript/aishell_transcript_v0.8.txt"))
    recordings = by_stem(found(root, "wav/test"))
    if not recordings:
        raise ManifestError(f"{root}/wav/test holds no recordings; unpack the archives in {root}/wav first")
    for name, path in recordings.items():
        if name in texts:  # the owners left a few recordings without a text
            yield Utterance(name, str(path), text="".join(texts[name].split()), language="zh", speaker=path.parent.name)


def aishell2(folder: Path) -> Iterator[Utterance]:
    """AISHELL-2's iOS test set: `iOS/test/wav.scp`, `iOS/test/trans.txt`, `iOS/test/wav/*/*.wav`."""
    root = found(folder, "iOS/test", "AISHELL-DEV-TEST-SET/iOS/test", "AISHELL-2/iOS/test", "test", ".")
    texts = pairs(found(root, "trans.txt"))
    for name, path in pairs(found(root, "wav.scp")).items():
        if name not in texts:
            raise ManifestError(f"{root}/trans.txt has no text for {name}")
        speaker = Path(path).parent.name
        yield Utterance(name, str(root / path), text="".join(texts[name].split()), language="zh", speaker=speaker)


def wenetspeech(folder: Path, subset: str) -> Iterator[Utterance]:
    """A test set of WenetSpeech: `WenetSpeech.json` and `audio/test_…/…`.

    Args:
        folder: holds both.
        subset: "TEST_NET" or "TEST_MEETING"; the segments that name it are taken.
    """
    for audio in json_objects(found(folder, "WenetSpeech.json"), "audios"):
        for segment in audio.get("segments", ()):
            if subset in segment.get("subsets", ()):
                start, end = float(segment["begin_time"]), float(segment["end_time"])
                path = str(folder / audio["path"])
                yield Utterance(segment["sid"], path, start, round(end - start, 4), segment["text"], "zh")


def kespeech(folder: Path) -> Iterator[Utterance]:
    """KeSpeech's test set: `Tasks/ASR/test/{wav.scp,text,utt2subdialect,utt2spk}`, paths from the folder itself."""
    tasks = found(folder, "Tasks/ASR/test", "KeSpeech/Tasks/ASR/test")
    root = tasks.parents[2]
    texts = pairs(found(tasks, "text"))
    dialects = pairs(found(tasks, "utt2subdialect"))
    speakers = pairs(tasks / "utt2spk") if (tasks / "utt2spk").exists() else {}
    for name, path in pairs(found(tasks, "wav.scp")).items():
        if name not in texts or name not in dialects:
            raise ManifestError(f"{tasks} has no text or no subdialect for {name}")
        text = texts[name].replace(NOISE, "").strip()
        extra = {"subdialect": dialects[name]}
        language = dialect_label(dialects[name]) or "zh"
        yield Utterance(name, str(root / path), 0.0, None, text, language, speakers.get(name), extra)


def opencpop(folder: Path) -> Iterator[Utterance]:
    """opencpop's test set: `segments/test.txt` ("id|lyrics|…"; or the ids in it, lyrics in `transcriptions.txt`)."""
    segments = found(folder, "segments", "opencpop/segments", ".")
    listed = found(segments, "test.txt")
    rows = [line.split("|") for line in lines(listed)]
    lyrics = {}
    if any(len(row) < 2 for row in rows):
        lyrics = {row[0]: row[1] for row in (line.split("|") for line in lines(found(segments, "transcriptions.txt")))}
    recordings = by_stem(found(segments, "wavs"))
    for name, *rest in rows:
        if not rest and name not in lyrics:
            raise ManifestError(f"{segments}/transcriptions.txt has no lyrics for {name}")
        yield Utterance(
            name, str(needed(recordings, name, listed)), text=rest[0] if rest else lyrics[name], language="zh"
        )
