"""Similarities between faces, and regions of the picture by landmarks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pyfacelat import procface
from pyfacelat.faces.regions import face_region, landmark_region
from pyfacelat.faces.transfer import STABLE, apply_similarity, fit_similarity, keep_pose

from . import scenes


def points() -> Tensor:
    return torch.from_numpy(scenes.face(256)[1] / 256)[None]


def moved(p: Tensor, degrees: float, scale: float, shift: tuple[float, float]) -> Tensor:
    return torch.from_numpy(scenes.apply(scenes.similarity(degrees, scale, shift), p[0].numpy()))[
        None
    ]


def test_a_known_similarity_is_recovered() -> None:
    source = points()
    target = moved(source, 25, 1.3, (0.2, -0.4))
    matrix = fit_similarity(source, target)
    assert np.allclose(matrix[0], scenes.similarity(25, 1.3, (0.2, -0.4)))
    torch.testing.assert_close(apply_similarity(matrix, source), target)


def test_least_squares_with_weights() -> None:
    """No other similarity near it is better; a point of weight 0 does not matter."""
    rng = torch.Generator().manual_seed(0)
    source = points()
    target = moved(source, -10, 0.9, (0, 0)) + 0.05 * torch.randn(1, 68, 2, generator=rng)
    weights = torch.rand(68, generator=rng, dtype=torch.float64)
    weights[5] = 0
    matrix = fit_similarity(source, target, weights)

    def cost(m: Tensor) -> float:
        return float((weights * (apply_similarity(m, source) - target).square().sum(-1)).sum())

    best = cost(matrix)
    for _ in range(20):
        a, b, x, y = 1e-3 * torch.randn(4, generator=rng, dtype=torch.float64)
        nearby = matrix + torch.stack([torch.stack([a, -b, x]), torch.stack([b, a, y])])
        assert cost(nearby) > best
    target[0, 5] += 9
    torch.testing.assert_close(fit_similarity(source, target, weights), matrix)


def test_coinciding_points_give_a_shift() -> None:
    source = torch.zeros(1, 68, 2)
    target = torch.full((1, 68, 2), 3.0)
    assert torch.equal(apply_similarity(fit_similarity(source, target), source), target)


def test_pose_stays_and_expression_comes() -> None:
    """The same head, mouth opened, and then tilted, shrunk and shifted: only the mouth arrives."""
    base = procface.default()
    faces = np.concatenate([base, base])
    faces[1:] = procface.with_values(base, jaw_open=0.8)
    shown = procface.render(faces, 64, outputs=("landmarks",))["landmarks"] / 64
    look = torch.from_numpy(shown[:1].astype(np.float64))
    other = torch.from_numpy(shown[1:].astype(np.float64))
    # FFHQ's frame follows the mouth; put both heads on one place first.
    still = keep_pose(other, look)
    for degrees, scale, shift in ((0, 1.0, (0.1, 0)), (30, 0.6, (0.3, 0.2))):
        torch.testing.assert_close(keep_pose(moved(other, degrees, scale, shift), look), still)
    change = (still - look).norm(dim=-1)[0]
    lips = change[[57, 58, 56, 66, 65, 67]]  # the lower lip
    assert change[list(STABLE)].max() < 0.25 * lips.min()


class TestRegions:
    def test_face(self) -> None:
        p = points()
        region = face_region(p, 64)
        assert region.shape == (1, 1, 64, 64)
        assert region.min() == 0 and region.max() == 1
        inner = (p[0, 17:] * 64).long()
        assert (region[0, 0, inner[:, 1], inner[:, 0]] > 0.9).all()
        assert region[0, 0, :, 0].max() == 0 and region[0, 0, -1].max() == 0
        brow, above = (int(64 * float(p[0, 19, 1] - up)) for up in (0.0, 0.06))
        assert above < brow and region[0, 0, above, 32] == 1
        wider = face_region(p, 64, margin=0.05)
        assert (wider >= region).all() and wider.sum() > 1.1 * region.sum()

    def test_landmarks(self) -> None:
        p = points()
        region = landmark_region(p, 64, margin=0.03)[0, 0]
        y, x = torch.meshgrid(*[(torch.arange(64) + 0.5) / 64] * 2, indexing="ij")
        nearest = (torch.stack([x, y], -1)[:, :, None] - p[0]).norm(dim=-1).amin(-1)
        assert (region[nearest < 0.015] > 0.5).all()
        eye = (p[0, 36:42].mean(0) * 64).long()
        cheek = ((p[0, 2] + p[0, 31]) / 2 * 64).long()
        assert region[eye[1], eye[0]] == 1 and region[cheek[1], cheek[0]] == 0
        assert 0.05 < region.mean() < 0.5

    @pytest.mark.parametrize("region", [face_region, landmark_region])
    def test_per_image(self, region) -> None:
        both = torch.cat([points(), points() * 0.5])
        assert torch.equal(region(both, 32)[1:], region(both[1:], 32))
