"""`vermilion transcribe`."""

from __future__ import annotations

from collections.abc import Sequence

from vermilion import loading
from vermilion.cli import corpus as corpora
from vermilion.cli import outputs
from vermilion.cli.console import Terminal
from vermilion.cli.each import recordings
from vermilion.cli.inputs import Item
from vermilion.cli.options import (
    Corpus,
    Hardware,
    Inputs,
    Json,
    Llm,
    ModelsOption,
    Output,
    Quiet,
    Search,
    Sounds,
    Stages,
    SubtitleGroup,
    Voice,
)
from vermilion.cli.run import Run
from vermilion.cli.streams import has_output
from vermilion.errors import OptionsError
from vermilion.formats import SubtitleOptions

EXAMPLES = """Examples:
  vermilion transcribe talk.mp4                         read it on the screen
  vermilion transcribe talk.mp4 talks/ "more/*.m4a" --output-dir out
  vermilion transcribe talk.mp4 -o out --format vtt --format json
  vermilion transcribe talk.mp4 -o out --visualize      with a timeline picture
  vermilion transcribe talk.mp4 --format srt > talk.srt
  vermilion transcribe call.wav --channels separate     each channel on its own
  vermilion transcribe talk.mp4 --models pretrained_models
  vermilion transcribe --manifest big.jsonl -o out      a corpus, resumable
  ffmpeg -i talk.mkv -f wav - | vermilion transcribe - --json | jq .text

Formats: json, jsonl, txt, srt, vtt, ass, tsv, ctm, rttm, TextGrid.
Recordings whose outputs are there and newer than the recording are skipped.
Each transcript is written as soon as it is complete. Frames count 10 ms."""


def transcribe(
    inputs: Inputs | None = None,
    /,
    *,
    models: ModelsOption = "auto",
    hardware: Hardware = Hardware(),  # noqa: B008 - frozen
    corpus: Corpus = Corpus(),  # noqa: B008 - frozen
    output: Output = Output(),  # noqa: B008 - frozen
    json: Json = False,
    quiet: Quiet = False,
    stages: Stages = Stages(),  # noqa: B008 - frozen
    sounds: Sounds = Sounds(),  # noqa: B008 - frozen
    search: Search = Search(),  # noqa: B008 - frozen
    llm: Llm = Llm(),  # noqa: B008 - frozen
    voice: Voice = Voice(),  # noqa: B008 - frozen
    subtitles: SubtitleGroup = SubtitleOptions(),  # noqa: B008 - frozen
) -> int:
    """Transcribe recordings: speech, language, words with times, punctuation."""
    terminal = Terminal(quiet)
    options, vad = sounds.apply(stages.pipeline_options(search, hardware, llm)), voice.plain()
    if corpus.manifest is not None:
        return _corpus(
            terminal, corpus, corpora.Build(models, options, vad, stages.punc_max_length), output, inputs or [], json
        )
    wanted = outputs.parse_formats(output.format)
    items, code = recordings(inputs or [], terminal)
    _check(output, wanted, items, json)
    run = Run(terminal, output, wanted, json, subtitles)
    todo = run.start(items)
    if todo:
        with terminal.working("loading models"):
            pipeline = loading.load(models, options=options, vad=vad, punctuation_max_length=stages.punc_max_length)
        terminal.answered(pipeline.models(), str(hardware))
        code = max(code, run.all(pipeline, todo))
    return code


def _corpus(
    terminal: Terminal, corpus: Corpus, build: corpora.Build, output: Output, inputs: Sequence[str], json: bool
) -> int:
    """The recordings of a manifest."""
    if inputs:
        raise OptionsError("give recordings or --manifest, not both")
    forms = [name for text in output.format or ["jsonl"] for name in text.split(",")]
    if len(forms) != 1 or output.visualize:
        raise OptionsError("a corpus is written in one form: --format jsonl or --format parquet")
    return corpora.run(terminal, corpus, build, output.output_dir, forms[0], json)


def _check(output: Output, wanted: list[str], items: list[Item], json: bool) -> None:
    """Say what cannot be written before any model is loaded."""
    if output.output_dir is not None:
        outputs.make_folder(output.output_dir)
    elif output.visualize:
        raise OptionsError("--visualize needs --output-dir (or use vermilion plot)")
    elif wanted and json:
        raise OptionsError("--json and --format both write to stdout; give --output-dir for the files")
    elif not has_output():
        raise OptionsError("standard output is closed; give --output-dir for files, or open it")
    elif len(wanted) > 1 or (wanted and len(items) > 1 and wanted != ["jsonl"]):
        raise OptionsError("several recordings or formats cannot share stdout; give --output-dir")
