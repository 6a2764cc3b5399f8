"""The StyleGAN generator (Karras et al. 2019, arXiv:1812.04948) behind StyleGAN2's interface.

    z --mapping--> w, repeated num_ws times --synthesis--> image

A layer convolves (the first of a resolution after doubling the size by repetition, and then blurs
with [1, 2, 1]), and ends with what the paper calls AdaIN, per item and channel, from a style
(s0, s1) = A w + b:

    y = lrelu(conv(x) + noise_strength * noise + bias)
    y = (y - mean y) / sqrt(mean (y - mean y)^2 + 1e-8) * (s0 + 1) + s1

At 4x4 the constant takes the place of the first convolution. RGB is made once, at the last
resolution. Differences to NVIDIA's code are of form only: where it fuses doubling with the
convolution (from 128 pixels on) it turns the kernel by 180 degrees, which the readers undo, and the
gain of sqrt(2) that it puts into the mapping's weights comes after the activation here, which the
readers allow for in its biases.
"""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyfacelat import ops

from .layers import FullyConnected
from .noise import NoiseSource
from .stylegan2 import Generator, SynthesisNetwork
from .stylegan2_config import GeneratorConfig

__all__ = ["StyleGAN1", "StyleGAN1Config"]

_EPSILON = 1e-8
_FIXED = {"c_dim": 0, "architecture": "orig", "activation": "lrelu", "mapping_activation": "lrelu"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StyleGAN1Config(GeneratorConfig):
    """As `GeneratorConfig`; what StyleGAN has no choice in is fixed.

    Raises:
        ValueError: a field is out of its range, or has another value than the fixed one.
    """

    architecture: str = "orig"
    channel_base: int = 16384
    resample_filter: tuple[float, ...] = (1, 2, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in {**_FIXED, "conv_clamp": None, "num_fp16_res": 0}.items():
            if getattr(self, name) != value:
                raise ValueError(f"{name}: expected {value!r}, got {getattr(self, name)!r}")
        if len(self.resample_filter) != 3:
            raise ValueError(f"resample_filter: expected 3 taps, got {self.resample_filter}")


class StyleGAN1(Generator):
    """The generator; attributes and call shape are those of StyleGAN2's `Generator`."""

    config: StyleGAN1Config

    @staticmethod
    def _synthesis(config: GeneratorConfig) -> SynthesisNetwork:
        return _Synthesis(config)


class _Synthesis(SynthesisNetwork):
    """w to image; rows 2k and 2k + 1 go to the two layers of the k-th resolution."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(config)
        width = config.channels_at(config.img_resolution)
        self.torgb = _Convolution(width, config.img_channels, 1, gain=1.0)

    @staticmethod
    def _block(config: GeneratorConfig, resolution: int) -> nn.Module:
        return _Block(config, resolution)

    def _render(self, ws: Tensor, source: NoiseSource) -> Tensor:
        x: Tensor | None = None
        for i, res in enumerate(self.block_resolutions):
            block = self.get_submodule(f"b{res}")
            x = block(x, ws[:, 2 * i], ws[:, 2 * i + 1], source)
        image: Tensor = self.torgb(x)
        return image.to(torch.promote_types(image.dtype, torch.float32))


class _Block(nn.Module):
    """Two layers: [N, C/2.., R/2, R/2] to [N, C, R, R]; from nothing at 4x4."""

    resample_filter: Tensor

    def __init__(self, config: GeneratorConfig, resolution: int) -> None:
        super().__init__()
        self.resolution = resolution
        width = config.channels_at(resolution)
        if resolution == 4:
            self.const = nn.Parameter(torch.ones(width, 4, 4))
        else:
            self.register_buffer("resample_filter", ops.setup_filter(config.resample_filter))
        below = None if resolution == 4 else config.channels_at(resolution // 2)
        self.conv0 = _Layer(config, below, resolution)
        self.conv1 = _Layer(config, width, resolution)

    def forward(self, x: Tensor | None, w0: Tensor, w1: Tensor, noise: NoiseSource) -> Tensor:
        prefix = f"b{self.resolution}"
        if x is None:
            x = self.const.expand(len(w0), -1, -1, -1)
        else:
            x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
            x = ops.filter2d(self.conv0.convolved(x), self.resample_filter)
        x = self.conv0.finished(x, w0, noise(f"{prefix}.conv0.noise_const", self.conv0))
        x = self.conv1.convolved(x)
        return self.conv1.finished(x, w1, noise(f"{prefix}.conv1.noise_const", self.conv1))


class _Convolution(nn.Module):
    """Convolution with weights of unit variance, scaled when used, and a bias of its own."""

    def __init__(self, fan_in: int, fan_out: int, size: int, gain: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in, size, size))
        self.bias = nn.Parameter(torch.zeros(fan_out))
        self.weight_gain = gain / math.sqrt(fan_in * size * size)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.weight_gain
        return F.conv2d(x, weight, self.bias, padding=self.weight.shape[2] // 2)


class _Layer(nn.Module):
    """One convolution (none for the constant), noise, bias, activation and AdaIN."""

    noise_const: Tensor

    def __init__(self, config: GeneratorConfig, fan_in: int | None, resolution: int) -> None:
        super().__init__()
        width = config.channels_at(resolution)
        self.use_noise = config.use_noise
        if fan_in is not None:
            self.weight = nn.Parameter(torch.randn(width, fan_in, 3, 3))
            self.weight_gain = math.sqrt(2 / (9 * fan_in))
        if config.use_noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.affine = FullyConnected(config.w_dim, 2 * width)

    def convolved(self, x: Tensor) -> Tensor:
        """The convolution alone: [N, I, H, W] to [N, O, H, W]."""
        return F.conv2d(x, self.weight * self.weight_gain, padding=1)

    def finished(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """What follows the convolution; w [N, w_dim], noise [N or 1, 1, H, W]."""
        if noise is not None:
            x = x + noise * self.noise_strength[:, None, None]
        x = F.leaky_relu(x + self.bias[:, None, None], 0.2)
        x = x - x.mean((2, 3), keepdim=True)
        x = x * (x.square().mean((2, 3), keepdim=True) + _EPSILON).rsqrt()
        scale, shift = self.affine(w)[:, :, None, None].chunk(2, dim=1)
        out: Tensor = x * (scale + 1) + shift
        return out
