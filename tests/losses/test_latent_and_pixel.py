"""Latent and pixel terms, and the weighted sum."""

from __future__ import annotations

import torch

from pyfacelat.losses.latent import prior, pull
from pyfacelat.losses.objective import Candidate, Objective
from pyfacelat.losses.pixel import pixel_distance, thumbnail


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
