"""`vermilion calibrate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from vermilion.cli.console import FAILED, OK, Terminal
from vermilion.cli.evaluation import Manifests, Results, run, sets_of
from vermilion.cli.options import OUTPUT, Hardware, Json, ModelsOption, Quiet, Search
from vermilion.cli.reading import rows_table

if TYPE_CHECKING:
    from vermilion.evaluation.calibration import Fitted

EXAMPLES = """Examples:
  vermilion calibrate dev.jsonl                      beside the model
  vermilion calibrate dev.jsonl --models my/models --output-dir out
  vermilion calibrate dev.jsonl --no-save            only look

Afterwards a confidence of 0.9 means that nine of ten such words are right, in
recordings like these; --no-calibration of other commands shows what the model
itself gave. ECE is the expected calibration error."""


def calibrate(
    manifests: Manifests,
    /,
    *,
    method: Annotated[
        Literal["auto", "temperature", "isotonic"],
        Parameter(help="temperature = one number; isotonic = any rising curve; auto = what predicts better."),
    ] = "auto",
    save: Annotated[bool, Parameter(group=OUTPUT, help="Write calibration.json beside the model.")] = True,
    output_dir: Annotated[
        Path | None,
        Parameter(
            name=["--output-dir", "-o"],
            group=OUTPUT,
            help="Folder for answers and pictures; a killed run goes on there.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, Parameter(negative="", show_default=False, group=OUTPUT, help="Forget the answers that are there.")
    ] = False,
    models: ModelsOption = "auto",
    search: Search = Search(),  # noqa: B008 - frozen
    hardware: Hardware = Hardware(),  # noqa: B008 - frozen
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Fit a recogniser's confidences to what is right, from recordings with texts."""
    from vermilion.evaluation.calibration import check_size
    from vermilion.evaluation.fitting import fit_confidences, save_calibration
    from vermilion.evaluation.systems import OWN, recognisers

    terminal = Terminal(quiet)
    options = replace(hardware.apply(), decoding=replace(search.plain(), timestamps=True), calibration=False)
    results = Results(output_dir, overwrite)
    sets = sets_of(manifests, results)
    check_size(sum(bool(u.text) for s in sets for u in s.utterances))
    systems = recognisers([OWN], models, options)
    outcome = run(terminal, systems, sets, results.plan())
    calibration, fits = fit_confidences(outcome.evaluations[0], method, output_dir)
    if json:
        for name, fitted in fits.items():
            terminal.json({"confidence": name, **fitted.to_dict()})
    else:
        terminal.show(rows_table(_COLUMNS, [_row(name, fitted) for name, fitted in fits.items()]))
    if save:
        terminal.say(f"saved: {save_calibration(models, options, calibration)}")
    if outcome.failures:
        terminal.fail(f"{outcome.failures} recordings could not be recognised and are left out")
    return FAILED if outcome.failures else OK


_COLUMNS = ("confidence", "method", "samples", "ECE before", "ECE after", "Brier before", "Brier after")


def _row(name: str, fitted: Fitted) -> list[str]:
    found = fitted.to_dict()
    shares = [f"{100 * found[k]:.2f} %" for k in ("ece_before", "ece_after")]
    return [
        name, found["method"], str(found["samples"]), *shares,
        f"{found['brier_before']:.4f}", f"{found['brier_after']:.4f}",
    ]  # fmt: skip
