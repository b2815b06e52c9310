"""`vermilion vad`."""

from __future__ import annotations

from vermilion import loading
from vermilion.cli.console import Terminal
from vermilion.cli.each import for_each, identity, named, recordings
from vermilion.cli.inputs import Item
from vermilion.cli.options import Inputs, Json, ModelsOption, Quiet, Voice
from vermilion.cli.reading import spans_table
from vermilion.transcript import VadResult

EXAMPLES = """Examples:
  vermilion vad talk.mp4
  vermilion vad talks/ --json > speech.jsonl
  vermilion vad talk.mp4 --speech-threshold 0.3 --merge-silence-frame 50

Options in frames count 10 ms each."""


def vad(
    inputs: Inputs,
    /,
    *,
    models: ModelsOption = "auto",
    json: Json = False,
    quiet: Quiet = False,
    voice: Voice = Voice(),  # noqa: B008 - frozen
) -> int:
    """Find the speech in recordings."""
    options = voice.plain()
    terminal = Terminal(quiet)
    items, code = recordings(inputs, terminal)
    with terminal.working("loading models"):
        detector = loading.load_detector(models, options=options)
    terminal.answered({"vad": named(detector)})

    def show(item: Item, result: VadResult) -> None:
        if json:
            stamps = [[s.start, s.end] for s in result.segments]
            terminal.json({**identity(item), "dur": result.duration, "timestamps": stamps})
            return
        speech = sum(s.duration for s in result.segments)
        terminal.show(f"{item.name}: {speech:.2f} s of speech in {result.duration:.2f} s")
        if result.segments:
            terminal.show(spans_table((str(i), s) for i, s in enumerate(result.segments, 1)))

    return max(code, for_each(items, lambda item: detector.detect(item.source), show, terminal, json))
