from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyfacelat import _extension
from pyfacelat.ops import Conv3x3Weight, conv3x3, pack_conv3x3
from pyfacelat.ops.conv3x3 import backward_reference, reference, reference_pack
from tests.ops.cases import CONV3X3, WINOGRAD_UNITS, conv3x3_case, randn
from tests.tolerances import Case, assert_close, channels_last, check_op, l2_error, strided

OP = torch.ops.pyfacelat.conv3x3.default
LEVELS = {"portable": 0, "avx2": 1, "avx512": 2}


def set_level(level: int) -> str:
    library = ctypes.CDLL(str(_extension.LIBRARY))
    library.pyfacelat_conv3x3_level.restype = ctypes.c_char_p
    name: bytes = library.pyfacelat_conv3x3_level(level)
    return name.decode()


@pytest.fixture(params=LEVELS)
def instructions(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set that this processor has, one after another."""
    if _extension.load():
        pytest.skip("no compiled library")
    try:
        if set_level(LEVELS[request.param]) != request.param:
            pytest.skip(f"no {request.param} here")
        yield request.param
    finally:
        set_level(2)


@pytest.mark.parametrize("case", CONV3X3, ids=str)
def test_against_reference(case: Case, device: torch.device) -> None:
    check_op(OP, reference, case, device=device)


@pytest.mark.parametrize("case", CONV3X3[:-5], ids=str)
def test_instruction_sets(case: Case, instructions: str) -> None:
    check_op(OP, reference, case)


def layer(channels: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """What a trained network meets: a map after relu, He weights, and a gradient."""
    x = channels_last(randn(1, channels, size, size, seed=seed).relu().float())
    w = randn(channels, channels, 3, 3, seed=seed + 1) * (2 / (9 * channels)) ** 0.5
    dy = channels_last(randn(1, channels, size, size, seed=seed + 2).float())
    return x, w.float(), dy


@pytest.mark.parametrize(("channels", "size"), [(64, 40), (128, 24), (256, 16), (512, 12)])
def test_rounding_of_real_layers(channels: int, size: int) -> None:
    x, w, dy = layer(channels, size)
    kernel = pack_conv3x3(w)
    y, exact = conv3x3(x, kernel), F.conv2d(x.double(), w.double(), padding=1)
    assert_close(y, F.conv2d(x, w, padding=1), exact, "value", WINOGRAD_UNITS)
    assert l2_error(y, exact) < 1.5e-6
    config = ("relu", 0.0, 1.0)
    dx = torch.ops.pyfacelat.conv3x3_backward(dy, y, w, kernel.packed_back, *config)
    plain = backward_reference(dy, y, w, kernel.packed_back, *config)
    exact = backward_reference(dy.double(), y.double(), w.double(), kernel.packed_back, *config)
    assert_close(dx, plain, exact, "gradient", WINOGRAD_UNITS)
    assert l2_error(dx, exact) < 1.5e-6


def test_one_tap_moves_the_image() -> None:
    """Padding, flip and order of the channels, by a kernel that only moves and swaps."""
    w = torch.zeros(16, 16, 3, 3)
    w[range(16), [(c + 1) % 16 for c in range(16)], 0, 2] = 1  # y[c] = x[c + 1] from above right
    x = randn(1, 16, 9, 9).float()
    expected = F.pad(x.roll(-1, 1), (0, 1, 1, 0))[:, :, :9, 1:]
    y = conv3x3(x, pack_conv3x3(w))
    assert torch.allclose(y, expected, atol=2e-5)
    x.requires_grad_()
    (g,) = torch.autograd.grad(conv3x3(x, pack_conv3x3(w)), x, expected)
    (e,) = torch.autograd.grad(F.conv2d(x, w, padding=1), x, expected)
    assert torch.allclose(g, e, atol=2e-5)


@pytest.mark.parametrize("size", [(21, 30), (70, 66)])
def test_threads_do_not_change_a_bit(size: tuple[int, int]) -> None:
    x = channels_last(randn(2, 40, *size).float())
    kernel = pack_conv3x3(randn(72, 40, 3, 3, seed=1).float())
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = conv3x3(x, kernel, act="relu")
            dx = torch.ops.pyfacelat.conv3x3_backward(
                y, y, kernel.weight, kernel.packed_back, "relu", 0.0, 1.0
            )
            results.append((y, dx))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for r in results[1:] for a, b in zip(r, results[0], strict=True))


def test_items_of_a_batch_are_alone() -> None:
    x = channels_last(randn(3, 40, 33, 30).float())
    kernel = pack_conv3x3(randn(72, 40, 3, 3, seed=1).float())
    whole = conv3x3(x, kernel)
    for n in range(3):
        assert torch.equal(conv3x3(x[n : n + 1], kernel), whole[n : n + 1])


@pytest.mark.parametrize("act", ["linear", "relu", "lrelu"])
def test_backward_op_is_a_proper_op(act: str) -> None:
    for dtype in (torch.float32, torch.float64):
        case = conv3x3_case("", affine=act == "relu").tensors(dtype)
        x, w, packed, packed_back, b, *_, in_scale, in_shift = case
        x = x.detach()
        config = (act, 0.2, 1.3)
        y = torch.ops.pyfacelat.conv3x3(x, w, packed, packed_back, b, *config, in_scale, in_shift)
        before = (x, in_scale, in_shift)
        args = (strided(torch.ones_like(y)), y, w, packed_back, *config, *before)
        torch.library.opcheck(torch.ops.pyfacelat.conv3x3_backward.default, args)
        found, expected = torch.ops.pyfacelat.conv3x3_backward(*args), backward_reference(*args)
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(32, 16), (33, 5), (7, 70), (0, 3), (3, 0)])
def test_packing(shape: tuple[int, int]) -> None:
    w = randn(*shape, 3, 3)
    torch.library.opcheck(torch.ops.pyfacelat.conv3x3_pack.default, (w.float(), True))
    for transposed in (False, True):
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            found = torch.ops.pyfacelat.conv3x3_pack(w.to(dtype), transposed)
            expected = reference_pack(w.to(dtype), transposed)
            # One rounding of the same double, which two orders of summation may tip over.
            rtol = 2 * torch.finfo(dtype).eps
            assert torch.allclose(found, expected, rtol=rtol, atol=1e-14), dtype
    assert torch.equal(
        torch.ops.pyfacelat.conv3x3_pack(w, True),
        torch.ops.pyfacelat.conv3x3_pack(w.flip([2, 3]).transpose(0, 1), False),
    )
    values = torch.ops.pyfacelat.conv3x3_pack(w, False)
    if w.numel() == 0:
        assert values.numel() == 0
        return
    # A kernel's polynomial at infinity is its last tap; at zero the first, over (5/8 * 3/2)^2.
    at = values.movedim(3, 1).flatten(0, 1)[: shape[0]]
    assert torch.allclose(at[:, 35], w[:, :, 2, 2])
    assert torch.allclose(at[:, 0] * (0.625 * 1.5) ** 4, w[:, :, 0, 0])
    padding = values.movedim(3, 1).flatten(0, 1)[shape[0] :]
    assert not padding.any()


def test_the_reference_reads_no_packed_weight() -> None:
    x, w = randn(1, 16, 8, 8).float().requires_grad_(), randn(16, 16, 3, 3, seed=1).float()
    empty = Conv3x3Weight(w, torch.full((1, 36, 16, 32), torch.nan), torch.zeros(1))
    with _extension.use_backend("reference"):
        y = conv3x3(x, empty)
    assert torch.equal(y, F.conv2d(x, w, padding=1))
    assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()


X, W = torch.zeros(2, 3, 4, 4), torch.zeros(5, 3, 3, 3)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (dict(x=X[0]), "x"),
        (dict(x=X[:, :2]), "weight"),
        (dict(x=X.double()), "weight"),
        (dict(weight=W), "weight"),
        (dict(bias=torch.zeros(4)), "bias"),
        (dict(bias=torch.zeros(5, requires_grad=True)), "bias"),
        (dict(act="gelu"), "act"),
        (dict(alpha=-0.1), "alpha"),
        (dict(gain=0.0), "gain"),
        (dict(in_scale=torch.zeros(5), in_shift=torch.zeros(3)), "in_scale"),
        (dict(in_scale=torch.zeros(3)), "in_shift"),
    ],
)
def test_wrong_arguments_are_named(change: dict, word: str) -> None:
    with pytest.raises(ValueError, match=f"^{word}"):
        conv3x3(**{"x": X, "weight": pack_conv3x3(W), **change})


@pytest.mark.parametrize("weight", [W[:, :, :2], W[0], W.long(), W.clone().requires_grad_()])
def test_only_frozen_3x3_kernels_are_packed(weight: Tensor) -> None:
    with pytest.raises(ValueError, match="^weight"):
        pack_conv3x3(weight)


def test_without_a_packed_backward() -> None:
    x, w, dy = layer(16, 12)
    results = []
    for gradient in (False, True):
        x = x.detach().requires_grad_()
        y = conv3x3(x, pack_conv3x3(w, gradient=gradient))
        results += torch.autograd.grad(y, x, dy)
    assert torch.allclose(*results, atol=1e-4)


def test_nothing_is_packed_where_nothing_reads_it() -> None:
    kernel = pack_conv3x3(W.double())
    assert kernel.packed.numel() == kernel.packed_back.numel() == 0
    x = X.double().requires_grad_()
    assert torch.autograd.grad(conv3x3(x, kernel).sum(), x)[0].shape == x.shape


def test_no_gradient_of_the_weight() -> None:
    args = conv3x3_case("").tensors(torch.float32)
    args[1].requires_grad_()
    with pytest.raises(RuntimeError, match="frozen"):
        OP(*args).sum().backward()
