"""Procedural 3D faces with exact 68 landmarks: data and ground truth without photographs."""

from pyfacelat.procface.dataset import Faces, batches, generate, latents
from pyfacelat.procface.params import (
    FLIP_LANDMARKS,
    PARAMS,
    TAGS,
    Z_DIM,
    Parameter,
    compose,
    default,
    from_latent,
    index,
    mirror,
    names,
    sweep,
    to_latent,
    with_values,
)
from pyfacelat.procface.render import OUTPUTS, PART_NAMES, render

__all__ = [
    "FLIP_LANDMARKS",
    "OUTPUTS",
    "PARAMS",
    "PART_NAMES",
    "TAGS",
    "Z_DIM",
    "Faces",
    "Parameter",
    "batches",
    "compose",
    "default",
    "from_latent",
    "generate",
    "index",
    "latents",
    "mirror",
    "names",
    "render",
    "sweep",
    "to_latent",
    "with_values",
]
