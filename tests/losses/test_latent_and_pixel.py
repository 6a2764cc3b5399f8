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


CANDIDATE = Candidate(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 1), torch.zeros(2, 4, 1), {})


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
    total, terms, final = objective(CANDIDATE)
    assert total.tolist() == final.tolist() == [7.0, 7.0]
    assert terms.tolist() == [[1.0, 1.0], [10.0, 10.0]]
    assert calls == ["a", "b"]


def test_weights_that_move() -> None:
    objective = Objective(
        {"a": lambda c: torch.tensor([1.0, 2.0]), "b": lambda c: torch.tensor([10.0, 20.0])},
        {"a": 1.0, "b": 0.0},
        {"a": 0.5, "b": 1.0},
    )
    assert objective.names == ("a", "b")
    for progress, expected in ((0.0, [1.0, 2.0]), (0.5, [5.75, 11.5]), (1.0, [10.5, 21.0])):
        total, terms, final = objective(CANDIDATE, torch.tensor([progress]))
        assert total.tolist() == expected
        assert terms.tolist() == [[1.0, 2.0], [10.0, 20.0]]
        assert final.tolist() == [10.5, 21.0]


def test_fidelity_by_hand() -> None:
    """sum sqrt((mean - w)^2 + 1e-6), as the published code for video."""
    ws = torch.randn(3, 4, 5, dtype=torch.float64)
    mean = torch.randn(5, dtype=torch.float64)
    expected = [
        sum(((mean[d] - ws[n, k, d]) ** 2 + 1e-6) ** 0.5 for k in range(4) for d in range(5))
        for n in range(3)
    ]
    torch.testing.assert_close(latent_terms.fidelity(ws, mean), torch.stack(expected))


def test_delta_by_hand() -> None:
    v = torch.zeros(2, 3, 2, dtype=torch.float64)
    v[0, 0], v[0, 1], v[0, 2] = torch.tensor([[1.0, 1.0], [4.0, 5.0], [1.0, -11.0]])
    assert latent_terms.delta(v).tolist() == pytest.approx([5 + 12, 0], abs=3e-4)
    assert latent_terms.delta(v[:, :1]).tolist() == [0, 0]


class TestGaussianised:
    def test_own_latents_have_unit_moments(self) -> None:
        u = torch.randn(4000, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64) + 0.3
        w = torch.nn.functional.leaky_relu(u, 0.2)
        prior = latent_terms.GaussianisedPrior.fit(w)
        assert float(prior(w[:, None]).mean()) == pytest.approx(1.0, abs=1e-6)
        # One whose u is three standard deviations out along one axis of the whitened space.
        out = prior.mean + 3 * torch.linalg.inv(prior.to_white)[0]
        found = prior(torch.nn.functional.leaky_relu(out, 0.2)[None, None])
        assert found.tolist() == pytest.approx([9 / 6])

    def test_directions_without_spread_do_not_blow_up(self) -> None:
        w = torch.randn(200, 3)
        w[:, 2] = 0.25
        prior = latent_terms.GaussianisedPrior.fit(w)
        moved = w[:1, None].clone()
        moved[..., 2] += 0.01
        assert float(prior(moved)) < 1e3


@pytest.mark.parametrize("kind", ["mse", "l1", "log_cosh"])
def test_pixel_kinds(kind: str) -> None:
    a, b = torch.randn(2, 2, 3, 5, 4, dtype=torch.float64)
    function = {"mse": torch.square, "l1": torch.abs, "log_cosh": lambda d: d.cosh().log()}[kind]
    torch.testing.assert_close(pixel_distance(a, b, kind), function(a - b).mean((1, 2, 3)))
    far = pixel_distance(torch.full((1, 3, 2, 2), 500.0), torch.zeros(1, 3, 2, 2), kind)
    assert torch.isfinite(far).all()


LATENT_TERMS = {
    "prior": latent_terms.prior,
    "spread": latent_terms.spread,
    "delta": latent_terms.delta,
    "pull": lambda v: latent_terms.pull(v, torch.ones_like(v[:1])),
    "fidelity": lambda v: latent_terms.fidelity(v, torch.ones_like(v[0, 0])),
    "gaussianised": latent_terms.GaussianisedPrior.fit(
        torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ),
}


@pytest.mark.parametrize("name", LATENT_TERMS)
def test_latent_terms_are_per_image_with_true_gradients(name: str) -> None:
    term = LATENT_TERMS[name]
    v = torch.randn(3, 4, 3, dtype=torch.float64, requires_grad=True)
    alone = torch.cat([term(item[None]) for item in v.detach()])
    assert torch.equal(term(v).detach(), alone)
    assert torch.autograd.gradcheck(term, v)
    same = torch.ones(1, 4, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(term(same).sum(), same)
    assert torch.isfinite(gradient).all()
