"""Projection: `project`, `Projector`, their configuration and result."""

from pyfacelat.projection.config import PRESETS, ProjectionConfig, Stage, make_config
from pyfacelat.projection.engine import Projector, project
from pyfacelat.projection.loop import StepInfo
from pyfacelat.projection.result import ProjectionResult

__all__ = [
    "PRESETS",
    "ProjectionConfig",
    "ProjectionResult",
    "Projector",
    "Stage",
    "StepInfo",
    "make_config",
    "project",
]
