"""The heat-map distance and the landmark network's wrapper."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pyfacelat.faces.groups import GROUPS, expand
from pyfacelat.faces.landmarks import points_to_heatmaps
from pyfacelat.losses.landmark import HeatmapDistance, Landmarker

REDUCTIONS = ("l2", "l1", "mse", "per_landmark")


def maps(seed: int, count: int = 3) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(count, 68, 9, 7, generator=rng, dtype=torch.float64)


def weights() -> Tensor:
    return torch.rand(68, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def test_l3_formulas() -> None:
    """L3, written out for one image."""
    a, b, w = maps(0), maps(1), weights()
    d = (a - b)[1]
    column = w[:, None, None]
    expected = {
        "l2": torch.sqrt(torch.sum((column * d) ** 2)),
        "l1": torch.sum(column * d.abs()),
        "mse": torch.mean(column * d**2),
        "per_landmark": sum(w[k] * torch.sqrt((d[k] ** 2).sum() + 1e-8) for k in range(68))
        / w.sum(),
    }
    for name in REDUCTIONS:
        found = HeatmapDistance(w, name)(a, b)
        assert found.shape == (3,)
        torch.testing.assert_close(found[1], expected[name])


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_l3_gradient(reduction: str) -> None:
    a, b = maps(0, 2)[:, :, :3, :3].requires_grad_(), maps(1, 2)[:, :, :3, :3]
    assert torch.autograd.gradcheck(HeatmapDistance(weights(), reduction), (a, b))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_l3_zero_distance_has_a_finite_gradient(reduction: str) -> None:
    """L3: the published code gives NaN."""
    a = maps(0).requires_grad_()
    HeatmapDistance(weights(), reduction)(a, a.detach()).sum().backward()
    assert a.grad is not None and not a.grad.any()


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_l3_zero_weight_ignores_the_group(reduction: str) -> None:
    """L3."""
    distance = HeatmapDistance(expand({"outer_lip": 0.0}).double(), reduction)
    a, b = maps(0), maps(1)
    changed = b.clone()
    changed[:, GROUPS["outer_lip"].start : GROUPS["outer_lip"].stop] += 5.0
    torch.testing.assert_close(distance(a, changed), distance(a, b), rtol=0, atol=1e-12)


def test_points_are_targets_too() -> None:
    points = torch.rand(3, 68, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    a, sure = maps(0), torch.rand(3, 68, dtype=torch.float64)
    for reduction in REDUCTIONS:
        distance = HeatmapDistance(weights(), reduction, sigma=1.5)
        drawn = points_to_heatmaps(points, (9, 7), sigma=1.5)
        torch.testing.assert_close(distance(a, points, sure), distance(a, drawn, sure))


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"expected shape \[68\], got \[9\]"):
        HeatmapDistance(torch.ones(9))
    with pytest.raises(ValueError, match="reduction"):
        HeatmapDistance(torch.ones(68), "l3")


class Recorder(nn.Module):
    """Stands for a landmark network: keeps what it is given."""

    def forward(self, x: Tensor) -> list[Tensor]:
        self.seen = x
        return [x.new_zeros(len(x), 68, 4, 4), x.new_ones(len(x), 68, 4, 4)]


class TestLandmarker:
    def test_last_stack_counts(self) -> None:
        assert (Landmarker(Recorder(), size=8)(torch.zeros(2, 3, 8, 8)) == 1).all()

    def test_input_range(self) -> None:
        net = Recorder()
        Landmarker(net, size=2)(
            torch.tensor([-1.0, 0.0, 1.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
        )
        assert net.seen[0, :, 0, 0].tolist() == [0.0, 0.5, 1.0]

    def test_minmax_is_per_image_and_survives_a_constant_image(self) -> None:
        net = Recorder()
        images = torch.stack([torch.linspace(-0.5, 0.5, 12).reshape(3, 2, 2), torch.zeros(3, 2, 2)])
        Landmarker(net, size=2, normalize="minmax")(images)
        assert net.seen[0].min() == 0.0 and net.seen[0].max() == 1.0
        assert torch.isfinite(net.seen).all()

    @pytest.mark.parametrize("resize", ["area", "nearest"])
    @pytest.mark.parametrize("side", [4, 16])
    def test_resizing(self, resize: str, side: int) -> None:
        net = Recorder()
        Landmarker(net, size=8, resize=resize)(torch.zeros(1, 3, side, side))
        assert net.seen.shape == (1, 3, 8, 8)

    def test_frozen(self) -> None:
        net = nn.Conv2d(3, 68, 1)
        Landmarker(net)
        assert not any(p.requires_grad for p in net.parameters()) and not net.training
