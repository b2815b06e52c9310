"""`vermilion events`."""

from __future__ import annotations

from vermilion import loading
from vermilion.cli.console import Terminal
from vermilion.cli.each import for_each, identity, named, recordings
from vermilion.cli.inputs import Item
from vermilion.cli.options import EventGroup, Inputs, Json, ModelsOption, Quiet
from vermilion.cli.reading import spans_table
from vermilion.transcript import EventResult
from vermilion.vad import EventOptions

EXAMPLES = """Examples:
  vermilion events concert.mp4
  vermilion events radio/*.mp3 --json > events.jsonl

Options in frames count 10 ms each."""


def events(
    inputs: Inputs,
    /,
    *,
    models: ModelsOption = "auto",
    json: Json = False,
    quiet: Quiet = False,
    options: EventGroup = EventOptions(),  # noqa: B008 - frozen
) -> int:
    """Find speech, singing and music in recordings."""
    terminal = Terminal(quiet)
    items, code = recordings(inputs, terminal)
    with terminal.working("loading models"):
        detector = loading.load_event_detector(models, options=options)
    terminal.answered({"events": named(detector)})

    def show(item: Item, result: EventResult) -> None:
        if json:
            stamps = {label: [[s.start, s.end] for s in spans] for label, spans in result.spans.items()}
            terminal.json(
                {**identity(item), "dur": result.duration, "event2timestamps": stamps, "event2ratio": result.ratios}
            )
            return
        shares = ", ".join(f"{label} {ratio:.0%}" for label, ratio in result.ratios.items())
        terminal.show(f"{item.name}: {result.duration:.2f} s, {shares}")
        rows = sorted(((label, s) for label, spans in result.spans.items() for s in spans), key=lambda r: r[1].start)
        if rows:
            terminal.show(spans_table(rows))

    return max(code, for_each(items, lambda item: detector.detect(item.source), show, terminal, json))
