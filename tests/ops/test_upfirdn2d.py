from __future__ import annotations

import pytest
import torch

from pyfacelat.ops import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d
from pyfacelat.ops.upfirdn2d import reference
from tests.ops.cases import UPFIRDN2D
from tests.tolerances import Case, check_op

OP = torch.ops.pyfacelat.upfirdn2d.default


@pytest.mark.parametrize("case", UPFIRDN2D, ids=str)
def test_against_reference(case: Case, device: torch.device) -> None:
    check_op(OP, reference, case, device=device)


def test_identity_filter_copies() -> None:
    x = torch.randn(2, 3, 4, 5)
    y = upfirdn2d(x, None)
    assert torch.equal(y, x) and y.data_ptr() != x.data_ptr()


def test_known_answers_in_one_dimension() -> None:
    x = torch.tensor([[[[1.0, 2.0, 4.0]]]])
    f = torch.tensor([[1.0, 10.0, 100.0]])
    # Convolution reverses the filter: output 0 sees x0 x1 x2 with weights 100 10 1.
    assert upfirdn2d(x, f).flatten().tolist() == [124.0]
    assert upfirdn2d(x, f, flip=True).flatten().tolist() == [421.0]
    # Stuffed: 1 0 2 0 4 0, and one zero on the left.
    y = upfirdn2d(x, f, up=2, pad=(1, 0, 0, 0), flip=True)
    assert y[0, 0, 0].tolist() == [10.0, 201.0, 20.0, 402.0, 40.0]
    assert y[0, 0, 1].tolist() == [0.0] * 5  # rows are stuffed too
    y = upfirdn2d(x, f, up=2, down=2, pad=(1, 0, 0, 0), flip=True, gain=0.5)
    assert y.flatten().tolist() == [5.0, 10.0, 20.0]


@pytest.mark.parametrize("size", [(4, 4), (5, 3)])
def test_sizes_and_constants_of_the_conventions(size: tuple[int, int]) -> None:
    f = setup_filter([1, 3, 3, 1])
    x = torch.ones(1, 2, *size)
    up, same = upsample2d(x, f), filter2d(x, f)
    assert up.shape[2:] == (2 * size[0], 2 * size[1]) and same.shape == x.shape
    assert downsample2d(up, f).shape == x.shape
    # Away from the border a constant keeps its value: (1 3 3 1)/8 puts 1/2 on each phase, twice.
    assert torch.allclose(up[:, :, 2:-2, 2:-2], torch.ones(()))
    assert upsample2d(x, f, pad=(1, 0, 2, 0)).shape[2:] == (up.shape[2] + 2, up.shape[3] + 1)


def test_setup_filter() -> None:
    f = setup_filter([1, 3, 3, 1])
    assert f.shape == (4, 4) and f.dtype == torch.float32
    assert f[0, 1].item() == 3 / 64 and f.sum().item() == 1
    assert setup_filter([1, 3, 3, 1], separable=True).tolist() == [0.125, 0.375, 0.375, 0.125]
    assert setup_filter([1, 2], normalize=False, flip=True).tolist() == [[4, 2], [2, 1]]
    assert setup_filter([1, 1], gain=4).sum().item() == 4
    assert setup_filter(None).tolist() == [[1.0]]


def test_output_keeps_the_layout() -> None:
    x = torch.randn(1, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    y = upsample2d(x, setup_filter([1, 3, 3, 1]))
    assert y.is_contiguous(memory_format=torch.channels_last) and not y.is_contiguous()


X = torch.zeros(1, 1, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (dict(x=X[0], f=None), "x"),
        (dict(x=X.int(), f=None), "x"),
        (dict(x=X, f=torch.zeros(1, 1, 1)), "f"),
        (dict(x=X, f=torch.zeros(0)), "f"),
        (dict(x=X, f=torch.ones(2, requires_grad=True)), "f"),
        (dict(x=X, f=None, up=0), "up"),
        (dict(x=X, f=None, pad=(1, 2)), "pad"),
        (dict(x=X, f=torch.ones(5, 5)), "pad"),
        (dict(x=X, f=None, pad=-2), "pad"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, word: str) -> None:
    with pytest.raises(ValueError, match=f"^{word}"):
        upfirdn2d(**arguments)


def test_filters_that_cannot_be_normalised() -> None:
    with pytest.raises(ValueError, match="add up to zero"):
        setup_filter([1, -1])
    with pytest.raises(ValueError, match="taps"):
        setup_filter([])
