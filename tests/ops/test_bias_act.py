from __future__ import annotations

import math

import pytest
import torch

from pyfacelat.ops import ACTIVATIONS, bias_act, default_gain
from pyfacelat.ops.bias_act import grad_reference, reference
from tests.ops.cases import BIAS_ACT, randn
from tests.tolerances import Case, assert_close, check_op

OP = torch.ops.pyfacelat.bias_act.default


@pytest.mark.parametrize("case", BIAS_ACT, ids=str)
def test_against_reference(case: Case, device: torch.device) -> None:
    check_op(OP, reference, case, device=device)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_gradient_op_against_its_reference(act: str, device: torch.device) -> None:
    for dtype in (torch.float32, torch.float64):
        dy, x, b = (t.to(device, dtype) for t in (randn(3, 5, 7, seed=1), randn(3, 5, 7), randn(5)))
        arguments = (dy, x, b, 1, act, 0.2, 1.3, 0.8)
        found = torch.ops.pyfacelat.bias_act_grad(*arguments).cpu()
        base = grad_reference(*arguments).cpu()
        truth = grad_reference(
            *[a.cpu().double() if isinstance(a, torch.Tensor) else a for a in arguments]
        )
        assert_close(found, base, truth, f"{act} {dtype}")


def test_known_values() -> None:
    x = torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64)
    one = {name: bias_act(x, act=name, gain=1.0, dim=0) for name in ACTIVATIONS}
    assert one["linear"].tolist() == [-2, 0, 3]
    assert one["relu"].tolist() == [0, 0, 3]
    assert torch.allclose(one["lrelu"], torch.tensor([-0.4, 0, 3], dtype=torch.float64))
    assert one["sigmoid"][1] == 0.5 and one["tanh"][1] == 0
    assert math.isclose(one["swish"][2].item(), 3 / (1 + math.exp(-3)), rel_tol=1e-12)
    assert math.isclose(one["softplus"][1].item(), math.log(2), rel_tol=1e-12)


def test_gain_bias_and_clamp() -> None:
    x = torch.tensor([[1.0, -1.0]])
    b = torch.tensor([1.0, -4.0])
    assert torch.allclose(bias_act(x, b, act="lrelu"), torch.tensor([[2.0, -1.0]]) * 2**0.5)
    assert bias_act(x, b, act="lrelu", gain=2.0, clamp=1.5).tolist() == [[1.5, -1.5]]
    assert bias_act(x, b, dim=-1).tolist() == [[2.0, -5.0]]
    assert [default_gain(a) for a in ("linear", "sigmoid", "swish")] == [1.0, 1.0, 2**0.5]


def test_no_gradient_beyond_the_clamp() -> None:
    x = torch.tensor([-3.0, -0.5, 0.5, 3.0], requires_grad=True)
    bias_act(x, act="linear", clamp=1.0, dim=0).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0, 1, 1, 0]


def test_large_values_stay_finite() -> None:
    x = torch.tensor([-1000.0, 1000.0], requires_grad=True)
    for act in ACTIVATIONS:
        y = bias_act(x, act=act, dim=0)
        (g,) = torch.autograd.grad(y.sum(), x)
        assert y.isfinite().all() and g.isfinite().all(), act


X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (dict(x=X, act="gelu"), "act"),
        (dict(x=X, b=torch.zeros(2)), "b"),
        (dict(x=X, b=torch.zeros(3).double()), "b"),
        (dict(x=X.long()), "x"),
        (dict(x=torch.zeros(())), "x"),
        (dict(x=X, dim=2), "dim"),
        (dict(x=X, clamp=-1.0), "clamp"),
        (dict(x=X, clamp=float("nan")), "clamp"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, word: str) -> None:
    with pytest.raises(ValueError, match=f"^{word}"):
        bias_act(**arguments)
