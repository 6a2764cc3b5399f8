"""The StyleGAN2 generator (Karras et al. 2020, arXiv:1912.04958) as NVIDIA's ADA code defines it.

    z, c --mapping--> w, repeated num_ws times --synthesis--> image

A synthesis layer computes, per item, with style s = A w + b and unit-variance weights v:

    y = demodulate(v * s) convolved with x  (+ upsampling by 2 with an FIR filter)
    y = clamp(gain * lrelu(y + noise_strength * noise + bias))

All three published architectures are here: "skip" (sum of upsampled RGB images), "resnet" and
"orig". State-dict names equal those of NVIDIA's `G_ema`. Networks trained with fp16 layers run in
the parameters' dtype (float32) with the clamp of their training kept, which is what the original
does under `force_fp32`. No file access: see `pyfacelat.zoo`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyfacelat import ops

from .layers import DEFAULT_FILTER, Conv2d, FullyConnected
from .mapping import MappingNetwork
from .noise import NoiseSource, RandomState
from .stylegan2_config import GeneratorConfig

__all__ = ["Generator", "GeneratorConfig", "MappingNetwork", "SynthesisNetwork"]


class Generator(nn.Module):
    """Mapping and synthesis, with NVIDIA's attributes and call shape.

    Attributes:
        mapping, synthesis: the two networks; see their `forward`.
        config: the `GeneratorConfig` it was built from.
        z_dim, c_dim, w_dim, num_ws, img_resolution, img_channels: integers.
        w_stats: optional statistics of w that travel with a file but are not part of the
            network: "mean" [w_dim], "cov_basis" [w_dim, w_dim], "cov_scale" [w_dim]. Not in the
            state dict; moved and cast together with the module.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.z_dim = config.z_dim
        self.c_dim = config.c_dim
        self.w_dim = config.w_dim
        self.num_ws = config.num_ws
        self.img_resolution = config.img_resolution
        self.img_channels = config.img_channels
        self.w_stats: dict[str, Tensor] = {}
        self.synthesis = self._synthesis(config)
        self.mapping = MappingNetwork(
            z_dim=config.z_dim,
            c_dim=config.c_dim,
            w_dim=config.w_dim,
            num_ws=config.num_ws,
            num_layers=config.num_mapping_layers,
            embed_features=config.embed_features,
            layer_features=config.mapping_layer_features,
            activation=config.mapping_activation,
            lr_multiplier=config.mapping_lr_multiplier,
            w_avg_beta=config.w_avg_beta,
        )

    @staticmethod
    def _synthesis(config: GeneratorConfig) -> SynthesisNetwork:
        """The network from w to images; StyleGAN1 has another one."""
        return SynthesisNetwork(config)

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: str = "const",
        noise: Mapping[str, Tensor] | None = None,
        generator: RandomState = None,
    ) -> Tensor:
        """`synthesis(mapping(z, c, ...), ...)`: [N, img_channels, R, R], about [-1, 1]."""
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff)
        image: Tensor = self.synthesis(ws, noise_mode, noise, generator)
        return image

    def noise_names(self) -> dict[str, tuple[int, int]]:
        """Names of the noise maps and their (H, W), from the lowest resolution up.

        The names are those of the state dict, "synthesis.b8.conv0.noise_const" for example, and
        the keys of the `noise` argument of `synthesis`. Empty for a network without noise.
        """
        return {f"synthesis.{name}": size for name, size in self.synthesis.noise_sizes().items()}

    def freeze(self) -> Generator:
        """Make this an evaluation-only network: no parameter gradients, weight sums precomputed.

        The sums (of squared weights, for demodulation) are dropped again by `train()` and by
        loading other weights; do not change weights of a frozen network by hand.

        Returns:
            The network itself.
        """
        self.eval().requires_grad_(False)
        for module in self.modules():
            if isinstance(module, SynthesisLayer):
                module.energy = ops.weight_energy(module.weight)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Generator:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.w_stats = {name: fn(value) for name, value in self.w_stats.items()}
        return self


class SynthesisNetwork(nn.Module):
    """w to image: one block for each resolution from 4 up, `b4`, `b8`, ..."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.w_dim = config.w_dim
        self.num_ws = config.num_ws
        self.img_resolution = config.img_resolution
        self.img_channels = config.img_channels
        self.block_resolutions = config.resolutions
        for res in config.resolutions:
            self.add_module(f"b{res}", self._block(config, res))

    @staticmethod
    def _block(config: GeneratorConfig, resolution: int) -> nn.Module:
        return SynthesisBlock(config, resolution)

    def forward(
        self,
        ws: Tensor,
        noise_mode: str = "const",
        noise: Mapping[str, Tensor] | None = None,
        generator: RandomState = None,
    ) -> Tensor:
        """Render images.

        Args:
            ws: [N, num_ws, w_dim], any float dtype.
            noise_mode: "const" uses the stored maps, "random" draws new ones for every item,
                "none" adds nothing. (The published code defaults to "random".)
            noise: maps that replace stored or drawn ones, keyed as `Generator.noise_names`; each
                [H, W] or [1, H, W] (shared), [N, H, W] or [N, 1, H, W] (one for each item), any
                float dtype, N(0, 1) by nature. Gradients flow to them. Maps that are not named
                follow `noise_mode`; not allowed with "none".
            generator: source of the "random" noise, on the device of `ws`: one generator, or one
                for each item (then an item's noise does not depend on its batch); None is torch's
                global one.

        Returns:
            [N, img_channels, R, R], about [-1, 1] and not clipped; dtype of the parameters, at
            least float32.

        Raises:
            ValueError: a shape, mode or noise name is wrong.
        """
        if ws.ndim != 3 or tuple(ws.shape[1:]) != (self.num_ws, self.w_dim):
            raise ValueError(
                f"ws: expected shape [N, {self.num_ws}, {self.w_dim}], got {list(ws.shape)}"
            )
        sizes = self.noise_sizes() if noise else {}
        source = NoiseSource(noise_mode, noise, generator, sizes, ws.shape[0])
        return self._render(ws.to(next(self.parameters()).dtype), source)

    def _render(self, ws: Tensor, source: NoiseSource) -> Tensor:
        x: Tensor | None = None
        image: Tensor | None = None
        first = 0  # row of ws that the next block starts with
        for res in self.block_resolutions:
            block = self.get_submodule(f"b{res}")
            assert isinstance(block, SynthesisBlock)
            x, image = block(x, image, ws[:, first:], source)
            # The row read by toRGB is shared with the next block's first convolution.
            first += block.num_conv
        assert image is not None  # the last block always has a toRGB
        return image

    def noise_sizes(self) -> dict[str, tuple[int, int]]:
        """Noise map names relative to this module, "b8.conv0.noise_const" for example."""
        return {
            name: (buffer.shape[0], buffer.shape[1])
            for name, buffer in self.named_buffers()
            if name.endswith(".noise_const")
        }


class SynthesisBlock(nn.Module):
    """Everything at one resolution: constant or two convolutions, and toRGB where there is one."""

    resample_filter: Tensor

    def __init__(self, config: GeneratorConfig, resolution: int) -> None:
        super().__init__()
        self.resolution = resolution
        self.architecture = config.architecture
        self.is_first = resolution == 4
        self.num_conv = 1 if self.is_first else 2
        self.has_torgb = config.architecture == "skip" or resolution == config.img_resolution
        channels = config.channels_at(resolution)

        self.register_buffer("resample_filter", ops.setup_filter(config.resample_filter))
        if self.is_first:
            self.const = nn.Parameter(torch.randn(channels, resolution, resolution))
        else:
            below = config.channels_at(resolution // 2)
            self.conv0 = SynthesisLayer(config, below, resolution, up=2)
        self.conv1 = SynthesisLayer(config, channels, resolution)
        if self.has_torgb:
            self.torgb = ToRGB(config, channels)
        if not self.is_first and config.architecture == "resnet":
            self.skip = Conv2d(
                below, channels, 1, bias=False, up=2, resample_filter=config.resample_filter
            )

    def forward(
        self, x: Tensor | None, image: Tensor | None, ws: Tensor, noise: NoiseSource
    ) -> tuple[Tensor, Tensor | None]:
        """One block: features [N, C/2.., R/2, R/2] and image so far -> the same at R.

        `ws` [N, >= num_conv + 1, w_dim] starts with this block's first row.
        """
        prefix = f"b{self.resolution}"
        if x is None:
            # channels_last from the start: the layout in which the operators are fastest.
            x = self.const.expand(ws.shape[0], -1, -1, -1)
            x = x.contiguous(memory_format=torch.channels_last)
            x = self.conv1(x, ws[:, 0], noise(f"{prefix}.conv1.noise_const", self.conv1))
        else:
            # In "resnet" the two branches are averaged in power, the clamp scaled accordingly.
            gain = math.sqrt(0.5) if self.architecture == "resnet" else 1.0
            side = self.skip(x, gain=gain) if self.architecture == "resnet" else None
            x = self.conv0(x, ws[:, 0], noise(f"{prefix}.conv0.noise_const", self.conv0))
            x = self.conv1(x, ws[:, 1], noise(f"{prefix}.conv1.noise_const", self.conv1), gain)
            x = x if side is None else side + x
        if image is not None:
            image = ops.upsample2d(image, self.resample_filter, factor=2)
        if self.has_torgb:
            rgb = self.torgb(x, ws[:, self.num_conv])
            # Accumulate the image in float32 at least, whatever the features are.
            rgb = rgb.to(torch.promote_types(rgb.dtype, torch.float32))
            image = rgb if image is None else image + rgb
        return x, image


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution with noise, bias and activation; `up` 2 doubles the size."""

    resample_filter: Tensor
    noise_const: Tensor
    energy: Tensor | None  # sums over the kernel of weight^2, [O, I], while frozen

    def __init__(
        self, config: GeneratorConfig, in_channels: int, resolution: int, up: int = 1
    ) -> None:
        super().__init__()
        out_channels = config.channels_at(resolution)
        self.resolution = resolution
        self.up = up
        self.use_noise = config.use_noise
        self.activation = config.activation
        self.conv_clamp = config.conv_clamp
        # A layer that does not resample carries the default filter in NVIDIA's files, unused,
        # whatever the network's filter is.
        taps = config.resample_filter if up > 1 else DEFAULT_FILTER
        self.register_buffer("resample_filter", ops.setup_filter(taps))
        self.affine = FullyConnected(config.w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        if config.use_noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("energy", None, persistent=False)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None, gain: float = 1.0) -> Tensor:
        """Map x [N, I, R/up, R/up], w [N, w_dim], noise [N or 1, 1, R, R] to [N, O, R, R]."""
        return ops.modulated_conv2d(
            x,
            self.weight,
            self.affine(w),
            noise=None if noise is None else noise * self.noise_strength,
            up=self.up,
            padding=1,
            resample_filter=self.resample_filter,
            flip_weight=self.up == 1,
            bias=self.bias,
            act=self.activation,
            gain=ops.default_gain(self.activation) * gain,
            clamp=None if self.conv_clamp is None else self.conv_clamp * gain,
            energy=None if self.weight.requires_grad else self.energy,
        )

    def train(self, mode: bool = True) -> SynthesisLayer:
        """Switch to training (or evaluation) mode; training ends `Generator.freeze`."""
        if mode:
            self.energy = None
        return super().train(mode)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.energy = None
        super()._load_from_state_dict(*args, **kwargs)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution without demodulation: features to image channels."""

    def __init__(self, config: GeneratorConfig, in_channels: int) -> None:
        super().__init__()
        self.conv_clamp = config.conv_clamp
        self.affine = FullyConnected(config.w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(config.img_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(config.img_channels))
        self.weight_gain = 1.0 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map x [N, I, R, R], w [N, w_dim] to [N, img_channels, R, R]."""
        return ops.modulated_conv2d(
            x,
            self.weight,
            self.affine(w) * self.weight_gain,
            demodulate=False,
            bias=self.bias,
            act="linear",
            clamp=self.conv_clamp,
        )
