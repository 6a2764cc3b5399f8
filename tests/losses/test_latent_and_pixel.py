"""Latent and pixel terms, and the weighted sum."""

from __future__ import annotations

import pytest
import torch

from pyfacelat.losses import latent as latent_terms
from pyfacelat.losses.colour import colour_distance, colour_slices
from pyfacelat.losses.latent import prior, pull
from pyfacelat.losses.objective import Candidate, Objective
from pyfacelat.losses.pixel import pixel_distance, thumbnail


def test_spread_is_zero_in_w_and_the_variance_of_the_rows_else() -> None:
    same = torch.randn(2, 1, 5).expand(2, 4, 5)
    assert latent_terms.spread(same).abs().max() < 1e-12
    assert latent_terms.spread(torch.tensor([[[0.0], [2.0]]])).tolist() == [1.0]


class TestColour:
    def images(self, seed: int) -> torch.Tensor:
        rng = torch.Generator().manual_seed(seed)
        return torch.rand(2, 3, 32, 32, generator=rng, dtype=torch.float64) * 2 - 1

    def test_places_do_not_count(self) -> None:
        images = self.images(0)
        order = torch.randperm(1024, generator=torch.Generator().manual_seed(1))
        moved = images.flatten(2)[..., order].reshape(images.shape)
        slices = colour_slices(images)
        assert slices.shape == (2, 13, 1024)
        assert colour_distance(slices, colour_slices(moved)).abs().max() < 1e-20

    def test_shift_by_hand(self) -> None:
        """Adding t to all three channels moves a projection by t times its coordinates' sum."""
        images = self.images(0)
        found = colour_distance(colour_slices(images), colour_slices(images + 0.1))
        # 3 faces: 1; 3 edges: 2 / sqrt 2, and 3 of sum 0; 4 corners: 3 and 1 (three times) / sqrt 3
        squares = 3 * 1 + 3 * 2 + 3 + 3 * (1 / 3)
        torch.testing.assert_close(found, torch.full_like(found, 0.01 * squares / 13))

    def test_gradient(self) -> None:
        target = colour_slices(self.images(1))
        images = self.images(2)[:1].requires_grad_()
        colour_distance(colour_slices(images), target[:1]).sum().backward()
        assert images.grad is not None
        # Along the gradient: the order of the pixels changes in places, a kink that costs little.
        length = images.grad.norm()
        with torch.no_grad():
            step = 1e-5 * images.grad / length
            above, below = (
                colour_distance(colour_slices(images + sign * step), target[:1]) for sign in (1, -1)
            )
        assert float((above - below) / 2e-5) == pytest.approx(float(length), rel=1e-3)


def test_prior_and_pull() -> None:
    v = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]])
    assert prior(v).tolist() == [2.5, 0.0]
    assert pull(v, torch.ones(2, 1, 2)).tolist() == [0.5, 1.0]


def test_pixel() -> None:
    images = torch.zeros(2, 3, 32, 32)
    images[1] = 0.5
    assert pixel_distance(thumbnail(images), thumbnail(torch.zeros(2, 3, 32, 32))).tolist() == [
        0,
        0.25,
    ]


def test_objective_sums_what_is_on() -> None:
    calls: list[str] = []

    def term(name: str, value: float):
        def run(candidate: Candidate) -> torch.Tensor:
            calls.append(name)
            return candidate.images.new_full((2,), value)

        return run

    objective = Objective(
        {"a": term("a", 1.0), "b": term("b", 10.0), "c": term("c", 5.0)},
        {"a": 2.0, "b": 0.5, "c": 0.0},
    )
    total, terms = objective(Candidate(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 1), {}))
    assert total.tolist() == [7.0, 7.0]
    assert terms.tolist() == [[1.0, 1.0], [10.0, 10.0]]
    assert calls == ["a", "b"]
