"""Builds the models from a name, inside an engine process; light enough to be sent there."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vermilion.pipeline import PipelineOptions

if TYPE_CHECKING:
    from vermilion.server.worker import Models

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadModels:
    """A name of models as `vermilion.load` takes it, and options."""

    name: str
    options: PipelineOptions

    def __call__(self) -> Models:
        """Load them; the streaming detector too."""
        from vermilion import loading
        from vermilion.errors import CheckpointError, MissingDependencyError
        from vermilion.server.worker import Models

        pipeline = loading.load(self.name, options=self.options)
        try:
            detector = loading.load_stream_detector(self.name)
        except (CheckpointError, MissingDependencyError) as error:  # recordings can be served all the same
            log.warning("no live sessions: %s", error)
            return Models(pipeline)
        return Models(pipeline, detector, pipeline.event_detector)  # type: ignore[arg-type]
