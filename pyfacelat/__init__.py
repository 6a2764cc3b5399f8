"""Project faces into a StyleGAN2 latent space under a look target and a landmark target.

Quick start::

    import pyfacelat

    result = pyfacelat.project("look.png", "pose.png", steps=200)
    result.images  # uint8 [N,H,W,3]
    result.save("out")

Names resolve on first use, so that importing the package costs little beyond torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pyfacelat.errors import (
    CheckpointError,
    DeviceError,
    FacelatError,
    ImageError,
    LandmarkError,
    MissingWeightsError,
    NoFaceError,
    NonFiniteError,
    OutdirBusyError,
)
from pyfacelat.version import __version__

if TYPE_CHECKING:
    from pyfacelat.animation import animate as animate
    from pyfacelat.encoding import encode as encode
    from pyfacelat.images import load_image as load_image
    from pyfacelat.ops import backend_report as backend_report
    from pyfacelat.photographs import align as align
    from pyfacelat.photographs import detect_landmarks as detect_landmarks
    from pyfacelat.projection import ProjectionResult as ProjectionResult
    from pyfacelat.projection import Projector as Projector
    from pyfacelat.projection import project as project
    from pyfacelat.zoo import load_generator as load_generator

_LAZY = {
    "ProjectionResult": "pyfacelat.projection",
    "Projector": "pyfacelat.projection",
    "align": "pyfacelat.photographs",
    "animate": "pyfacelat.animation",
    "backend_report": "pyfacelat.ops",
    "detect_landmarks": "pyfacelat.photographs",
    "encode": "pyfacelat.encoding",
    "load_generator": "pyfacelat.zoo",
    "load_image": "pyfacelat.images",
    "project": "pyfacelat.projection",
}

__all__ = [
    "CheckpointError",
    "DeviceError",
    "FacelatError",
    "ImageError",
    "LandmarkError",
    "MissingWeightsError",
    "NoFaceError",
    "NonFiniteError",
    "OutdirBusyError",
    "ProjectionResult",
    "Projector",
    "__version__",
    "align",
    "animate",
    "backend_report",
    "detect_landmarks",
    "encode",
    "load_generator",
    "load_image",
    "project",
]


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'pyfacelat' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
