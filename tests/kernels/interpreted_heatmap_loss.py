"""The kernels of heatmap_loss; test_interpreted.py runs this file."""

from __future__ import annotations

import pytest
import torch

from pyfacelat.ops._library import kernels
from pyfacelat.ops.heatmap_loss import Reduction, reference
from tests.ops.test_heatmap_loss import CASES, REDUCTIONS, Maps
from tests.tolerances import assert_close, assert_gradient_close

HEATMAP_LOSS = kernels("heatmap_loss")


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_value_and_gradient(case: Maps, dtype: torch.dtype) -> None:
    for reduction in REDUCTIONS:
        arguments, exact = case.arguments(dtype, reduction)
        found = HEATMAP_LOSS.heatmap_loss(*arguments)
        base, truth = reference(*arguments), reference(*exact)
        for name, a, b, c in zip(("value", "scale"), found, base, truth, strict=False):
            assert_close(a, b, c, f"{case} {dtype} {reduction} {name}")
        gradients = [(r[2] * r[1][..., None, None]).to(r[2].dtype) for r in (found, base, truth)]
        assert found[2].stride() == base[2].stride()
        assert_gradient_close(*gradients, f"{case} {dtype} {reduction} gradient")


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_zero_distance_has_no_gradient(reduction: Reduction) -> None:
    maps, _, weights, *_ = CASES[1].arguments(torch.float32, reduction)[0]
    _, scale, direction = HEATMAP_LOSS.heatmap_loss(maps, maps, weights, reduction, 1.0)
    assert scale.isfinite().all() and not direction.any()
