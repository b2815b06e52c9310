"""`vermilion calibrate`: from an evaluated recogniser to the file beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vermilion.asr.calibration import FILE, Calibration, Method, write_calibration
from vermilion.errors import CheckpointError, OptionsError
from vermilion.evaluation.calibration import Fitted, calibrate
from vermilion.evaluation.plots import png, reliability
from vermilion.evaluation.results import Evaluation

if TYPE_CHECKING:
    from vermilion.pipeline import PipelineOptions

PICTURE = "calibration.png"


def fit_confidences(
    evaluation: Evaluation, method: Method | Literal["auto"] = "auto", folder: Path | None = None
) -> tuple[Calibration, dict[str, Fitted]]:
    """Fit what the recogniser gave to what was right.

    Args:
        evaluation: of the task "asr", with the recogniser's own confidences.
        method: of the curves.
        folder: gets a picture of before and after.

    Raises:
        OptionsError: the recogniser gives no confidences, or there are too few recordings.
    """
    found = evaluation.confidences
    if "utterance" not in found:
        raise OptionsError(f"{evaluation.system} gave no text with a confidence: there is nothing to calibrate")
    calibration, fits = calibrate(found["utterance"], found.get("word"), method, evaluation.system)
    if folder is not None:
        both = {f"{name} {when}": getattr(f, when) for name, f in fits.items() for when in ("before", "after")}
        folder.joinpath(PICTURE).write_bytes(png(reliability(both, evaluation.system)))
    return calibration, fits


def save_calibration(models: str, options: PipelineOptions, calibration: Calibration) -> Path:
    """Write the calibration into the folder of the recogniser that these models and options stand for.

    Returns:
        The file.

    Raises:
        CheckpointError: the recogniser has no folder here (a vLLM server), or it cannot be written to.
    """
    from vermilion.loading import Builder

    folder = Builder(models, options).recognizer_folder()
    if folder is None:
        raise CheckpointError("the recogniser has no folder here that its calibration could be written into")
    try:
        return write_calibration(folder, calibration)
    except OSError as error:
        raise CheckpointError(
            f"cannot write {folder / FILE}: {error.strerror}; make the folder writable, or copy the model"
        ) from error
