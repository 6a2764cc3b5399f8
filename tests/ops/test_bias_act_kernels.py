"""Properties of the compiled bias_act that the comparison with the reference does not pin down."""

from __future__ import annotations

import math

import pytest
import torch

from pyfacelat.ops import bias_act

SMOOTH = ("sigmoid", "tanh", "swish", "softplus")


def truth(x: torch.Tensor, act: str) -> torch.Tensor:
    v = x.double()
    if act == "sigmoid":
        return torch.special.expit(v)
    if act == "tanh":
        return v.tanh()
    if act == "swish":
        return v * torch.special.expit(v)
    return v.clamp(min=0) + torch.log1p(torch.exp(-v.abs()))


@pytest.mark.parametrize("act", SMOOTH)
def test_float_functions_are_good_to_a_few_units_in_the_last_place(act: str) -> None:
    """The vectorised exp, log1p and tanh, where no intermediate result is subnormal."""
    x = torch.cat([torch.linspace(-80, 88, 400_001), torch.logspace(-30, 0, 2001)])
    found, expected = bias_act(x, act=act, gain=1.0, dim=0).double(), truth(x, act)
    assert ((found - expected).abs() / (expected.abs() * 2.0**-23)).max() < 2.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_all_65536_values_of_a_16_bit_type_pass_through(dtype: torch.dtype) -> None:
    x = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(dtype)
    y = bias_act(x, act="linear", dim=0)
    nan = x.isnan()
    assert y[nan].isnan().all()
    # -0 + 0 is +0; every other value keeps its bits.
    keep = ~nan & (x != 0)
    assert torch.equal(y[keep].view(torch.int16), x[keep].view(torch.int16))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("gain", [1 / 3, 2.0**-10, 1e-6, 300.0])
def test_16_bit_results_are_rounded_to_nearest_even(dtype: torch.dtype, gain: float) -> None:
    x = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(dtype)
    x = x[~x.isnan()]
    expected = (x.float() * torch.tensor(gain)).to(dtype)
    assert torch.equal(bias_act(x, act="linear", gain=gain, dim=0), expected)


@pytest.mark.parametrize("act", ["linear", "relu", "lrelu", *SMOOTH])
def test_nan_comes_out_as_nan_and_infinity_as_its_limit(act: str) -> None:
    x = torch.tensor([math.nan, math.inf], dtype=torch.float32)
    y = bias_act(x, act=act, gain=1.0, dim=0)
    assert y[0].isnan()
    assert y[1] == (1.0 if act in ("sigmoid", "tanh") else math.inf)
    assert bias_act(x, act=act, gain=1.0, clamp=0.5, dim=0)[0].isnan()


@pytest.mark.parametrize("shape", [(3, 5, 63, 65), (2, 33, 1, 130), (1, 70001)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_every_split_over_threads_gives_the_same_bits(
    shape: tuple[int, ...], channels_last: bool
) -> None:
    x, b = torch.randn(shape), torch.randn(shape[1])
    if channels_last and x.ndim == 4:
        x = x.to(memory_format=torch.channels_last)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(bias_act(x, b, act="swish", clamp=1.0))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("act", ["linear", "relu", "lrelu", *SMOOTH])
@pytest.mark.parametrize("shape", [(2, 5, 7, 9), (2, 8, 16, 16), (3, 16), (0, 3, 2, 2)])
def test_cuda_equals_cpu(shape: tuple[int, ...], act: str, dtype: torch.dtype) -> None:
    x, b, dy = torch.randn(shape).to(dtype), torch.randn(shape[1]).to(dtype), torch.randn(shape)
    for channels_last in (False, True) if len(shape) == 4 else (False,):
        form = torch.channels_last if channels_last else torch.contiguous_format
        results = []
        for device in ("cpu", "cuda"):
            leaf = x.to(device, memory_format=form).requires_grad_()
            y = bias_act(leaf, b.to(device), act=act, clamp=1.5)
            (grad,) = torch.autograd.grad(y, leaf, dy.to(device, dtype))
            results.append((y.detach().cpu(), grad.cpu()))
        for cpu, cuda in zip(*results, strict=True):
            assert cuda.stride() == cpu.stride()
            tolerance = 8 * torch.finfo(dtype).eps
            torch.testing.assert_close(cuda, cpu, rtol=tolerance, atol=tolerance)


@pytest.mark.gpu
def test_cuda_runs_on_the_current_stream_and_in_a_graph() -> None:
    x = torch.randn(2, 8, 33, 31, device="cuda")
    expected = bias_act(x, act="lrelu")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = bias_act(x, act="lrelu")
    x.neg_()
    expected = bias_act(x, act="lrelu")
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(y, expected)
