"""dtype="bfloat16": not each step is the same, but what they end with is."""

from __future__ import annotations

import pytest
import torch

import pyfacelat
from pyfacelat.projection.engine import Projector

from .conftest import make_generator

STEPS, FACES = 20, 10


def test_ends_as_well_as_float32() -> None:
    """Ten faces of the sample models that their generator can make, each with its own landmarks."""
    generator = pyfacelat.load_generator("sample")
    z = torch.randn(2 * FACES, generator.z_dim, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        looks, poses = generator(0.7 * z).clamp(-1, 1).split(FACES)
    ends = {}
    for dtype in ("float32", "bfloat16"):
        # Shape "take" ends with steps that all networks have a part in.
        projector = Projector("sample", steps=STEPS, shape="take", dtype=dtype, device="cpu")
        result = projector.project(looks, poses)
        assert result.ws.dtype == torch.float32
        ends[dtype] = result.losses["total"][-1].double()
    assert ends["bfloat16"].mean() == pytest.approx(float(ends["float32"].mean()), rel=0.01)
    # A single face may go another way, as it would from another seed.
    assert ((ends["bfloat16"] / ends["float32"] - 1).abs() < 0.15).all()


def test_needs_a_generator_written_for_it(nets: dict[str, object]) -> None:
    nets["network"] = make_generator(architecture="resnet")
    with pytest.raises(pyfacelat.errors.ConfigError, match="skip architecture"):
        Projector(**nets, dtype="bfloat16", device="cpu")  # type: ignore[arg-type]
