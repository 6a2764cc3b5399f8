"""IR and IR-SE trunks once more: random state dicts in the published names, and plain maths."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


class Random:
    """Random layers under given names, with values that keep activations near unit scale."""

    def __init__(self, seed: int = 0) -> None:
        self.state: State = {}
        self.random = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
        return torch.randn(shape, generator=self.random) * scale + shift

    def conv(self, name: str, fan_in: int, fan_out: int, size: int, bias: bool = False) -> None:
        scale = (2 / (fan_in * size * size)) ** 0.5
        self.state[f"{name}.weight"] = self.normal(fan_out, fan_in, size, size, scale=scale)
        if bias:
            self.state[f"{name}.bias"] = self.normal(fan_out, scale=0.1)

    def dense(self, name: str, fan_in: int, fan_out: int) -> None:
        self.state[f"{name}.weight"] = self.normal(fan_out, fan_in, scale=fan_in**-0.5)
        self.state[f"{name}.bias"] = self.normal(fan_out, scale=0.1)

    def norm(self, name: str, width: int) -> None:
        self.state[f"{name}.weight"] = self.normal(width, scale=0.2, shift=1)
        self.state[f"{name}.bias"] = self.normal(width, scale=0.2)
        self.state[f"{name}.running_mean"] = self.normal(width, scale=0.2)
        self.state[f"{name}.running_var"] = self.normal(width, scale=0.2).exp()
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def slopes(self, name: str, width: int) -> None:
        self.state[f"{name}.weight"] = self.normal(width, scale=0.1, shift=0.25)


def body_state(
    blocks: Any, widths: Any, squeeze: bool, *, reduction: int = 2, seed: int = 0
) -> Random:
    """Input layer and body in the names of InsightFace_Pytorch."""
    out = Random(seed)
    out.conv("input_layer.0", 3, widths[0], 3)
    out.norm("input_layer.1", widths[0])
    out.slopes("input_layer.2", widths[0])
    below, index = widths[0], 0
    for count, width in zip(blocks, widths, strict=True):
        for _ in range(count):
            unit = f"body.{index}"
            if below != width:
                out.conv(f"{unit}.shortcut_layer.0", below, width, 1)
                out.norm(f"{unit}.shortcut_layer.1", width)
            out.norm(f"{unit}.res_layer.0", below)
            out.conv(f"{unit}.res_layer.1", below, width, 3)
            out.slopes(f"{unit}.res_layer.2", width)
            out.conv(f"{unit}.res_layer.3", width, width, 3)
            out.norm(f"{unit}.res_layer.4", width)
            if squeeze:
                out.conv(f"{unit}.res_layer.5.fc1", width, width // reduction, 1)
                out.conv(f"{unit}.res_layer.5.fc2", width // reduction, width, 1)
            below, index = width, index + 1
    return out


def norm(state: State, name: str, x: Tensor) -> Tensor:
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return F.batch_norm(x, mean, var, weight, bias, False, 0.0, 1e-5)


def plain_body(state: State, x: Tensor, blocks: Any) -> list[Tensor]:
    """The trunk as its paper and layout describe it: the output of every unit."""

    def conv(name: str, x: Tensor, **options: Any) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], **options)

    x = norm(state, "input_layer.1", conv("input_layer.0", x, padding=1))
    x = F.prelu(x, state["input_layer.2.weight"])
    units: list[Tensor] = []
    for count in blocks:
        for index in range(count):
            unit, stride = f"body.{len(units)}", 1 if index else 2
            y = conv(f"{unit}.res_layer.1", norm(state, f"{unit}.res_layer.0", x), padding=1)
            y = F.prelu(y, state[f"{unit}.res_layer.2.weight"])
            y = conv(f"{unit}.res_layer.3", y, padding=1, stride=stride)
            y = norm(state, f"{unit}.res_layer.4", y)
            if f"{unit}.res_layer.5.fc1.weight" in state:
                z = F.relu(conv(f"{unit}.res_layer.5.fc1", F.adaptive_avg_pool2d(y, 1)))
                y = y * conv(f"{unit}.res_layer.5.fc2", z).sigmoid()
            if f"{unit}.shortcut_layer.0.weight" in state:
                short = conv(f"{unit}.shortcut_layer.0", x, stride=stride)
                short = norm(state, f"{unit}.shortcut_layer.1", short)
            else:
                short = F.max_pool2d(x, 1, stride)
            x = y + short
            units.append(x)
    return units
