"""E5: latent editing consistency."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyfacelat.edits.consistency import editing_consistency, round_trips
from pyfacelat.errors import ConfigError


def same(x: Tensor) -> Tensor:
    return x


def test_e5_identity_encoder_and_generator_give_zero() -> None:
    images = torch.randn(7, 3, 4, 4)
    assert editing_consistency(images, same, same, lambda w: w + 2, lambda w: w - 2) < 1e-6
    # An encoder that loses what the edit did does not come back.
    assert editing_consistency(images, same, torch.round, lambda w: w + 0.3, lambda w: w - 0.3) > 1


def test_distances_by_hand_and_percentiles() -> None:
    """Encoding shifts image i by i in one of its 48 numbers: distances 0, 1, ..., 100."""
    images = torch.zeros(101, 3, 4, 4)
    images[:, 0, 0, 0] = torch.arange(101.0)
    seen = []

    def encode(x: Tensor) -> Tensor:
        seen.append(x)
        out = x.clone()
        if len(seen) % 2 == 0:  # the second look, at the edited faces
            out[:, 1, 0, 0] += x[:, 0, 0, 0]
        return out

    found = round_trips(images, encode, same, same, same)
    assert torch.equal(found, torch.arange(101.0, dtype=torch.float64))
    images[100, 0, 0, 0] = 1e6
    assert editing_consistency(images, encode, same, same, same) == pytest.approx(50.0)
    everything = editing_consistency(images, encode, same, same, same, percentiles=(0, 100))
    assert everything == pytest.approx((4950 + 1e6) / 101)
    assert editing_consistency(images[:2], encode, same, same, same) == pytest.approx(0.5)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="percentiles: expected"):
        editing_consistency(torch.zeros(1, 3, 2, 2), same, same, same, same, percentiles=(9, 9))
    with pytest.raises(ConfigError, match="images: expected at least one"):
        editing_consistency(torch.zeros(0, 3, 2, 2), same, same, same, same)
