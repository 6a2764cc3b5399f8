"""Evaluation-mode batch normalisation as part of its neighbours.

With its running statistics frozen, batch normalisation is y = scale * x + shift per channel, with
scale = weight / sqrt(running_var + eps) and shift = bias - running_mean * scale. Behind a
convolution it disappears into the convolution; elsewhere it becomes one multiply-add, whose
backward needs neither the input nor a reduction.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import TypeVar

import torch
from torch import Tensor, nn

__all__ = ["ChannelAffine", "Foldable", "fold_into_conv", "fold_into_linear"]


_Net = TypeVar("_Net", bound="Foldable")


class Foldable(nn.Module, ABC):
    """A network whose normalisation can go into the layers beside it."""

    @abstractmethod
    def fold(self) -> None:
        """Put normalisation into neighbouring layers, in place and for good."""

    def folded(self: _Net) -> _Net:
        """Copy this network and fold the copy.

        Frozen, in evaluation mode, channels_last, equal up to rounding, with fewer operations. It
        has other state-dict names, so save the original.
        """
        net = copy.deepcopy(self).eval().requires_grad_(False)
        net.fold()
        # Convolutions hand on their weights' layout; NHWC is the engine's.
        return net.to(memory_format=torch.channels_last)


class ChannelAffine(nn.Module):
    """y = scale * x + shift per channel: a frozen `BatchNorm2d`, [N, C, H, W] -> the same."""

    scale: Tensor
    shift: Tensor

    def __init__(self, bn: nn.BatchNorm2d) -> None:
        super().__init__()
        scale, shift = _affine(bn)
        dtype = _statistics(bn)[0].dtype
        self.register_buffer("scale", scale.to(dtype)[:, None, None])
        self.register_buffer("shift", shift.to(dtype)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Apply the affine map."""
        return torch.addcmul(self.shift, x, self.scale)


def fold_into_conv(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """Return a new convolution equal to `bn(conv(x))` in evaluation mode.

    Args:
        conv: any convolution, with or without bias.
        bn: the normalisation that directly follows it, with running statistics.

    Returns:
        A convolution with bias; dtype and device of `conv`, parameters frozen.
    """
    scale, shift = _affine(bn)
    weight = conv.weight.detach()
    folded = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        stride=conv.stride,  # type: ignore[arg-type]
        padding=conv.padding,  # type: ignore[arg-type]
        device=weight.device,
        dtype=weight.dtype,
    )
    bias = shift if conv.bias is None else shift + conv.bias.detach().double() * scale
    with torch.no_grad():
        folded.weight.copy_(weight.double() * scale[:, None, None, None])
        folded.bias.copy_(bias)  # type: ignore[union-attr]
    return folded.requires_grad_(False)


def fold_into_linear(
    linear: nn.Linear, *, before: nn.BatchNorm2d, after: nn.BatchNorm1d
) -> nn.Linear:
    """Return a new dense layer equal to `after(linear(before(x).flatten(1)))`.

    Args:
        linear: takes C * P features, P pixels of each of the C channels in a row.
        before: of C channels.
        after: of the outputs.

    Returns:
        A dense layer with bias; dtype and device of `linear`, parameters frozen.
    """
    weight = linear.weight.detach()
    pixels = linear.in_features // before.num_features
    scale, shift = (value.repeat_interleave(pixels) for value in _affine(before))
    scale_out, shift_out = _affine(after)
    folded = nn.Linear(
        linear.in_features, linear.out_features, device=weight.device, dtype=weight.dtype
    )
    bias = weight.double() @ shift
    if linear.bias is not None:
        bias = bias + linear.bias.detach().double()
    with torch.no_grad():
        folded.weight.copy_(weight.double() * scale * scale_out[:, None])
        folded.bias.copy_(bias * scale_out + shift_out)
    return folded.requires_grad_(False)


_BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


def _statistics(bn: _BatchNorm) -> tuple[Tensor, Tensor]:
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("bn: expected a batch normalisation with running statistics, got none")
    return bn.running_mean, bn.running_var


def _affine(bn: _BatchNorm) -> tuple[Tensor, Tensor]:
    """(scale, shift), [C] float64: rounded once, when they are stored."""
    mean, var = (value.double() for value in _statistics(bn))
    scale = (var + bn.eps).rsqrt()
    if bn.weight is not None:
        scale = scale * bn.weight.detach().double()
    shift = -mean * scale
    if bn.bias is not None:
        shift = shift + bn.bias.detach().double()
    return scale, shift
