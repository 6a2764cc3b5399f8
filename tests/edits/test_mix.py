"""Mixing and the published transfers (I7, I8, I9)."""

from __future__ import annotations

import pytest
import torch

from pyfacelat.edits.mix import RECIPES, expression_transfer, find_recipe, mix, style_transfer
from pyfacelat.errors import ConfigError


def latents(count: int = 1, rows: int = 18, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, rows, 32, generator=torch.Generator().manual_seed(seed))


def test_i7_psi_is_the_share_of_the_original() -> None:
    a, b = latents(3), latents(3, seed=1)
    assert torch.equal(mix(a, b, [4, 6], psi=1), a)
    taken = mix(a, b, [4, 6], psi=0)
    assert torch.equal(taken[:, [4, 6]], b[:, [4, 6]])
    others = [i for i in range(18) if i not in (4, 6)]
    assert torch.equal(taken[:, others], a[:, others])
    part = mix(a, b, [4, 6], psi=0.3)
    assert torch.equal(part[:, others], a[:, others])
    expected = b + 0.3 * (a - b)
    torch.testing.assert_close(part[:, [4, 6]], expected[:, [4, 6]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("psi", [-0.5, 1.5])
def test_psi_extrapolates(psi: float) -> None:
    a, b = latents(), latents(seed=1)
    expected = b + psi * (a - b)
    torch.testing.assert_close(mix(a, b, "all", psi=psi), expected, rtol=0, atol=1e-5)


def test_inputs_are_left_alone_and_broadcast() -> None:
    a, b = latents(2), latents(3, seed=1)
    kept = a.clone(), b.clone()
    table = mix(a[:, None], b[None], "fine", psi=0.25)
    assert table.shape == (2, 3, 18, 32)
    for i in range(2):
        for k in range(3):
            assert torch.equal(table[i, k], mix(a[i], b[k], "fine", psi=0.25))
    assert torch.equal(a, kept[0]) and torch.equal(b, kept[1])


@pytest.mark.parametrize("rows", [18, 12, 10])
def test_i8_style_transfer(rows: int) -> None:
    a, b = latents(rows=rows), latents(rows=rows, seed=1)
    start = {18: 8, 12: 5, 10: 4}[rows]
    out = style_transfer(a, b)
    assert torch.equal(out[:, :start], a[:, :start]) and torch.equal(out[:, start:], b[:, start:])
    assert torch.equal(out, mix(a, b, slice(8, 18), of=18))
    assert torch.equal(out, mix(a, b, list(range(start, rows))))


@pytest.mark.parametrize("rows", [18, 12, 10])
def test_i9_expression_transfer(rows: int) -> None:
    a, b = latents(rows=rows), latents(rows=rows, seed=1)
    start, stop = {18: (3, 10), 12: (2, 7), 10: (2, 6)}[rows]
    out = expression_transfer(a, b)
    assert torch.equal(out[:, :start], a[:, :start]) and torch.equal(out[:, stop:], a[:, stop:])
    middle = (a + b)[:, start:stop] / 2
    torch.testing.assert_close(out[:, start:stop], middle, rtol=0, atol=1e-6)


def test_refusals() -> None:
    a = latents()
    with pytest.raises(ConfigError, match="psi: expected a finite number"):
        mix(a, a, "all", psi=float("nan"))
    with pytest.raises(ConfigError, match=r"donor: .*\[1, 10, 32\]"):
        mix(a, latents(rows=10), "all")
    with pytest.raises(ConfigError, match="broadcast"):
        mix(latents(2), latents(3), "all")
    with pytest.raises(ConfigError, match="did you mean 'style'"):
        find_recipe("styl")
    assert set(RECIPES) == {"style", "expression"}
