"""`vermilion compare`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from vermilion.cli.console import FAILED, OK, Terminal
from vermilion.cli.options import Hardware, Json, ModelsOption, Quiet
from vermilion.cli.reading import rows_table
from vermilion.decoding.options import SEARCHES
from vermilion.errors import OptionsError
from vermilion.evaluation.settings import Comparison, Setting, read_samples
from vermilion.runtime import PRECISIONS

EXAMPLES = """Examples:
  vermilion compare talks.tsv                        float32 against int8
  vermilion compare talks.tsv --precisions float32,int8 --searches beam,greedy
  vermilion compare test.jsonl --json | jq '{setting, cer}'

A manifest (JSON lines, a Kaldi folder), or a list with a line per recording:
its path, a tab, and what is said in it. Without the text, settings are
compared with the first one only. The rate is that of
vermilion evaluate asr --unit character: case, marks and spaces do not count."""


def compare(
    recordings: Annotated[str, Parameter(help="Manifest, or list of recordings and texts (.tsv).")],
    /,
    *,
    precisions: Annotated[str, Parameter(help=f"Out of {', '.join(PRECISIONS)}.")] = "float32,int8",
    searches: Annotated[str, Parameter(help=f"Out of {', '.join(SEARCHES)}.")] = "beam",
    models: ModelsOption = "auto",
    hardware: Hardware = Hardware(),  # noqa: B008 - frozen
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Compare precisions and searches on recordings of your own."""
    from vermilion.evaluation import settings

    terminal = Terminal(quiet)
    samples = read_samples(recordings)
    wanted = [Setting(p, s) for p in _listed(precisions, PRECISIONS) for s in _listed(searches, SEARCHES)]
    found = settings.compare(samples, wanted, models, hardware.apply(), terminal.say)
    if json:
        for row in found:
            terminal.json(_as_dict(row))
    else:
        columns = ("precision", "search", "CER", "difference", "changed", "encoder error", "audio s/s")
        terminal.show(rows_table(columns, [_row(row, len(samples)) for row in found]))
    failures = max(row.failures for row in found)
    if failures:
        terminal.fail(f"{failures} of {len(samples)} recordings could not be recognised")
    return FAILED if failures else OK


def _listed(text: str, known: tuple[str, ...]) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise OptionsError(f"{', '.join(unknown) or 'nothing'} is not one of {', '.join(known)}")
    return names


def _row(row: Comparison, samples: int) -> list[str]:
    return [
        row.setting.precision, row.setting.search, _percent(row.error_rate), _percent(row.difference),
        f"{row.changed} of {samples}", _percent(row.encoder_error), f"{row.speed:.3g}",
    ]  # fmt: skip


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _as_dict(row: Comparison) -> dict[str, object]:
    return {
        "setting": str(row.setting),
        "precision": row.setting.precision,
        "search": row.setting.search,
        "cer": row.error_rate,
        "difference": row.difference,
        "changed": row.changed,
        "encoder_error": row.encoder_error,
        "audio_seconds_per_second": row.speed,
        "failures": row.failures,
    }
