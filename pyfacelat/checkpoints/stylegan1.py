"""StyleGAN (2019) in the layouts in which its weights are shared.

- "official": the variables of NVIDIA's pickles, from which the others were made: HWIO, [in, out].
- "lernapparat" (Thomas Viehmann's port, used by FaceSpace): g_mapping.dense0.weight,
  g_synthesis.blocks.8x8.conv0_up.weight, ... No maps of noise and no average of w.
- "genforce" (InterFaceGAN): mapping.dense0.linear.weight, synthesis.layer2.conv.weight, ...
  with noise, average, and the toRGB of every level of detail, of which the last counts.

All hold the same numbers. What differs from our form of the network: kernels of layers that NVIDIA
fuses with the doubling, from 128 pixels on, are turned by 180 degrees (and HWIO at genforce), and
biases of the mapping are larger by sqrt(2), since its gain comes before the activation there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .checkpoint import Checkpoint, check_floating, check_shapes, materialise
from .drawn import NOISE_NOTE, drawn_noise
from .filters import stored_filters
from .names import expected_tensors
from .source import Source
from .storages import TensorRecord
from .stylegan1_layouts import LAYOUTS

__all__ = ["read_stylegan1", "stylegan1_layout"]

_KIND = "stylegan1-generator"


def stylegan1_layout(records: Mapping[str, Any]) -> str | None:
    """Which of the layouts a state dict has, by name; None for other networks."""
    return next((name for name, layout in LAYOUTS.items() if layout.sign in records), None)


def read_stylegan1(
    source: Source, records: dict[str, TensorRecord], part: str, form: str
) -> Checkpoint:
    """Read a generator.

    Maps of noise that are not in the file are drawn from a fixed seed, as the code that goes with
    such files draws them at random.

    Args:
        source: the file.
        records: its state dict, for which `stylegan1_layout` is not None.
        part: must be "generator".
        form: the container, for the metadata.

    Raises:
        CheckpointError: another part, or tensors that are not those of a StyleGAN generator.
    """
    layout = stylegan1_layout(records)
    assert layout is not None
    if part != "generator":
        source.fail(f"holds a StyleGAN generator, and no {part}")
    records = dict(records)
    reader = LAYOUTS[layout](source, records)
    config = reader.config()
    rules = reader.rules(expected_tensors(_KIND, config), config)
    reader.drop(config)
    notes = {"format": form, "producer": reader.producer}
    expected = {rule.name: rule.shape for rule in rules.values()}
    check_shapes(source, expected, {name: record.size for name, record in records.items()})
    for name, record in records.items():
        check_floating(source, name, record.dtype)
    read = materialise(source, records)
    tensors = {ours: rule.make(read[rule.name]).contiguous() for ours, rule in rules.items()}
    tensors |= stored_filters(_KIND, config)
    missing = {n: s for n, s in expected_tensors(_KIND, config).items() if n not in tensors}
    if missing:  # maps of noise; everything else has a rule
        notes["noise"] = NOISE_NOTE
        tensors |= drawn_noise(source, missing)
    return Checkpoint(_KIND, config, tensors, notes, source.name)
