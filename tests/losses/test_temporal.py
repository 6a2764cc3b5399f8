"""Terms between frames: by hand, in parts as in one piece, and their gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyfacelat.faces.landmarks import points_to_heatmaps
from pyfacelat.losses import temporal

Term = Callable[[Tensor, Tensor, Tensor], Tensor]
TERMS = (temporal.smoothness, temporal.acceleration)


def test_l8_smoothness_by_hand() -> None:
    """L8: sum sqrt((w_before - w)^2 + 1e-6); the first frame has none before it."""
    ws = torch.tensor([[[0.0, 3.0]], [[4.0, 3.0]], [[4.0, 2.0]]], dtype=torch.float64)
    none = ws[:0]
    found = temporal.smoothness(ws, none, none)
    tiny = 1e-3
    expected = torch.tensor([0.0, 4.0 + tiny, 1.0 + tiny], dtype=torch.float64)
    assert torch.allclose(found, expected, atol=1e-6)
    alone = temporal.smoothness(ws[1:2], ws[:1], none)
    assert torch.equal(alone, found[1:2])


def test_acceleration_by_hand() -> None:
    steady = torch.arange(5.0)[:, None, None].expand(5, 2, 3)
    none = steady[:0]
    assert torch.equal(temporal.acceleration(steady, none, none), torch.zeros(5))
    bent = torch.tensor([0.0, 0.0, 1.0, 3.0])[:, None, None]  # second differences 1 and 1
    assert temporal.acceleration(bent, none[:, :1, :1], none[:, :1, :1]).tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("term", TERMS)
def test_parts_feel_their_neighbours(term: Term) -> None:
    """The gradient of a part with fixed neighbours is that of the whole clip."""
    track = torch.randn(7, 3, 4, dtype=torch.float64)
    whole = track.clone().requires_grad_()
    none = track[:0]
    (expected,) = torch.autograd.grad(term(whole, none, none).sum(), whole)
    part = track[2:5].clone().requires_grad_()
    (found,) = torch.autograd.grad(term(part, track[:2], track[5:]).sum(), part)
    assert torch.allclose(found, expected[2:5])


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("before, after", [(0, 0), (1, 0), (2, 2), (0, 1)])
def test_one_value_a_frame_and_true_gradients(term: Term, before: int, after: int) -> None:
    track = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    around = torch.randn(4, 2, 3, dtype=torch.float64)
    assert term(track, around[:before], around[:after]).shape == (4,)
    assert torch.autograd.gradcheck(lambda x: term(x, around[:before], around[:after]), track)
    one = term(track[:1], around[:before], around[:after])
    assert one.shape == (1,) and bool(torch.isfinite(one).all())


def test_jitter_ignores_offset_and_wanted_motion() -> None:
    rng = torch.Generator().manual_seed(0)
    track = 0.3 + 0.4 * torch.rand(1, 68, 2, generator=rng).repeat(5, 1, 1)
    track += 0.01 * torch.arange(5.0)[:, None, None].square() / 16
    weights = torch.ones(68)
    offset = points_to_heatmaps(track + 0.02, (32, 32), sigma=1.5)
    assert float(temporal.jitter(offset, track, weights).max()) < 0.02
    shaken = track.clone()
    shaken[2, :, 0] += 1 / 32  # one cell, in one frame: second differences 1, -2, 1
    maps = points_to_heatmaps(shaken, (32, 32), sigma=1.5)
    found = temporal.jitter(maps, track, weights)
    assert torch.allclose(found, torch.tensor([0.0, 1.0, 4.0, 1.0, 0.0]), atol=0.15)
    one = torch.zeros(68)
    one[3] = 1.0
    shaken = track.clone()
    shaken[2, 4:] += 0.1
    maps = points_to_heatmaps(shaken, (32, 32), sigma=1.5)
    assert float(temporal.jitter(maps, track, one).max()) < 0.05  # what has no weight


def test_jitter_has_a_finite_gradient() -> None:
    maps = torch.rand(4, 68, 16, 16, dtype=torch.float64, requires_grad=True)
    target = torch.rand(4, 68, 2)
    temporal.jitter(maps, target, torch.ones(68)).sum().backward()
    assert maps.grad is not None
    assert bool(torch.isfinite(maps.grad).all()) and float(maps.grad.abs().max()) > 0
    assert temporal.jitter(maps[:1], target[:1], torch.ones(68)).tolist() == [0]
