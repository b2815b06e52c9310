"""`vermilion identify`."""

from __future__ import annotations

from vermilion import loading
from vermilion.cli.console import Terminal
from vermilion.cli.each import for_each, identity, named, only, recordings
from vermilion.cli.inputs import Item
from vermilion.cli.options import Hardware, Inputs, Json, ModelsOption, Quiet
from vermilion.transcript import LanguageResult

EXAMPLES = """Examples:
  vermilion identify clip.wav
  vermilion identify clips/ --json | jq -r '[.lang, .wav_path] | @tsv'

One language per recording; `transcribe` names the language of every segment."""


def identify(
    inputs: Inputs,
    /,
    *,
    models: ModelsOption = "auto",
    hardware: Hardware = Hardware(),  # noqa: B008 - frozen
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Name the language (and Chinese dialect) of recordings."""
    terminal = Terminal(quiet)
    items, code = recordings(inputs, terminal)
    with terminal.working("loading models"):
        identifier = loading.load_identifier(models, options=hardware.apply())
    terminal.answered({"lid": named(identifier)}, str(hardware))

    def show(item: Item, result: LanguageResult) -> None:
        if json:
            others = [{"lang": r.label, "confidence": round(r.confidence, 3)} for r in result.alternatives]
            found = {"lang": result.label, "confidence": round(result.confidence, 3), "alternatives": others}
            terminal.json({**identity(item), **found})
            return
        label = result.label or "(nothing to identify)"
        rest = ", ".join(f"{r.label} {r.confidence:.2f}" for r in result.alternatives[1:3] if r.confidence >= 0.05)
        terminal.show(f"{label:<14} {result.confidence:.2f}  {item.name}" + (f"  (else {rest})" if rest else ""))

    return max(code, for_each(items, lambda item: only(identifier.identify([item.source])), show, terminal, json))
