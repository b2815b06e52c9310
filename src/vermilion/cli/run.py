"""One run of `vermilion transcribe`: what is done already, what is written, what is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vermilion import formats
from vermilion.cli import outputs
from vermilion.cli.console import FAILED, INTERRUPTED, OK, Terminal
from vermilion.cli.each import failed
from vermilion.cli.inputs import Item
from vermilion.cli.options import Output
from vermilion.cli.progress import Meter, clock
from vermilion.cli.reading import languages, stamp, transcript_text
from vermilion.cli.state import Identity, State
from vermilion.errors import ModelError, VermilionError
from vermilion.flags import ROUTED
from vermilion.formats import SubtitleOptions
from vermilion.pipeline import Pipeline
from vermilion.transcript import Failure, Transcript


class Run:
    """One run of `transcribe`: what is to do, what was done, what is said about it."""

    def __init__(
        self, terminal: Terminal, output: Output, wanted: list[str], json: bool, subtitles: SubtitleOptions
    ) -> None:
        """Take where results go."""
        self.terminal = terminal
        self.output = output
        self.wanted = wanted
        self.subtitles = subtitles
        self.json = json
        self.done = self.failures = self.skipped = 0
        self.several = False
        self.state: State | None = None
        self.identities: dict[Path, Identity | None] = {}
        """of the recordings as they were when they were begun"""

    def start(self, items: list[Item]) -> list[outputs.Target]:
        """Plan the outputs and leave out what is done already."""
        self.several = len(items) > 1
        folder = self.output.output_dir
        if folder is None:
            return [outputs.Target(item, (), name=n) for item, n in zip(items, outputs.names(items), strict=True)]
        self.state = State(folder)
        wanted = self.wanted or outputs.DEFAULT_FORMATS
        targets = outputs.plan(items, folder, wanted, self.output.visualize, self.state)
        ready = [] if self.output.overwrite else [t for t in targets if t.done(self.state)]
        for target in ready:
            self._skip(target)
        self.skipped = len(ready)
        self.identities = {t.item.path: Identity.of(t.item.path) for t in targets if t.item.path}
        if ready:
            self.terminal.say(f"{_count(len(ready))} already done and skipped (--overwrite redoes them)")
        return [t for t in targets if t not in ready]

    def _skip(self, target: outputs.Target) -> None:
        if self.json:
            self.terminal.json({"wav_path": target.item.name, "skipped": True, "outputs": [str(p) for p in target.all]})

    def all(self, pipeline: Pipeline, targets: Sequence[outputs.Target]) -> int:
        """Transcribe; each result is written as soon as it is there.

        Returns:
            The exit code.
        """
        try:
            with Meter([t.item for t in targets], self.terminal) as meter:
                results = pipeline.transcribe_many(meter.sources(), progress=meter)
                for i, (target, result) in enumerate(zip(targets, results, strict=True)):
                    meter.finish(i)
                    with meter.paused():
                        self.one(target, result)
        except KeyboardInterrupt:
            self._interrupted(len(targets))
            return INTERRUPTED
        if self.several:
            self._summary(meter)
        return FAILED if self.failures else OK

    def one(self, target: outputs.Target, result: Transcript | Failure) -> None:
        """Write and report one result."""
        if isinstance(result, Failure):
            self._failed(target, result.error)
            return
        result = replace(result, source=target.item.name, utterance_id=target.id)
        try:
            for path in target.paths:
                formats.save(result, path, options=self.subtitles)
            if target.picture is not None:
                _draw(target, result)
            self._note(target)
        except (OSError, VermilionError) as error:
            kind = error if isinstance(error, VermilionError) else ModelError(f"cannot write the outputs: {error}")
            self._failed(target, kind)
            return
        self.done += 1
        self._remarks(target, result)
        self._show(target, result)

    def _note(self, target: outputs.Target) -> None:
        """Keep what the outputs were made of."""
        identity = self.identities.get(target.item.path) if target.item.path else None
        if self.state is not None and identity is not None:
            self.state.note(target.all, identity)

    def _failed(self, target: outputs.Target, error: VermilionError) -> None:
        self.failures += 1
        failed(target.item, error, self.terminal, self.json)

    def _remarks(self, target: outputs.Target, result: Transcript) -> None:
        name = target.item.name
        for warning in result.warnings:
            self.terminal.warn(f"{name}: {warning}")
        routed = sorted({s.language for s in result.sentences if s.language and ROUTED in s.flags})
        if routed:
            self.terminal.say(f"{name}: {', '.join(routed)} recognised by {result.models.get('fallback')}")
        for failure in result.failures:
            where = f" {stamp(failure.span.start)}–{stamp(failure.span.end)}" if failure.span else ""
            self.terminal.fail(f"{name}:{where} {failure.stage} failed: {failure.error}")
        self.failures += bool(result.failures)

    def _show(self, target: outputs.Target, result: Transcript) -> None:
        if self.json:
            self.terminal.json(result.to_dict())
        elif self.output.output_dir is not None:
            about = f"{target.item.name}  {clock(result.duration)}  {languages(result)}".rstrip()
            self.terminal.say(f"{about}  → {outputs.shown(target.all)}")
        elif self.wanted:
            self.terminal.write(formats.render(result, self.wanted[0], self.subtitles))
        else:
            about = f"{target.item.name}  {clock(result.duration)}  {languages(result)}".rstrip()
            self.terminal.write(f"# {about}") if self.several else self.terminal.say(about)
            self.terminal.print(transcript_text(result), soft_wrap=True, end="")

    def _interrupted(self, targets: int) -> None:
        ready = self.done + self.skipped
        text = f"interrupted: {ready} of {targets + self.skipped} recordings are done"
        if self.output.output_dir is not None:
            text += f" and saved in {self.output.output_dir}; run the same command again to go on"
        self.terminal.fail(text)

    def _summary(self, meter: Meter) -> None:
        parts = [f"{_count(self.done)} done"]
        parts += [f"{self.skipped} skipped"] if self.skipped else []
        parts += [f"{self.failures} with failures"] if self.failures else []
        parts.append(f"{clock(meter.tally.done())} of audio at {meter.tally.speed():.1f}× real time")
        self.terminal.say(", ".join(parts))


def _count(number: int) -> str:
    return f"{number} recording{'' if number == 1 else 's'}"


def _draw(target: outputs.Target, result: Transcript) -> None:
    """Draw the timeline; standard input cannot be read twice, so its waveform is left out."""
    from vermilion.audio import open_recordings

    if target.picture is None:
        return
    read = open_recordings(target.item.path) if target.item.path else []
    try:
        samples: Any = read[0].samples if read else None  # a memory map where the recording is long
        formats.plot(result, target.picture, samples=samples, probabilities=result.probabilities)
    finally:
        for recording in read:
            recording.close()
