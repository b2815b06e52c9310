"""`vermilion live`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from vermilion.cli import STDIN
from vermilion.cli.console import FAILED, OK, Terminal
from vermilion.cli.options import MODELS, OUTPUT, Hardware, ModelsOption, Quiet, Sounds
from vermilion.cli.reading import stamp
from vermilion.cli.streams import input_bytes
from vermilion.errors import OptionsError
from vermilion.live import EventChanged, Final, LiveEvent, LiveOptions, LiveReport, Partial, event_to_dict
from vermilion.live.report import Delay
from vermilion.live.sources import Chunk, microphone, paced, raw_stream
from vermilion.pipeline import PipelineOptions

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

    from vermilion.live.captions import CaptionFile
    from vermilion.live.session import LiveSession

EXAMPLES = """Examples:
  vermilion live                                    the microphone
  vermilion live -o talk.srt                        with subtitles as it goes
  ffmpeg -i rtmp://… -f s16le -ar 16000 -ac 1 - | vermilion live -
  vermilion live talk.mp4                           as if it were spoken now
  vermilion live talk.mp4 --pace 0 --jsonl          as fast as it goes

Words that may still change are dim; what stands firm is final. Ctrl-C ends."""

SOURCE = Group.create_ordered("Source")
UTTERANCES = Group.create_ordered("Utterances")


def live(
    source: Annotated[str | None, Parameter(help="A recording, or - for raw samples on standard input.")] = None,
    /,
    *,
    models: ModelsOption = "auto",
    recognizer: Annotated[
        Literal["auto", "aed", "llm", "whisper"], Parameter(group=MODELS, help="Which recogniser.")
    ] = "auto",
    hardware: Hardware = Hardware(),  # noqa: B008 - frozen
    output: Annotated[
        list[Path] | None,
        Parameter(
            name=["--output", "-o"], group=OUTPUT, help="File that grows: .srt, .vtt, .txt, .jsonl; may be repeated."
        ),
    ] = None,
    jsonl: Annotated[
        bool, Parameter(negative="", show_default=False, group=OUTPUT, help="Every event as a JSON object on stdout.")
    ] = False,
    quiet: Quiet = False,
    pace: Annotated[float, Parameter(group=SOURCE, help="Speed at which a recording is played; 0 = no waiting.")] = 1.0,
    rate: Annotated[int, Parameter(group=SOURCE, help="Samples per second on standard input.")] = 16000,
    channels: Annotated[int, Parameter(group=SOURCE, help="Channels on standard input.")] = 1,
    input_device: Annotated[
        str | None, Parameter(group=SOURCE, help="Microphone: its number or a part of its name.")
    ] = None,
    language: Annotated[str | None, Parameter(help="Language of the speech, such as en; not identified then.")] = None,
    sounds: Sounds = Sounds(),  # noqa: B008 - frozen
    options: Annotated[LiveOptions, Parameter(name="*", group=UTTERANCES)] = LiveOptions(),  # noqa: B008 - frozen
) -> int:
    """Transcribe while people speak: microphone, stream, or a file played."""
    from vermilion.live import load_live

    terminal = Terminal(quiet)
    chunks = _chunks(source, pace, rate, channels, input_device)
    chosen = sounds.apply(PipelineOptions(recognizer=recognizer, language=language, events=options.events))
    with ExitStack() as stack:
        files = _files(output or [], stack)
        with terminal.working("loading models"):
            transcriber = stack.enter_context(
                load_live(models, options=hardware.apply(chosen), background=source is None or pace > 0)
            )
        terminal.answered(transcriber.models(), str(hardware))
        session = transcriber.session(options)
        view = stack.enter_context(_view(terminal, jsonl))
        _run(session, chunks, view, files)
        report = session.report()
    if not quiet:
        _summary(terminal, report)
    return FAILED if report.failures else OK


def _chunks(source: str | None, pace: float, rate: int, channels: int, device: str | None) -> Iterator[Chunk]:
    if source is None:
        return microphone(device)
    if source == STDIN:
        return raw_stream(input_bytes(), rate, channels)
    if not pace >= 0:
        raise OptionsError(f"pace must not be negative, got {pace}")
    return paced(Path(source), pace)


def _files(paths: list[Path], stack: ExitStack) -> list[CaptionFile]:
    from vermilion.live.captions import CaptionFile

    return [stack.enter_context(CaptionFile(path)) for path in paths]


def _run(session: LiveSession, chunks: Iterator[Chunk], view: View, files: list[CaptionFile]) -> None:
    """Until the source ends, or Ctrl-C; what was said so far is finished in both cases."""

    def tell(events: list[LiveEvent]) -> None:
        for event in events:
            view.show(event)
            if isinstance(event, Final):
                for file in files:
                    file.write(event)

    try:
        for samples, rate in chunks:
            tell(session.accept(samples, rate))
    except KeyboardInterrupt:
        pass
    tell(session.finish())


class View:
    """Events as JSON lines, or finals as lines of text."""

    def __init__(self, terminal: Terminal, jsonl: bool, screen: Live | None = None) -> None:
        """Take the terminal; with a screen partial words are shown below the finals."""
        self.terminal, self.jsonl, self.screen = terminal, jsonl, screen

    def show(self, event: LiveEvent) -> None:
        """Show one event."""
        if self.jsonl:
            self.terminal.json(event_to_dict(event))
        elif isinstance(event, Final):
            self._below("")
            self._line(event)
        elif isinstance(event, Partial):
            self._below(event)
        elif isinstance(event, EventChanged):
            self._remark(f"[{stamp(event.time)}] {event.label} {'begins' if event.active else 'ends'}")

    def _remark(self, text: str) -> None:
        """Beside a screen through its own console: a line that it does not know of would tear it."""
        if self.screen is None:
            self.terminal.say(text)
        elif not self.terminal.quiet:
            self.terminal.out.print(text, style="dim")

    def _line(self, final: Final) -> None:
        if final.failure is not None and self.screen is not None:
            self.terminal.out.print(f"error: [{stamp(final.start)}] {final.failure}", style="bold red")
        elif final.failure is not None:
            self.terminal.fail(f"[{stamp(final.start)}] {final.failure}")
        if not final.text:
            return
        from rich.text import Text

        text = Text.assemble((f"[{stamp(final.start)}] ", "cyan"))
        if final.language:
            text.append(f"({final.language}{' ' + final.dialect if final.dialect else ''}) ", style="green")
        text.append(final.text)
        self.terminal.print(text, soft_wrap=self.screen is None)

    def _below(self, partial: Partial | str) -> None:
        if self.screen is not None:
            self.screen.update(_dim(partial) if isinstance(partial, Partial) else "", refresh=True)


def _dim(partial: Partial) -> Text:
    from rich.text import Text

    return Text.assemble((partial.text, "dim"), (partial.tentative, "dim italic"), (" …", "dim"))


@contextmanager
def _view(terminal: Terminal, jsonl: bool) -> Iterator[View]:
    if jsonl or not terminal.out.is_terminal:
        yield View(terminal, jsonl)
        return
    from rich.live import Live

    with Live("", console=terminal.out, auto_refresh=False, transient=True) as screen:
        yield View(terminal, jsonl, screen)


def _summary(terminal: Terminal, report: LiveReport) -> None:
    def shown(delay: Delay) -> str:
        return "-" if delay.median is None or delay.p95 is None else f"{delay.median:.2f} s (p95 {delay.p95:.2f})"

    terminal.say(
        f"{report.utterances} utterances in {stamp(report.seconds)}; first words after {shown(report.first_partial)}, "
        f"partials {shown(report.partial)}, finals {shown(report.final)}, the silence that ends them included; "
        f"{report.changed_share:.1%} of {report.shown_words} shown words changed; RTF {report.real_time_factor:.2f}"
    )
