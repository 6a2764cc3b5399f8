"""The kernels of noise_reg and noise_update; test_interpreted.py runs this file."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyfacelat.ops import pack_maps
from pyfacelat.ops._library import kernels
from pyfacelat.ops.noise_reg import reference, update_reference
from tests.tolerances import assert_close

NOISE_REG, NOISE_UPDATE = kernels("noise_reg"), kernels("noise_update")
BETAS = (0.9, 0.999, 1e-8)

SIZES = [
    [(4, 4)],
    [(8, 8), (9, 9)],
    [(33, 35), (16, 16), (1, 1), (7, 3)],
    [(67, 131), (64, 64)],
]


def maps_of(sizes: list[tuple[int, int]], count: int, dtype: torch.dtype) -> list[Tensor]:
    rng = torch.Generator().manual_seed(count)
    return [torch.randn(count, *s, generator=rng, dtype=torch.float64).to(dtype) for s in sizes]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_value_and_gradient(sizes: list[tuple[int, int]], dtype: torch.dtype) -> None:
    for count in (0, 1, 3):
        maps = maps_of(sizes, count, dtype)
        found, base = NOISE_REG.noise_reg(maps), reference(maps)
        truth = reference([m.double() for m in maps])
        for name, a, b, c in zip(("value", "gradient"), found, base, truth, strict=True):
            assert_close(a, b, c, f"{sizes} {count} {dtype} {name}")


def test_pyramids_deeper_than_a_launch_and_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in dict(TILE=16, DEPTH=2, BLOCK=512, QUADS=256, CHUNK=2).items():
        monkeypatch.setattr(NOISE_REG, name, value)
    NOISE_REG._plan.cache_clear()
    maps = maps_of([(74, 37), (9, 12)], 1, torch.float64)
    for found, expected in zip(NOISE_REG.noise_reg(maps), reference(maps), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    NOISE_REG._plan.cache_clear()


def test_packed_maps_are_taken_as_they_are() -> None:
    maps = maps_of([(16, 16), (5, 7)], 2, torch.float64)
    packed, _, views = pack_maps(maps)
    assert NOISE_REG.packed(views).data_ptr() == packed.data_ptr()
    assert torch.equal(NOISE_REG.packed(maps), packed)
    one = [v[1:] for v in views]
    assert NOISE_REG.packed(one).data_ptr() == packed[1:].data_ptr()
    assert torch.equal(
        NOISE_REG.packed(views[::-1]), torch.cat([packed[:, 256:], packed[:, :256]], 1)
    )
    for a, b in zip(NOISE_REG.noise_reg(views), NOISE_REG.noise_reg(maps), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("regular", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_update(dtype: torch.dtype, regular: bool) -> None:
    rates = torch.tensor([0.1, 0.3, 0.4, 2.0], dtype=dtype)
    for count in (0, 1, 3):
        maps = maps_of([(4, 4), (65, 67), (91, 100)], count, dtype)
        packed, sizes, _ = pack_maps([m + 3 for m in maps])
        first, second, extra = (torch.randn_like(packed) for _ in range(3))
        # A second moment near zero would magnify rounding.
        start = [packed, first, second.square() + 0.1]
        rest = (maps, rates, sizes, extra if regular else None)
        found, base = ([t.clone() for t in start] for _ in range(2))
        NOISE_UPDATE.noise_update(*found, *rest, *BETAS)
        update_reference(*base, *rest, *BETAS)
        exact = [t.double() for t in start]
        wide = ([m.double() for m in maps], rates.double(), sizes, extra.double())
        update_reference(*exact, *wide[:3], wide[3] if regular else None, *BETAS)
        for name, a, b, c in zip("xmv", found, base, exact, strict=True):
            assert_close(a, b, c, f"{count} {dtype} {name}")


def test_update_without_sizes_is_adam() -> None:
    x = torch.randn(2, 3, 1500, dtype=torch.float64)
    flat = x.reshape(2, -1)
    state = [flat.clone(), torch.zeros_like(flat), torch.zeros_like(flat)]
    rates = torch.tensor([0.1, 0.1, 0.001**0.5, 0.0], dtype=torch.float64)
    gradient = torch.randn_like(x)
    NOISE_UPDATE.noise_update(*state, [gradient], rates, [], None, *BETAS)
    leaf = x.clone().requires_grad_()
    leaf.grad = gradient
    torch.optim.Adam([leaf], lr=0.1).step()
    torch.testing.assert_close(state[0].reshape(x.shape), leaf.detach(), rtol=1e-12, atol=1e-12)
