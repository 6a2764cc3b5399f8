"""Which network a state dict is of, told by its tensor names, and its tensors by our names.

A `Layout` is the answer: kind, config, and how the file calls what this package calls otherwise.
Every difference between a file and what its layout implies is refused in the file's own names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .checkpoint import check_floating, check_shapes, materialise
from .irse import arcface
from .layout import Layout, Records, Shapes
from .names import expected_tensors
from .source import Source, shown
from .vision import image_to_latent, lins, resnet, s3fd, vgg

__all__ = ["identify", "take", "take_exactly", "without_prefix"]

_COUNTER = ".num_batches_tracked"
_PARALLEL = "module."
# Beginnings of names in networks that people have and that are not read, and what to say of them.
_FOREIGN = {
    "synthesis.b4.const": (
        "the bare state dict of a StyleGAN2 of NVIDIA's code, which does not say how the network "
        "was made (its clamp, its multiplier of the mapping); use the .pkl, or save the module"
    ),
    "synthesis.input.": "a StyleGAN3 generator (configuration T or R), which is not run here",
    "backbone.synthesis.": "an EG3D generator (tri-planes), which is not run here",
    "model.diffusion_model.": "a diffusion model, which is not run here",
}


def without_prefix(records: Mapping[str, Any]) -> dict[str, Any]:
    """Names without the "module." that torch.nn.DataParallel puts before every one.

    They need not have been looked at: a key of a pickled dict may be a number.
    """
    if all(type(name) is str and name.startswith(_PARALLEL) for name in records):
        return {name.removeprefix(_PARALLEL): record for name, record in records.items()}
    return dict(records)


def identify(source: Source, records: Records) -> Layout:
    """Tell a network by its tensor names.

    Raises:
        CheckpointError: the network is not known here.
    """
    for known in (vgg, lins, _fan, arcface, s3fd, resnet, image_to_latent):
        layout = known(source, records)
        if layout is not None:
            return layout
    for sign, what in _FOREIGN.items():
        if any(name.startswith(sign) for name in records):
            source.fail(f"is {what}")
    first = ", ".join(shown(name, 40) for name in list(records)[:3])
    source.fail(
        f"holds {len(records)} tensors of a network that is not known here; the first are: "
        f"{first or 'none'}"
    )


def take(source: Source, records: Records, layout: Layout, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a layout by our names, after names, shapes and dtypes were compared.

    Args:
        source: the file.
        records: name in the file -> tensor.
        layout: what they are.
        prefix: put before names in messages.

    Raises:
        CheckpointError: a tensor is missing, unexpected, of a wrong shape or no floating-point one,
            or not finite.
    """
    expected = expected_tensors(layout.kind, layout.config)
    names = {own: layout.foreign(own) for own in expected}
    # Batch normalisation counts its batches since torch 0.4.1; older files have no counters.
    absent = {own for own, name in names.items() if own.endswith(_COUNTER) and name not in records}
    used = {name: r for name, r in records.items() if not name.startswith(layout.unused)}
    shapes = {names[own]: shape for own, shape in expected.items() if own not in absent}
    found = take_exactly(source, used, shapes, prefix)
    counter = torch.zeros((), dtype=torch.int64)
    return {own: counter.clone() if own in absent else found[names[own]] for own in expected}


def take_exactly(
    source: Source, records: Records, shapes: Shapes, prefix: str = ""
) -> dict[str, Tensor]:
    """Tensors under the file's own names, which must be those of `shapes`.

    Raises:
        CheckpointError: as `take`.
    """
    check_shapes(source, shapes, {name: tuple(r.shape) for name, r in records.items()}, prefix)
    for name, record in records.items():
        if not name.endswith(_COUNTER):
            check_floating(source, prefix + name, record.dtype)
    return materialise(source, {name: records[name] for name in shapes}, prefix)


# Recognisers: a layout, or None for another network's names


def _fan(source: Source, records: Records) -> Layout | None:
    """face_alignment's FAN: as many stacks as it has heads l0, l1, ..."""
    if not {"conv1.weight", "l0.weight", "m0.b1_1.bn1.weight"} <= records.keys():
        return None
    stacks = 0
    while f"l{stacks}.weight" in records:
        stacks += 1
    head = records["l0.weight"].shape
    if stacks > 8 or len(head) != 4 or not 1 <= head[0] <= 10_000 or not 8 <= head[1] <= 1024:
        source.fail(f"a FAN with {stacks} stacks and a head of shape {list(head)}", "l0.weight")
    depth = 1
    while f"m0.b1_{depth + 1}.bn1.weight" in records:
        depth += 1
    if depth > 6:
        source.fail(f"a FAN with hourglasses of depth {depth}")
    config = {
        "num_stacks": stacks,
        "width": head[1],
        "depth": depth,
        "num_landmarks": head[0],
        "input_size": 256,
        "stem": "fan",
    }
    return Layout("fan", config)
