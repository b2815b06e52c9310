"""The commands by name; only the one that runs is imported."""

from __future__ import annotations

from importlib import import_module

from cyclopts import App, Parameter

from vermilion import __version__
from vermilion.cli.console import EXIT_CODES

COMMANDS = {
    "transcribe": "Transcribe recordings: speech, language, words with times, punctuation.",
    "live": "Transcribe while people speak: microphone, stream, or a file played.",
    "serve": "Serve transcription over HTTP and WebSockets, with a web page.",
    "keys": "Make, list and remove the API keys of the server.",
    "vad": "Find the speech in recordings.",
    "events": "Find speech, singing and music in recordings.",
    "identify": "Name the language (and Chinese dialect) of recordings.",
    "punctuate": "Put punctuation and casing into plain text.",
    "align": "Give the words of a known text their times in a recording.",
    "plot": "Draw a timeline of a recording: waveform, speech, events, languages, words.",
    "compare": "Compare precisions and searches on recordings of your own.",
    "models": "List the known models: which are present, where, how large.",
    "pull": "Download models from Hugging Face or ModelScope.",
    "convert": "Rewrite model folders as safetensors, which load in a second.",
    "data": "Prepare recordings for training: check, split, resample, pack.",
    "train": "Train the modules: recogniser, CTC head, language identifier and more.",
    "bench": "Measure how fast each stage is on this machine, and what it could be.",
}
"""what `vermilion --help` says; equal to the first line of each command's docstring"""

EXAMPLES = """Examples:
  vermilion transcribe talk.mp4                    read it on the screen
  vermilion transcribe talks/ --output-dir out     srt and json of a whole folder
  vermilion models                                 what is here, what can be had

vermilion COMMAND --help explains a command, with examples."""


def build(chosen: str = "") -> App:
    """Build the parser.

    Args:
        chosen: the command that will run; it is imported, the others are only listed.
    """
    app = App(
        name="vermilion",
        help="Any recording in, a structured transcript out.",
        help_epilogue=f"{EXAMPLES}\n\n{EXIT_CODES}",
        help_format="plaintext",
        version=__version__,
        default_parameter=Parameter(negative_iterable=()),
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    for name, summary in COMMANDS.items():
        if name == chosen:
            module = import_module(f"vermilion.cli.{name}")
            command = getattr(module, name)
            more = {} if isinstance(command, App) else {"help_epilogue": f"{module.EXAMPLES}\n\n{EXIT_CODES}"}
            app.command(command, name=name, **more)
        else:
            app.command(f"vermilion.cli.{name}:{name}", name=name, help=summary)
    return app
