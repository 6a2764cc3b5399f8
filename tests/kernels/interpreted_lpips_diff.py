"""The kernels of lpips_diff; test_interpreted.py runs this file."""

from __future__ import annotations

import pytest
import torch

from pyfacelat.ops._library import kernels
from pyfacelat.ops.lpips_diff import reference, unit_reference
from tests.ops.test_lpips_diff import CASES, Diff
from tests.tolerances import assert_close, assert_gradient_close

LPIPS_DIFF = kernels("lpips_diff")


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_value_and_gradient(case: Diff, dtype: torch.dtype) -> None:
    arguments, exact = case.arguments(dtype)
    found = LPIPS_DIFF.lpips_diff(*arguments)
    base, truth = reference(*arguments), reference(*exact)
    assert_close(found[0], base[0], truth[0], f"{case} value")
    assert_gradient_close(found[1], base[1], truth[1], f"{case} gradient")
    u = LPIPS_DIFF.lpips_unit(arguments[0])
    assert_close(u, unit_reference(arguments[0]), unit_reference(exact[0]), f"{case} unit")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("last", [False, True])
def test_equal_features_are_exactly_equal(dtype: torch.dtype, last: bool) -> None:
    x = torch.randn(2, 19, 5, 7).to(dtype)
    x[:, :, 0] = 0
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    lin = torch.rand(19)
    value, gradient = LPIPS_DIFF.lpips_diff(x, LPIPS_DIFF.lpips_unit(x), lin, None)
    assert not value.any() and not gradient.any()
