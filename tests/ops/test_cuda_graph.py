"""On a GPU every op runs inside a CUDA graph: nothing waits for the host, same bits as eager."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyfacelat.ops import (
    bias_act,
    heatmap_loss,
    lpips_diff,
    lpips_unit,
    modulated_conv2d,
    noise_reg,
    noise_update_,
    pack_maps,
    setup_filter,
    upfirdn2d,
)
from tests.tolerances import channels_last

pytestmark = pytest.mark.gpu

Step = Callable[[list[Tensor]], tuple[Tensor, ...]]


def with_gradients(y: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return (y.detach(), *torch.autograd.grad(y.square().sum(), inputs))


def biased(inputs: list[Tensor]) -> tuple[Tensor, ...]:
    x, _, _, b, _ = inputs
    return with_gradients(bias_act(x, b, act="lrelu", clamp=1.0), [x, b])


def resampled(inputs: list[Tensor]) -> tuple[Tensor, ...]:
    x, f = inputs[0], inputs[4]
    return with_gradients(upfirdn2d(x, f, up=2, pad=(2, 1, 2, 1), gain=4.0), [x])


def styled(up: int) -> Step:
    def step(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        x, weight, styles, b, f = inputs
        y = modulated_conv2d(
            x, weight, styles, up=up, padding=1, bias=b, act="lrelu", resample_filter=f
        )
        return with_gradients(y, [x, styles, b])

    return step


def regularised(inputs: list[Tensor]) -> tuple[Tensor, ...]:
    x = inputs[0]
    return with_gradients(noise_reg([x[:, 0], x[:, 1]]), [x])


def updated(inputs: list[Tensor]) -> tuple[Tensor, ...]:
    maps = [inputs[0][:, 0], inputs[0][:, 1]]
    packed, sizes, _ = pack_maps(maps)
    state = (packed, packed.sin(), packed.square())
    with torch.no_grad():
        noise_update_(*state, maps, inputs[3][:4].abs() + 0.1, sizes, regular=packed.cos())
    return state


def perceived(inputs: list[Tensor]) -> tuple[Tensor, ...]:
    x = inputs[0]
    with torch.no_grad():
        target = lpips_unit(x.flip(0))
    return with_gradients(lpips_diff(x, target, inputs[3].detach().abs()), [x])


def landmarked(inputs: list[Tensor]) -> tuple[Tensor, ...]:
    x, points = inputs[0], inputs[1].detach()[:2, :, 0, :2].sigmoid()
    return with_gradients(heatmap_loss(x, points, inputs[3].detach().abs()), [x])


STEPS: dict[str, Step] = {
    "bias_act": biased,
    "upfirdn2d": resampled,
    "modulated_conv2d": styled(1),
    "modulated_conv2d up": styled(2),
    "noise_reg": regularised,
    "noise_update": updated,
    "lpips_diff": perceived,
    "heatmap_loss": landmarked,
}


def leaves(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, 16, 17, 13), (16, 16, 3, 3), (2, 16), (16,)]
    tensors = [torch.randn(s, generator=generator).cuda() for s in shapes]
    tensors[0] = channels_last(tensors[0])
    return [*(t.requires_grad_() for t in tensors), setup_filter([1, 3, 3, 1], device="cuda")]


@pytest.mark.parametrize("name", STEPS)
def test_replay_equals_eager(name: str) -> None:
    step, inputs = STEPS[name], leaves(0)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # first calls choose algorithms and allocate workspaces
        step(inputs)
        step(inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step(inputs)
    with torch.no_grad():
        for old, new in zip(inputs, leaves(1), strict=True):
            old.copy_(new)
    graph.replay()
    torch.cuda.synchronize()
    for a, b in zip(found, step(inputs), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", STEPS)
def test_nothing_waits_for_the_device(name: str) -> None:
    inputs = leaves(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        STEPS[name](inputs)
    finally:
        torch.cuda.set_sync_debug_mode("default")
