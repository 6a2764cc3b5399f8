"""noise_reg and noise_update against float64, by hand, and against torch.optim.Adam."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from pyfacelat import _extension
from pyfacelat.ops import (
    adam_update_,
    noise_reg,
    noise_reg_with_gradient,
    noise_update_,
    pack_maps,
    unpack_maps,
)
from pyfacelat.ops.noise_reg import reference, update_reference
from tests.tolerances import assert_close, assert_gradient_close

SIZES = [
    [(4, 4)],
    [(8, 8), (9, 9)],
    [(33, 35), (16, 16), (1, 1), (7, 3)],
    [(131, 150), (64, 64)],
]
BETAS = (0.9, 0.999, 1e-8)
DTYPES = (torch.float64, torch.float32)


def maps_of(
    sizes: list[tuple[int, int]], count: int, device: torch.device, dtype: torch.dtype
) -> list[Tensor]:
    rng = torch.Generator().manual_seed(count)
    maps = [torch.randn(count, *s, generator=rng, dtype=torch.float64) for s in sizes]
    return [m.to(device, dtype) for m in maps]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_value_and_gradient_against_float64(
    sizes: list[tuple[int, int]], count: int, device: torch.device
) -> None:
    for dtype in DTYPES:
        maps = maps_of(sizes, count, device, dtype)
        base, truth = reference(maps), reference([m.cpu().double() for m in maps])
        found = noise_reg_with_gradient(maps)
        for name, a, b, c in zip(("value", "gradient"), found, base, truth, strict=True):
            assert_close(a.cpu(), b.cpu(), c, f"{dtype} {name}")
        leaves = [m.clone().requires_grad_() for m in maps]
        by_autograd = torch.autograd.grad(noise_reg(leaves).sum(), leaves)
        both = torch.cat([g.flatten(1) for g in by_autograd], 1)
        assert_gradient_close(both.cpu(), base[1].cpu(), truth[1], f"{dtype} autograd")


def test_the_closed_form_is_the_gradient_of_the_value() -> None:
    """The reference's gradient against autograd through the reference's value."""
    for sizes in SIZES:
        leaves = [m.requires_grad_() for m in maps_of(sizes, 2, torch.device("cpu"), DTYPES[0])]
        value, gradient = reference(leaves)
        expected = torch.autograd.grad(value.sum(), leaves)
        expected = torch.cat([g.flatten(1) for g in expected], 1)
        torch.testing.assert_close(gradient.detach(), expected, rtol=1e-12, atol=1e-15)


def test_opcheck_and_gradcheck() -> None:
    maps = maps_of([(17, 18), (4, 5)], 2, torch.device("cpu"), torch.float64)
    maps = [m.requires_grad_() for m in maps]
    torch.library.opcheck(torch.ops.pyfacelat.noise_reg.default, (maps,))
    assert torch.autograd.gradcheck(lambda *m: noise_reg(m), maps)
    packed, sizes, views = pack_maps(maps)
    state = (packed, torch.randn_like(packed), torch.rand_like(packed))
    rates = torch.tensor([0.1, 0.3, 0.4, 2.0], dtype=packed.dtype)
    arguments = (*state, views, rates, sizes, torch.randn_like(packed), *BETAS)
    torch.library.opcheck(torch.ops.pyfacelat.noise_update.default, arguments)


def test_a_second_derivative_is_refused() -> None:
    leaf = torch.randn(1, 8, 8, requires_grad=True)
    weight = torch.ones(1, requires_grad=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad((noise_reg([leaf]) * weight).sum(), leaf, create_graph=True)


def test_views_strides_and_narrow_types() -> None:
    maps = maps_of([(33, 35), (16, 16)], 3, torch.device("cpu"), torch.float32)
    expected = noise_reg_with_gradient(maps)
    _, _, views = pack_maps(maps)
    gaps = [torch.stack([m, m.neg()], -1)[..., 0] for m in maps]
    for other in (views, gaps, [m.mT.contiguous().mT for m in maps]):
        for a, b in zip(expected, noise_reg_with_gradient(other), strict=True):
            assert torch.equal(a, b)
    half = [m.bfloat16() for m in maps]
    assert torch.equal(noise_reg(half), noise_reg([m.float() for m in half]))


def test_an_item_is_the_same_alone() -> None:
    maps = maps_of([(33, 35), (16, 16)], 3, torch.device("cpu"), torch.float32)
    value, gradient = noise_reg_with_gradient(maps)
    one, alone = noise_reg_with_gradient([m[1:2] for m in maps])
    assert torch.equal(value[1:2], one) and torch.equal(gradient[1:2], alone)


@pytest.mark.parametrize("regular", [False, True])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_update_against_float64(count: int, regular: bool, device: torch.device) -> None:
    for dtype in DTYPES:
        maps = maps_of([(4, 4), (65, 67), (91, 100)], count, device, dtype)
        packed, sizes, _ = pack_maps([m + 3 for m in maps])
        rates = torch.tensor([0.1, 0.3, 0.4, 2.0], device=device, dtype=dtype)
        first, second, extra = (torch.randn_like(packed) for _ in range(3))
        # A second moment near zero would magnify rounding.
        start = [packed, first, second.square() + 0.1]
        found, base = ([t.clone() for t in start] for _ in range(2))
        noise_update_(*found, maps, rates, sizes, regular=extra if regular else None)
        update_reference(*base, maps, rates, sizes, extra if regular else None, *BETAS)
        exact = [t.cpu().double() for t in start]
        wide = extra.cpu().double() if regular else None
        gradients = [m.cpu().double() for m in maps]
        update_reference(*exact, gradients, rates.cpu().double(), sizes, wide, *BETAS)
        for name, a, b, c in zip("xmv", found, base, exact, strict=True):
            assert_close(a.cpu(), b.cpu(), c, f"{dtype} {name}")
        for noise in unpack_maps(found[0], sizes) if count else []:
            assert noise.mean((1, 2)).abs().max() < 1e-5
            assert (noise.square().mean((1, 2)) - 1).abs().max() < 1e-5


def test_a_large_mean_does_not_cancel() -> None:
    """Mean 1e4, deviation 1, float32: what is merged are the blocks' means and spreads."""
    maps = [1e4 + torch.randn(1, 128, 128)]
    packed, sizes, _ = pack_maps(maps)
    truth = packed.double() - packed.double().mean()
    truth /= truth.square().mean().sqrt()
    state = [packed, torch.zeros_like(packed), torch.zeros_like(packed)]
    noise_update_(*state, [torch.zeros(1, 128, 128)], torch.tensor([0.0, 1.0, 1.0, 0.0]), sizes)
    assert (state[0] - truth).abs().max() < 2e-3  # a rounding step at 1e4 is 1e-3


def test_adam_is_torchs() -> None:
    x = torch.randn(2, 14, 32, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    optimizer = torch.optim.Adam([leaf], lr=0.1)
    first, second = torch.zeros_like(x), torch.zeros_like(x)
    for k in range(1, 4):
        gradient = torch.randn_like(x)
        leaf.grad = gradient.clone()
        optimizer.step()
        rates = torch.tensor([0.1, 1 - 0.9**k, (1 - 0.999**k) ** 0.5, 0.0], dtype=x.dtype)
        adam_update_(x, first, second, gradient, rates)
    torch.testing.assert_close(x, leaf.detach(), rtol=1e-12, atol=1e-12)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_every_split_over_threads_gives_the_same_bits(threads: None) -> None:
    maps = maps_of([(256, 300), (64, 64), (4, 4)], 2, torch.device("cpu"), torch.float32)
    packed, sizes, _ = pack_maps(maps)
    rates = torch.tensor([0.1, 0.3, 0.4, 2.0])
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        value, gradient = noise_reg_with_gradient(maps)
        state = [packed.clone(), torch.zeros_like(packed), torch.zeros_like(packed)]
        noise_update_(*state, maps, rates, sizes, regular=gradient)
        results.append((value, gradient, *state))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_wrong_arguments_are_named() -> None:
    m, packed = torch.zeros(1, 4, 4), torch.zeros(1, 16)
    for maps, message in [
        ([], "maps: expected at least one"),
        ([m[0]], r"maps\[0\]: .*shape \[4, H, W\]"),
        ([m, m.double()], r"maps\[1\]: expected the dtype"),
        ([m, torch.zeros(2, 4, 4)], r"maps\[1\]: .*\[1, H, W\]"),
        ([torch.zeros(1, 64, 3)], r"maps\[0\]: .*no empty level"),
    ]:
        with pytest.raises(ValueError, match=message):
            noise_reg(maps)
    rates = torch.zeros(4)
    state = dict(packed=packed, first=packed, second=packed)
    good = dict(**state, gradients=[m], rates=rates, sizes=[4, 4])
    for wrong, message in [
        (dict(packed=m), "packed: expected float32 or float64 of shape"),
        (dict(first=packed[:, :4]), "first: expected shape"),
        (dict(second=torch.zeros(16, 2)[:, :1].T), "second: expected a contiguous"),
        (dict(gradients=[m, m]), "gradients: expected 1 tensors, got 2"),
        (dict(gradients=[m[:, :2]]), r"gradients\[0\]: expected shape"),
        (dict(rates=rates[:3]), "rates: expected shape"),
        (dict(sizes=[4, 5]), "sizes: expected positive ones of 16 pixels"),
        (dict(regular=m), "regular: expected shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            noise_update_(**{**good, **wrong})


def test_the_reference_can_be_asked_for() -> None:
    leaf = torch.randn(2, 16, 16, requires_grad=True)
    expected = noise_reg([leaf])
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    with _extension.use_backend("reference"):
        found = noise_reg([leaf])
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(torch.autograd.grad(found.sum(), leaf)[0], gradient)
