"""`vermilion bench`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from vermilion import benchmarking
from vermilion.benchmarking import BenchmarkOptions, Progress, Report, StageResult
from vermilion.cli import STDIN
from vermilion.cli.console import OK, Terminal
from vermilion.cli.options import Hardware, Json, ModelsOption, Quiet
from vermilion.cli.reading import rows_table
from vermilion.cli.streams import input_bytes

if TYPE_CHECKING:
    from rich.table import Table

EXAMPLES = """Examples:
  vermilion bench                                  this machine, best models
  vermilion bench --precision int8 --threads 1
  vermilion bench talk.mp4 --seconds 120           its own segments of speech
  vermilion bench --models starter --json | jq .stages

"of the floor": 100 % is as fast as this machine multiplies matrices and
reads weights, measured in the same run. Close other programs first."""

MEASURE = Group.create_ordered("Measurement")


def bench(
    recording: Annotated[
        str | None, Parameter(help="A recording instead of the synthetic signal; - reads standard input.")
    ] = None,
    /,
    *,
    models: ModelsOption = "auto",
    hardware: Hardware = Hardware(),  # noqa: B008 - frozen
    options: Annotated[BenchmarkOptions, Parameter(name="*", group=MEASURE)] = BenchmarkOptions(),  # noqa: B008
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Measure how fast each stage is on this machine, and what it could be."""
    terminal = Terminal(quiet)
    source = input_bytes().read() if recording == STDIN else (Path(recording) if recording else None)
    with _measuring(terminal) as progress:
        report = benchmarking.benchmark(models, source, options=options, pipeline=hardware.apply(), progress=progress)
    terminal.answered(_models(report))
    if json:
        terminal.json(_as_dict(report))
    else:
        terminal.show(_about(report))
        terminal.show(_table(report))
    return OK


@contextmanager
def _measuring(terminal: Terminal) -> Iterator[Progress]:
    """One line that says what is measured; a line each where there is no terminal."""
    if terminal.quiet or not terminal.err.is_terminal:
        yield lambda name: terminal.say(f"measuring {name}")
        return
    with terminal.err.status("measuring", spinner="dots") as status:
        yield lambda name: status.update(f"measuring {name}")


def _models(report: Report) -> dict[str, str]:
    """Name of the model of each kind."""
    names: dict[str, str] = {}
    for stage in report.stages:
        if stage.model and stage.name != "ctc":
            names.setdefault(stage.name.split()[0], stage.model)  # the first of "vad" and "vad streaming"
    return names


def _about(report: Report) -> str:
    machine, ceiling = report.machine, report.machine.ceiling
    where = machine.gpu or f"{machine.cores} cores ({', '.join(machine.flags) or 'instructions unknown'})"
    return (
        f"{where}, {machine.threads} threads, {machine.device}, {report.precision}\n"
        f"matrix products {ceiling.flops / 1e9:,.0f} GFLOP/s, reading memory {ceiling.bandwidth / 1e9:,.0f} GB/s\n"
        f"{report.recording:.1f} s of audio, {report.speech:.1f} s of it in segments; "
        f"medians of {report.options.repeat}\n"
    )


def _table(report: Report) -> Table:
    on_gpu = any(stage.gpu_memory is not None for stage in report.stages)
    columns = ["stage", "audio s/s", "ms per audio s", "memory GB", *(["GPU GB"] if on_gpu else []), "of the floor", ""]
    table = rows_table(columns, [_row(stage, report, on_gpu) for stage in report.stages])
    for column in table.columns[1:-1]:
        column.justify = "right"
    return table


def _row(stage: StageResult, report: Report, on_gpu: bool) -> list[str]:
    memories = [stage.memory, stage.gpu_memory] if on_gpu else [stage.memory]
    return [
        stage.name,
        _digits(stage.speed),
        _digits(1000 / stage.speed),
        *("-" if memory is None else f"{memory / 1e9:.2f}" for memory in memories),
        "-" if stage.share is None else f"{stage.share:.0%}",
        _remark(stage, report),
    ]


def _remark(stage: StageResult, report: Report) -> str:
    if stage.hop_ms is not None:
        return f"10 ms hop: p50 {stage.hop_ms[0]:.2f} ms, p99 {stage.hop_ms[1]:.2f} ms"
    if stage.step_ms is not None:
        return f"{_digits(stage.step_ms)} ms per step and utterance, beam 3, batch {report.options.batch}"
    if stage.name == "pipeline":
        return f"RTF {1 / stage.speed:.3f}"
    return stage.model if stage.name in ("asr", "lid") else ""


def _digits(value: float) -> str:
    """Three digits that count: `1,234`, `56.7`, `0.089`."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def _as_dict(report: Report) -> dict[str, Any]:
    machine, options = report.machine, report.options
    return {
        "machine": {
            "cores": machine.cores,
            "flags": machine.flags,
            "threads": machine.threads,
            "device": machine.device,
            "gpu": machine.gpu,
            "gflops": round(machine.ceiling.flops / 1e9, 1),
            "gigabytes_per_second": round(machine.ceiling.bandwidth / 1e9, 1),
        },
        "precision": report.precision,
        "recording_s": round(report.recording, 3),
        "speech_s": round(report.speech, 3),
        "batch": options.batch,
        "steps": options.steps,
        "repeat": options.repeat,
        "stages": [_stage_dict(stage) for stage in report.stages],
    }


def _stage_dict(stage: StageResult) -> dict[str, Any]:
    """What does not apply to a stage is left out, but for its floor."""
    found = {
        "stage": stage.name,
        "model": stage.model or None,
        "audio_s": round(stage.audio, 3),
        "seconds": stage.seconds,
        "audio_per_second": stage.speed,
        "ms_per_second": 1000 / stage.speed,
        "memory_gb": None if stage.memory is None else stage.memory / 1e9,
        "floor_ms_per_second": None if stage.floor is None else 1000 * stage.floor / stage.audio,
        "share_of_floor": stage.share,
    }
    if stage.gpu_memory is not None:
        found["gpu_memory_gb"] = stage.gpu_memory / 1e9
    if stage.hop_ms is not None:
        found |= {"hop_p50_ms": stage.hop_ms[0], "hop_p99_ms": stage.hop_ms[1]}
    if stage.step_ms is not None:
        found["ms_per_step_and_utterance"] = stage.step_ms
    if stage.name == "pipeline":
        found["rtf"] = 1 / stage.speed
    return found
