"""Builds the models from a name, inside an engine process; light enough to be sent there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vermilion.pipeline import PipelineOptions

if TYPE_CHECKING:
    from vermilion.server.worker import Models


@dataclass(frozen=True)
class LoadModels:
    """A name of models as `vermilion.load` takes it, and options."""

    name: str
    options: PipelineOptions

    def __call__(self) -> Models:
        """Load them; the streaming detector too."""
        from vermilion import loading
        from vermilion.server.worker import Models

        pipeline = loading.load(self.name, options=self.options)
        sounds = pipeline.event_detector
        return Models(pipeline, loading.load_stream_detector(self.name), sounds)  # type: ignore[arg-type]
