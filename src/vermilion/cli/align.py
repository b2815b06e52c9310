"""`vermilion align`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from vermilion import formats, loading
from vermilion.cli import STDIN
from vermilion.cli.console import Terminal
from vermilion.cli.each import for_each, identity, named, recordings
from vermilion.cli.inputs import Item
from vermilion.cli.options import OUTPUT, Hardware, Inputs, Json, ModelsOption, Quiet
from vermilion.cli.outputs import make_folder, parse_formats, plan, shown
from vermilion.cli.reading import words_table
from vermilion.errors import AudioError, CheckpointError, OptionsError
from vermilion.transcript import Sentence, Transcript, Word, word_to_dict

EXAMPLES = """Examples:
  vermilion align talk.wav --text "hello world"
  vermilion align talk.wav --text-file talk.txt --json
  vermilion align one.wav two.wav -o out     with one.txt, two.txt beside them
  vermilion align one.wav --text "hello world" --format ctm

Formats: json, jsonl, txt, srt, vtt, ass, tsv, ctm, rttm, TextGrid."""


def align(
    inputs: Inputs,
    /,
    *,
    text: Annotated[list[str] | None, Parameter(help="What is said; once per recording.")] = None,
    text_file: Annotated[
        list[str] | None,
        Parameter(help="File with what is said; once per recording. Without texts: the .txt beside each recording."),
    ] = None,
    models: ModelsOption = "auto",
    hardware: Hardware = Hardware(),  # noqa: B008 - frozen
    word_edges: Annotated[
        Literal["sound", "model"],
        Parameter(help="sound = times that lie in a pause move to the sound beside it; model = as found."),
    ] = "sound",
    output_dir: Annotated[
        Path | None, Parameter(name=["--output-dir", "-o"], group=OUTPUT, help="Folder for the outputs.")
    ] = None,
    format: Annotated[
        list[str] | None,
        Parameter(name=["--format", "-f"], group=OUTPUT, help="Format of the outputs. [default: TextGrid and json]"),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Give the words of a known text their times in a recording."""
    from vermilion.audio import load_audio
    from vermilion.word_edges import fitted

    terminal = Terminal(quiet)
    wanted = parse_formats(format)
    items, code = recordings(inputs, terminal)
    texts = _texts(items, text, text_file)
    if output_dir is not None:
        make_folder(output_dir)
    elif len(wanted) > 1 or (wanted and len(items) > 1):
        raise OptionsError("several recordings or formats cannot share stdout; give --output-dir")
    targets = plan(items, output_dir or Path(), wanted or ["TextGrid", "json"], None)
    with terminal.working("loading models"):
        aligner: Any = loading.load_recognizer(models, options=hardware.apply())
    if not hasattr(aligner, "align"):
        raise CheckpointError(f"{named(aligner)} cannot align; FireRedASR2-AED can (vermilion pull fireredasr2-aed)")
    terminal.answered({"asr": named(aligner)}, str(hardware))

    def work(item: Item) -> Transcript:
        said = texts[items.index(item)]
        said = _read(said) if isinstance(said, Path) else said
        samples = load_audio(item.source)
        words = aligner.align((samples, 16000), said)
        words = fitted(words, samples) if word_edges == "sound" else words
        result = aligned(item, said, words, len(samples) / 16000, named(aligner))
        for path in targets[items.index(item)].paths if output_dir is not None else ():
            formats.save(result, path)
        return result

    def show(item: Item, result: Transcript) -> None:
        if output_dir is not None:
            terminal.say(f"{item.name}  → {shown(targets[items.index(item)].paths)}")
        if json:
            terminal.json({**identity(item), "text": result.text, "words": [word_to_dict(w) for w in result.words]})
        elif wanted and output_dir is None:
            terminal.write(formats.render(result, wanted[0]))
        elif output_dir is None:
            terminal.show(item.name)
            terminal.show(words_table(result.words))

    return max(code, for_each(items, work, show, terminal, json))


def aligned(item: Item, text: str, words: list[Word], duration: float, model: str) -> Transcript:
    """A transcript of one sentence."""
    sentences = [Sentence(text, words[0].start, words[-1].end, words)] if words else []
    return Transcript(
        item.name, duration, text, sentences, words=words, models={"asr": model}, utterance_id=item.inner.name
    )


def _texts(items: list[Item], text: Sequence[str] | None, files: Sequence[str] | None) -> list[str | Path]:
    """One text, or file with it, per recording."""
    if text and files:
        raise OptionsError("give --text or --text-file, not both")
    given: list[str | Path] = [*(text or ()), *(Path(f) for f in files or ())]
    if not given:
        return [item.path.with_suffix(".txt") if item.path else Path("stdin.txt") for item in items]
    if len(given) != len(items):
        raise OptionsError(f"{len(items)} recordings but {len(given)} texts; give one per recording")
    return given


def _read(path: Path) -> str:
    if str(path) == STDIN:
        return " ".join(sys.stdin.read().split())
    try:
        return " ".join(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise AudioError(f"its text {path} cannot be read ({error}); give --text or --text-file") from error
