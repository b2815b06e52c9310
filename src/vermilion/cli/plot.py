"""`vermilion plot`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from vermilion import formats, loading
from vermilion.cli import outputs
from vermilion.cli.console import Terminal
from vermilion.cli.each import for_each, recordings
from vermilion.cli.inputs import Item
from vermilion.cli.options import OUTPUT, Hardware, Inputs, ModelsOption, Quiet
from vermilion.errors import FormatError, OptionsError
from vermilion.transcript import Transcript

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vermilion.pipeline import Pipeline

EXAMPLES = """Examples:
  vermilion plot talk.wav                             transcribe, then draw
  vermilion plot talk.wav --transcript out/talk.json  draw what is there
  vermilion plot talks/ --output-dir pictures --format html"""


def plot(
    inputs: Inputs,
    /,
    *,
    transcript: Annotated[
        list[Path] | None, Parameter(help="Transcript in JSON, once per recording; without it, transcribe first.")
    ] = None,
    models: ModelsOption = "auto",
    hardware: Hardware = Hardware(),  # noqa: B008 - frozen
    output_dir: Annotated[
        Path, Parameter(name=["--output-dir", "-o"], group=OUTPUT, help="Folder for the pictures.")
    ] = Path(),
    format: Annotated[
        Literal["png", "html", "svg"], Parameter(name=["--format", "-f"], group=OUTPUT, help="Kind of picture.")
    ] = "png",
    quiet: Quiet = False,
) -> int:
    """Draw a timeline of a recording: waveform, speech, events, languages, words."""
    from vermilion.audio import load_audio

    terminal = Terminal(quiet)
    items, code = recordings(inputs, terminal)
    if transcript and len(transcript) != len(items):
        raise OptionsError(f"{len(items)} recordings but {len(transcript)} transcripts; give one per recording")
    outputs.make_folder(output_dir)
    names = outputs.names(items)
    with terminal.working("loading models"):
        pipeline = None if transcript else loading.load(models, options=hardware.apply())
    if pipeline is not None:
        terminal.answered(pipeline.models(), str(hardware))

    def work(item: Item) -> Path:
        place = items.index(item)
        samples = load_audio(item.source)
        result = read((transcript or [])[place]) if pipeline is None else transcribed(pipeline, samples, item)
        path = output_dir / f"{names[place]}.{format}"
        formats.plot(result, path, samples=samples, probabilities=result.probabilities)
        return path

    return max(code, for_each(items, work, lambda item, path: terminal.write(str(path)), terminal, json=False))


def transcribed(pipeline: Pipeline, samples: NDArray[np.float32], item: Item) -> Transcript:
    """Transcribe what was read already (standard input cannot be read twice)."""
    result = pipeline.transcribe((samples, 16000), utterance_id=item.inner.name)
    return replace(result, source=item.name)


def read(path: Path) -> Transcript:
    """Read a transcript that `vermilion transcribe` wrote as JSON."""
    found = formats.read(path, "json")
    if not isinstance(found, Transcript):
        raise FormatError(f"{path} is not a transcript in JSON")
    return found
