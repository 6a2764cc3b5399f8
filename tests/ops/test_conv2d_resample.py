from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyfacelat.ops import conv2d_resample, setup_filter, upfirdn2d
from pyfacelat.ops.conv2d_resample import resample_padding
from tests.ops.cases import randn


def by_definition(
    x: Tensor, w: Tensor, f: Tensor, up: int, down: int, padding: int, flip: bool
) -> Tensor:
    """Pad once, filter the stuffed image, convolve, filter, decimate: no shortcut taken."""
    taps = (f.shape[0], f.shape[1])
    pad = resample_padding(up, down, [padding] * 4, taps)
    x = upfirdn2d(x, f if up > 1 else None, up=up, pad=pad, gain=up**2)
    x = F.conv2d(x, w if flip else w.flip([2, 3]))
    return upfirdn2d(x, f if down > 1 else None, down=down)


CASES = list(itertools.product([1, 2, 3], [1, 2], [1, 3, 4], [True, False]))


@pytest.mark.parametrize(("up", "down", "k", "flip"), CASES)
def test_shortcuts_are_exact(up: int, down: int, k: int, flip: bool) -> None:
    x, w = randn(2, 3, 7, 6), randn(4, 3, k, k, seed=1)
    f = randn(4, 5, seed=2)
    found = conv2d_resample(x, w, f, up=up, down=down, padding=k // 2, flip_weight=flip)
    expected = by_definition(x, w, f, up, down, k // 2, flip)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("size", [(4, 4), (8, 6)])
def test_sizes_of_stylegan2(k: int, size: tuple[int, int]) -> None:
    f, x, w = setup_filter([1, 3, 3, 1]), torch.ones(1, 2, *size), torch.ones(3, 2, k, k)
    h, wd = size
    assert conv2d_resample(x, w, f, up=2, padding=k // 2).shape == (1, 3, 2 * h, 2 * wd)
    assert conv2d_resample(x, w, f, down=2, padding=k // 2).shape == (1, 3, h // 2, wd // 2)
    assert conv2d_resample(x, w, padding=k // 2).shape == (1, 3, h, wd)


def test_uneven_padding() -> None:
    x, w = randn(1, 2, 5, 5), randn(3, 2, 3, 3)
    found = conv2d_resample(x, w, padding=(2, 0, 1, 3))
    assert torch.allclose(found, F.conv2d(F.pad(x, [2, 0, 1, 3]), w))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (dict(w=torch.zeros(1, 3, 3, 3)), "w"),
        (dict(w=torch.zeros(1, 2, 3, 3).double()), "w"),
        (dict(padding=-1), "padding"),
        (dict(padding=(1, 2)), "padding"),
        (dict(up=0), "up"),
        (dict(w=torch.zeros(1, 2, 9, 9)), "w"),
        (dict(f=torch.zeros(2, 2, 2), up=2), "f"),
    ],
)
def test_wrong_arguments_are_named(change: dict, word: str) -> None:
    arguments = {"x": torch.zeros(1, 2, 4, 4), "w": torch.zeros(1, 2, 3, 3), **change}
    with pytest.raises(ValueError, match=f"^{word}"):
        conv2d_resample(**arguments)
