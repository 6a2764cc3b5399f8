"""The noise regulariser and the renormalisation."""

from __future__ import annotations

import pytest
import torch

from pyfacelat.losses.noise import noise_regulariser, renormalise_


@pytest.mark.parametrize("side, levels", [(4, 1), (8, 1), (16, 2), (64, 4)])
def test_s6_constant_map_gives_two_per_level(side: int, levels: int) -> None:
    """S6."""
    assert noise_regulariser([torch.ones(2, side, side)]).tolist() == [2.0 * levels] * 2


def test_s6_white_noise_is_nearly_zero() -> None:
    """S6."""
    white = torch.randn(1, 256, 256, generator=torch.Generator().manual_seed(0))
    assert noise_regulariser([white]) < 1e-2


def test_checkerboard_by_hand() -> None:
    """Neighbours differ in sign at the finest level; the 2x2 means of the next are zero."""
    board = torch.ones(1, 16, 16)
    board[:, ::2, 1::2] = board[:, 1::2, ::2] = -1
    assert noise_regulariser([board]).tolist() == [2.0]


def test_s6_three_levels_against_plain_loops() -> None:
    noise = torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected, level = 0.0, noise[0]
    while True:
        n = len(level)
        x = sum(level[i, j] * level[i, j - 1] for i in range(n) for j in range(n)) / n**2
        y = sum(level[i, j] * level[i - 1, j] for i in range(n) for j in range(n)) / n**2
        expected += float(x**2 + y**2)
        if n <= 8:
            break
        level = level.reshape(n // 2, 2, n // 2, 2).mean((1, 3))
    assert float(noise_regulariser([noise])) == pytest.approx(expected, rel=1e-10)


def test_s6_gradient() -> None:
    noise = torch.randn(2, 16, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda n: noise_regulariser([n]), (noise,))


def test_per_image_and_sum_over_maps() -> None:
    a, b = torch.randn(2, 8, 8), torch.randn(2, 16, 16)
    both = noise_regulariser([a, b])
    torch.testing.assert_close(both, noise_regulariser([a]) + noise_regulariser([b]))
    torch.testing.assert_close(both[:1], noise_regulariser([a[:1], b[:1]]))
    with pytest.raises(ValueError, match="at least one"):
        noise_regulariser([])


def test_s7_renormalise() -> None:
    """S7."""
    noise = 3 + 2 * torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(2))
    renormalise_([noise])
    assert noise.mean((1, 2)).abs().max() < 1e-6
    assert (noise.square().mean((1, 2)).sqrt() - 1).abs().max() < 1e-5
