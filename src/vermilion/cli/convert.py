"""`vermilion convert`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from vermilion.checkpoints import catalogue
from vermilion.cli.console import OK, Terminal, exit_code
from vermilion.cli.options import Quiet
from vermilion.cli.reading import size
from vermilion.errors import CheckpointError, VermilionError

EXAMPLES = """Examples:
  vermilion convert FireRedASR2-AED                 wherever it was pulled to
  vermilion convert pretrained_models               every model of a folder
  vermilion convert pretrained_models --target smaller --dtype bfloat16
  vermilion convert FireRedASR2-LLM --to vllm --dtype bfloat16

The published files stay. Without --target the conversion lies beside them and
is loaded from then on; files that were converted before are kept."""


def convert(
    folders: Annotated[list[str], Parameter(help="Model folders, folders that hold them, or names of known models.")],
    /,
    *,
    target: Annotated[
        Path | None, Parameter(help="Folder that gets complete models of its own. [default: beside the originals]")
    ] = None,
    to: Annotated[
        Literal["safetensors", "vllm"],
        Parameter(help="vllm = FireRedASR2-LLM in the layout that vLLM reads, in FOLDER-vllm."),
    ] = "safetensors",
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"] | None, Parameter(help="Number format. [default: as it is]")
    ] = None,
    quiet: Quiet = False,
) -> int:
    """Rewrite model folders as safetensors, which load in a second."""
    terminal = Terminal(quiet)
    code = OK
    for folder in folders:
        began = time.monotonic()
        try:
            with terminal.working(f"converting {folder}"):
                files = _rewritten(_found(folder), target, to, dtype)
        except VermilionError as error:
            terminal.fail(str(error))
            code = max(code, exit_code(error))
            continue
        for file in files:
            terminal.write(f"{file}  {size(file.stat().st_size)}")
        terminal.say(
            f"{folder}: {len(files)} {'file' if len(files) == 1 else 'files'} in {time.monotonic() - began:.1f} s"
        )
    return code


def _rewritten(folder: Path, target: Path | None, to: str, dtype: str | None) -> list[Path]:
    if to == "vllm":
        from vermilion.asr.vllm_layout import write_vllm

        return write_vllm(folder, target, dtype)
    from vermilion.checkpoints.convert import convert as rewrite

    return rewrite(folder, target=target, dtype=dtype)


def _found(folder: str) -> Path:
    """A folder as it is, or where a known model lies."""
    if Path(folder).expanduser().is_dir():
        return Path(folder)
    found = catalogue.find(folder)
    if found is None:
        raise CheckpointError(f"{folder} is not on this machine; vermilion pull {folder} downloads it")
    return found
