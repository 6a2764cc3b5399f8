from __future__ import annotations

import pytest
import torch

from pyfacelat.training.muon import Muon, orthogonalize


@pytest.mark.parametrize("shape", [(24, 60), (60, 24), (3, 16, 40)])
def test_singular_values_come_near_one(shape):
    torch.manual_seed(0)
    out = orthogonalize(torch.randn(shape, dtype=torch.float64), steps=5)
    values = torch.linalg.svdvals(out)
    assert values.min() > 0.6 and values.max() < 1.3


def test_singular_vectors_stay():
    torch.manual_seed(0)
    m = torch.randn(8, 20, dtype=torch.float64)
    u, _, vt = torch.linalg.svd(m, full_matrices=False)
    middle = u.t() @ orthogonalize(m, steps=4) @ vt.t()
    assert (middle - middle.diag().diag()).abs().max() < 1e-10


def test_matches_the_iteration_written_plainly():
    torch.manual_seed(0)
    m = torch.randn(12, 30, dtype=torch.float64)
    x = m / m.norm()
    for _ in range(4):
        gram = x @ x.t()
        x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
    torch.testing.assert_close(orthogonalize(m, steps=4), x)
    torch.testing.assert_close(orthogonalize(m.t(), steps=4), x.t())


def test_zero_stays_zero():
    assert not orthogonalize(torch.zeros(4, 9)).any()


def test_step_has_the_size_of_the_learning_rate():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(96, 96, 3, 3))
    weight.grad = torch.randn_like(weight)
    Muon([weight], [], lr=0.01).step()
    assert weight.detach().square().mean().sqrt().item() == pytest.approx(0.01, rel=0.2)


def test_rest_is_adam():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(5)) for _ in range(2))
    muon = Muon([], [ours], adam_lr=3e-3)
    adam = torch.optim.Adam([theirs], lr=3e-3, betas=(0.9, 0.99))
    for _ in range(4):
        ours.grad = theirs.grad = torch.randn(5)
        muon.step()
        adam.step()
    torch.testing.assert_close(ours, theirs)


def test_scale_multiplies_both_rates():
    moved = []
    for scale in (1.0, 0.5):
        matrix, vector = torch.nn.Parameter(torch.zeros(4, 6)), torch.nn.Parameter(torch.zeros(3))
        matrix.grad = torch.arange(24.0).reshape(4, 6).sin()
        vector.grad = torch.ones(3)
        optimizer = Muon([matrix], [vector])
        optimizer.scale = scale
        optimizer.step()
        moved.append((matrix.detach(), vector.detach()))
    torch.testing.assert_close(moved[1][0], moved[0][0] / 2)
    torch.testing.assert_close(moved[1][1], moved[0][1] / 2)


def test_vectors_are_no_matrices():
    with pytest.raises(ValueError, match="two or more dimensions, got a parameter of \\[7\\]"):
        Muon([torch.nn.Parameter(torch.zeros(7))], [])
