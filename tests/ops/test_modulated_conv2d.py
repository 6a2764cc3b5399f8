from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyfacelat.ops import bias_act, conv2d_resample, modulated_conv2d, setup_filter, weight_energy
from pyfacelat.ops.modulated_conv2d import _NEEDS, backward_reference, reference
from tests.ops.cases import MODULATED_CONV2D, WINOGRAD_UNITS, modulated_arguments, randn
from tests.tolerances import Case, assert_close, channels_last, check_op, evaluate

OP = torch.ops.pyfacelat.modulated_conv2d.default


@pytest.mark.parametrize("case", MODULATED_CONV2D, ids=str)
def test_against_reference(case: Case, device: torch.device) -> None:
    check_op(OP, reference, case, device=device)


def styled_by_weights(
    x: Tensor, w: Tensor, s: Tensor, f: Tensor | None, up: int, down: int, flip: bool
) -> Tensor:
    """Equations 1 to 3 of the paper as they stand: one scaled kernel for each image."""
    each = w[None] * s[:, None, :, None, None]
    each = each / (each.square().sum([2, 3, 4], keepdim=True) + 1e-8).sqrt()
    k = w.shape[2]
    maps = [
        conv2d_resample(
            x[n : n + 1], each[n], f, up=up, down=down, padding=k // 2, flip_weight=flip
        )
        for n in range(len(x))
    ]
    return torch.cat(maps)


@pytest.mark.parametrize("act", ["linear", "lrelu", "tanh", "softplus"])
@pytest.mark.parametrize(("k", "up", "down"), [(3, 1, 1), (3, 2, 1), (1, 1, 1), (3, 1, 2)])
def test_equals_the_paper_with_gradients(k: int, up: int, down: int, act: str) -> None:
    f = setup_filter([1, 3, 3, 1])
    x, w, s, b = randn(2, 3, 6, 4), randn(4, 3, k, k, seed=1), randn(2, 3, seed=2), randn(4, seed=3)
    noise = randn(6 * up // down, 4 * up // down, seed=4)
    inputs = [t.requires_grad_() for t in (x, w, s, b, noise)]

    def ours(x: Tensor, w: Tensor, s: Tensor, b: Tensor, noise: Tensor) -> Tensor:
        return modulated_conv2d(
            x, w, s, noise=noise, up=up, down=down, padding=k // 2, resample_filter=f, bias=b,
            act=act, clamp=2.0, flip_weight=up == 1,
        )  # fmt: skip

    def paper(x: Tensor, w: Tensor, s: Tensor, b: Tensor, noise: Tensor) -> Tensor:
        z = styled_by_weights(x, w, s, f, up, down, up == 1) + noise
        return bias_act(z, b, act=act, clamp=2.0)

    every = tuple(range(5))
    found, grads = evaluate(ours, inputs, every)
    expected, expected_grads = evaluate(paper, inputs, every)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    for g, e in zip(grads, expected_grads, strict=True):
        assert torch.allclose(g, e, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("up", [1, 2])
def test_double_backward(up: int) -> None:
    """Path length regularisation and gradient penalties differentiate a gradient."""
    f = setup_filter([1, 3, 3, 1])
    inputs = [randn(1, 2, 3, 3), randn(2, 2, 3, 3, seed=1), randn(1, 2, seed=2), randn(2, seed=3)]

    def op(x: Tensor, w: Tensor, s: Tensor, b: Tensor) -> Tensor:
        return modulated_conv2d(x, w, s, up=up, padding=1, resample_filter=f, bias=b, act="lrelu")

    assert torch.autograd.gradgradcheck(op, [t.requires_grad_() for t in inputs])


def test_only_what_is_needed_is_computed() -> None:
    args = modulated_arguments()
    y = torch.ops.pyfacelat.modulated_conv2d(*args)
    for i, name in enumerate(_NEEDS):
        out = torch.ops.pyfacelat.modulated_conv2d_backward(torch.ones_like(y), y, *args, 1 << i)
        expected = backward_reference(torch.ones_like(y), y, *args, 1 << i)
        assert [g.numel() > 0 for g in out] == [i == j for j in range(6)], name
        assert torch.allclose(out[i], expected[i], rtol=1e-10, atol=1e-12), name


def test_backward_op_is_a_proper_op() -> None:
    args = modulated_arguments(up=2, flip=False, noise="shared")
    y = torch.ops.pyfacelat.modulated_conv2d(*args)
    torch.library.opcheck(
        torch.ops.pyfacelat.modulated_conv2d_backward.default,
        (torch.ones_like(y), y, *args, 0b101101),
    )


def test_frozen_weights_and_given_energy() -> None:
    x, w, s = randn(2, 3, 5, 5), randn(4, 3, 3, 3), randn(2, 3).requires_grad_()
    plain = modulated_conv2d(x, w, s, padding=1)
    given = modulated_conv2d(x, w, s, padding=1, energy=weight_energy(w))
    assert torch.equal(plain, given)
    (g,) = torch.autograd.grad(given.square().sum(), s)
    (e,) = torch.autograd.grad(plain.square().sum(), s)
    assert torch.equal(g, e)
    with pytest.raises(ValueError, match="energy"):
        modulated_conv2d(x, w.requires_grad_(), s, energy=weight_energy(w))


def test_demodulation_gives_unit_norm() -> None:
    """White noise in, unit variance out, whatever the style."""
    x, w = randn(1, 64, 32, 32), randn(16, 64, 3, 3, seed=1) * 5
    y = modulated_conv2d(x, w, randn(1, 64, seed=2).exp())  # no padding, which would add zeros
    assert (y.std() - 1).abs() < 0.03


def test_items_of_a_batch_do_not_mix() -> None:
    args = modulated_arguments(n=3, up=2, size=(6, 6))
    whole = torch.ops.pyfacelat.modulated_conv2d(*args)
    for n in range(3):
        one = [a[n : n + 1] if isinstance(a, Tensor) and a.shape[0] == 3 else a for a in args]
        assert torch.allclose(torch.ops.pyfacelat.modulated_conv2d(*one)[0], whole[n], atol=1e-13)


def test_threads_do_not_change_the_sums() -> None:
    args = [a.float() if isinstance(a, Tensor) else a for a in modulated_arguments(size=(65, 61))]
    y = torch.ops.pyfacelat.modulated_conv2d(*args)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            needs = 0b111000  # those that this package sums itself
            results.append(torch.ops.pyfacelat.modulated_conv2d_backward(y, y, *args, needs))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("shape", [(), (5, 5), (1, 5, 5), (1, 1, 5, 5), (2, 1, 1, 1)])
def test_noise_broadcasts(shape: tuple[int, ...]) -> None:
    x, w, s = randn(2, 3, 5, 5), randn(4, 3, 3, 3), randn(2, 3)
    noise = randn(*shape).requires_grad_()
    y = modulated_conv2d(x, w, s, noise=noise, padding=1, act="lrelu", gain=1.0)
    plain = modulated_conv2d(x, w, s, padding=1)
    assert torch.allclose(y, F.leaky_relu(plain + noise, 0.2))
    assert torch.autograd.grad(y.sum(), noise)[0].shape == noise.shape


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(demod=False, noise="none", bias=False, act="linear", gain=1.0),
        dict(noise="shared", act="relu", clamp=0.8),
        dict(n=1, i=9, o=43, size=(5, 6)),
    ],
)
def test_packed_weights_change_nothing(options: dict) -> None:
    """The whole layer by Winograd's algorithm: see tests/ops/test_conv3x3.py for its rounding."""
    full = modulated_arguments(**{"n": 2, "i": 32, "o": 40, "size": (13, 18), **options})
    args = [a.float() if isinstance(a, Tensor) else a for a in full]
    packed, packed_back = (torch.ops.pyfacelat.conv3x3_pack(args[1], t) for t in (False, True))
    y = torch.ops.pyfacelat.modulated_conv2d(*args, packed)
    plain, exact = torch.ops.pyfacelat.modulated_conv2d(*args), reference(*full)
    assert_close(y, plain, exact, "value", WINOGRAD_UNITS)
    needs = 0b111101
    dy = channels_last(randn(*y.shape, seed=9).float())
    found = torch.ops.pyfacelat.modulated_conv2d_backward(dy, y, *args, needs, packed_back)
    plain = torch.ops.pyfacelat.modulated_conv2d_backward(dy, y, *args, needs)
    exact = backward_reference(dy.double(), y.double(), *full, needs)
    for name, a, b, c in zip(_NEEDS, found, plain, exact, strict=True):
        if c.numel():
            assert_close(a, b, c, name, WINOGRAD_UNITS)
    torch.library.opcheck(OP, (*args, packed))


X, W, S = torch.zeros(2, 3, 4, 4), torch.zeros(5, 3, 3, 3), torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (dict(x=X[0]), "x"),
        (dict(weight=W[:, :2]), "weight"),
        (dict(weight=W.double()), "weight"),
        (dict(styles=S[:1]), "styles"),
        (dict(bias=torch.zeros(4)), "bias"),
        (dict(noise=torch.zeros(3, 3)), "noise"),
        (dict(noise=torch.zeros(2, 5, 2, 2)), "noise"),
        (dict(up=0), "up"),
        (dict(padding=-1), "padding"),
        (dict(clamp=-2.0), "clamp"),
        (dict(act="gelu"), "act"),
        (dict(x=X[:, :, :2, :2]), "weight"),
    ],
)
def test_wrong_arguments_are_named(change: dict, word: str) -> None:
    with pytest.raises(ValueError, match=f"^{word}"):
        modulated_conv2d(**{"x": X, "weight": W, "styles": S, **change})
