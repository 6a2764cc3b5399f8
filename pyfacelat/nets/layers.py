"""Equalised-learning-rate layers shared by the StyleGAN2 generator and discriminator.

A weight is stored with unit variance and scaled when it is used, by the constant of He
initialisation (Karras et al. 2018, "Progressive Growing of GANs", section 4.1), so that every
parameter sees the same effective learning rate. Parameter and buffer names are those of NVIDIA's
network files; a state dict from there loads without renaming.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pyfacelat import ops

__all__ = [
    "DEFAULT_FILTER",
    "Conv2d",
    "FullyConnected",
    "load_strict",
    "normalize_second_moment",
]

DEFAULT_FILTER = (1, 3, 3, 1)


def normalize_second_moment(x: Tensor) -> Tensor:
    """Scale rows to unit second moment: x / sqrt(mean(x^2) + 1e-8); [N, D] float -> [N, D]."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class FullyConnected(nn.Module):
    """Dense layer: act((weight * gain) x + bias * lr_multiplier), gain = lr_multiplier / sqrt(in).

    Args:
        in_features, out_features: widths.
        activation: a name known to `ops.bias_act`.
        lr_multiplier: scales the effective learning rate; the stored weight is 1/lr_multiplier
            times larger, so the function at initialisation does not depend on it. The stored bias
            is not enlarged: `bias_init` counts before the multiplication.
        bias_init: initial value of the stored bias.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init)))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer: [N, in_features] -> [N, out_features], dtype of the weight."""
        # The gain goes into the product (alpha): a scaled copy of the weight would cost more
        # memory traffic than the product itself at batch 1.
        bias = self.bias if self.bias_gain == 1.0 else self.bias * self.bias_gain
        y = torch.addmm(bias, x, self.weight.t(), alpha=self.weight_gain)
        if self.activation == "linear":
            return y
        return ops.bias_act(y, act=self.activation)


class Conv2d(nn.Module):
    """Convolution with optional FIR resampling: clamp(gain * act(conv(x) + bias)).

    Args:
        in_channels, out_channels, kernel_size: of the square kernel; padding is kernel_size // 2.
        bias: False leaves `bias` out of the state dict.
        activation: a name known to `ops.bias_act`.
        up, down: integer resampling factors; at most one differs from 1.
        resample_filter: FIR taps, kept as buffer `resample_filter`. NVIDIA's files hold that buffer
            also where nothing is resampled, with the default taps.
        clamp: limit of the output's magnitude before `gain` scales both; None for none.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        activation: str = "linear",
        up: int = 1,
        down: int = 1,
        resample_filter: Sequence[float] = DEFAULT_FILTER,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.up = up
        self.down = down
        self.clamp = clamp
        self.padding = kernel_size // 2
        self.weight_gain = 1.0 / math.sqrt(in_channels * kernel_size**2)
        self.register_buffer("resample_filter", ops.setup_filter(resample_filter))
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """Apply the layer: [N, in_channels, H, W] -> [N, out_channels, H*up/down, W*up/down]."""
        x = ops.conv2d_resample(
            x,
            self.weight * self.weight_gain,
            self.resample_filter,
            up=self.up,
            down=self.down,
            padding=self.padding,
            flip_weight=self.up == 1,
        )
        return ops.bias_act(
            x,
            self.bias,
            act=self.activation,
            gain=ops.default_gain(self.activation) * gain,
            clamp=None if self.clamp is None else self.clamp * gain,
        )


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy `tensors` into `module`; names and shapes must agree one to one.

    `load_state_dict` reports hundreds of names when a config was inferred wrongly; this says in
    one line what is wrong, and also compares the FIR filters, which are part of the config and
    would otherwise be overwritten without a word.

    Raises:
        ValueError: a name is missing or unexpected, or a shape or filter differs.
    """
    own = module.state_dict()
    problems: list[str] = []
    missing = [name for name in own if name not in tensors]
    unexpected = [name for name in tensors if name not in own]
    for label, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            problems.append(f"{label} tensors: {', '.join(names[:3])}{more}")
    for name, value in own.items():
        given = tensors.get(name)
        if given is None:
            continue
        if given.shape != value.shape:
            problems.append(f"{name}: expected shape {list(value.shape)}, got {list(given.shape)}")
        elif name.endswith("resample_filter") and not torch.allclose(
            value.double(), given.double().to(value.device), rtol=0, atol=1e-6
        ):
            problems.append(f"{name}: the filter in the file is not the config's")
    if problems:
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ValueError(
            f"{type(module).__name__}: the tensors do not fit the config: "
            + "; ".join(problems[:4])
            + more
        )
    module.load_state_dict(tensors, strict=True)
