"""The StyleGAN2 discriminator (Karras et al. 2020) as NVIDIA's ADA code defines it.

image --blocks, halving the resolution down to 4--> minibatch standard deviation --> logit; with
labels, the logit is the projection of the last features onto the mapped label (Miyato and Koyama
2018). State-dict names equal those of NVIDIA's `D`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyfacelat import ops

from .layers import Conv2d, FullyConnected
from .mapping import MappingNetwork
from .stylegan2_config import DiscriminatorConfig

__all__ = ["Discriminator", "DiscriminatorConfig"]


class Discriminator(nn.Module):
    """Realism logits; attributes c_dim, img_resolution, img_channels and config as the generator.

    The minibatch standard deviation makes an item's logit depend on the others in its group; call
    it on single images where that must not happen.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.c_dim = config.c_dim
        self.img_resolution = config.img_resolution
        self.img_channels = config.img_channels
        self.cmap_dim = 0
        if config.c_dim > 0:
            self.cmap_dim = config.channels_at(4) if config.cmap_dim is None else config.cmap_dim
        self.block_resolutions = tuple(reversed(config.resolutions[1:]))
        for res in self.block_resolutions:
            self.add_module(f"b{res}", DiscriminatorBlock(config, res))
        if config.c_dim > 0:
            self.mapping = MappingNetwork(
                z_dim=0,
                c_dim=config.c_dim,
                w_dim=self.cmap_dim,
                num_ws=None,
                num_layers=config.num_mapping_layers,
                embed_features=config.embed_features,
                layer_features=config.mapping_layer_features,
                activation=config.mapping_activation,
                lr_multiplier=config.mapping_lr_multiplier,
                w_avg_beta=None,
            )
        self.b4 = DiscriminatorEpilogue(config, self.cmap_dim)

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        """Judge images.

        Args:
            img: [N, img_channels, R, R], float, about [-1, 1]; N a multiple of the group size of
                the minibatch standard deviation, or smaller than it.
            c: labels [N, c_dim]; ignored when c_dim is 0.

        Returns:
            [N, 1] logits: large for real, dtype of the parameters.

        Raises:
            ValueError: the image's shape, the batch size or the label is wrong.
        """
        size = (self.img_channels, self.img_resolution, self.img_resolution)
        if img.ndim != 4 or tuple(img.shape[1:]) != size:
            raise ValueError(
                f"img: expected shape [N, {size[0]}, {size[1]}, {size[2]}], got {list(img.shape)}"
            )
        image: Tensor | None = img.to(self.b4.out.weight.dtype)
        x: Tensor | None = None
        for res in self.block_resolutions:
            x, image = self.get_submodule(f"b{res}")(x, image)
        label = self.mapping(None, c) if self.c_dim > 0 else None
        logits: Tensor = self.b4(x, image, label)
        return logits


class DiscriminatorBlock(nn.Module):
    """Two convolutions, the second halving the resolution."""

    resample_filter: Tensor

    def __init__(self, config: DiscriminatorConfig, resolution: int) -> None:
        super().__init__()
        self.architecture = config.architecture
        taps = config.resample_filter
        channels = config.channels_at(resolution)
        below = config.channels_at(resolution // 2)
        self.register_buffer("resample_filter", ops.setup_filter(taps))
        self.has_fromrgb = config.architecture == "skip" or resolution == config.img_resolution
        if self.has_fromrgb:
            self.fromrgb = Conv2d(
                config.img_channels,
                channels,
                1,
                activation=config.activation,
                clamp=config.conv_clamp,
            )
        self.conv0 = Conv2d(
            channels,
            channels,
            3,
            activation=config.activation,
            clamp=config.conv_clamp,
        )
        self.conv1 = Conv2d(
            channels,
            below,
            3,
            activation=config.activation,
            down=2,
            resample_filter=taps,
            clamp=config.conv_clamp,
        )
        if config.architecture == "resnet":
            self.skip = Conv2d(channels, below, 1, bias=False, down=2, resample_filter=taps)

    def forward(self, x: Tensor | None, image: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Features [N, C, R, R] (None at the top) and image -> the same at R/2."""
        if self.has_fromrgb:
            assert image is not None  # the top block and every "skip" block get one
            y = self.fromrgb(image)
            x = y if x is None else x + y
            image = (
                ops.downsample2d(image, self.resample_filter, factor=2)
                if self.architecture == "skip"
                else None
            )
        if self.architecture == "resnet":
            gain = math.sqrt(0.5)
            x = self.skip(x, gain=gain) + self.conv1(self.conv0(x), gain=gain)
        else:
            x = self.conv1(self.conv0(x))
        return x, image


class DiscriminatorEpilogue(nn.Module):
    """The 4x4 end: minibatch standard deviation, convolution, two dense layers."""

    def __init__(self, config: DiscriminatorConfig, cmap_dim: int) -> None:
        super().__init__()
        channels = config.channels_at(4)
        self.architecture = config.architecture
        self.cmap_dim = cmap_dim
        self.mbstd_group_size = config.mbstd_group_size
        self.mbstd_num_channels = config.mbstd_num_channels
        if config.architecture == "skip":
            # The published network has no clamp here, unlike in the blocks above.
            self.fromrgb = Conv2d(config.img_channels, channels, 1, activation=config.activation)
        self.conv = Conv2d(
            channels + config.mbstd_num_channels,
            channels,
            3,
            activation=config.activation,
            clamp=config.conv_clamp,
        )
        self.fc = FullyConnected(channels * 4 * 4, channels, activation=config.activation)
        self.out = FullyConnected(channels, cmap_dim if cmap_dim > 0 else 1)

    def forward(self, x: Tensor, image: Tensor | None, label: Tensor | None) -> Tensor:
        """Features [N, C, 4, 4] (and image, mapped label) -> [N, 1]."""
        if self.architecture == "skip":
            x = x + self.fromrgb(image)
        if self.mbstd_num_channels > 0:
            deviation = minibatch_deviation(x, self.mbstd_group_size, self.mbstd_num_channels)
            x = torch.cat([x, deviation], dim=1)
        x = self.out(self.fc(self.conv(x).flatten(1)))
        if label is not None:
            x = (x * label).sum(dim=1, keepdim=True) / math.sqrt(self.cmap_dim)
        return x


def minibatch_deviation(x: Tensor, group_size: int | None, num_channels: int) -> Tensor:
    """Make feature maps of the standard deviation over groups of images.

    Item n belongs to group n mod (N / G), G = min(group_size, N). The deviation over a group's
    images is averaged over pixels and over each of `num_channels` equal parts of the channels.

    Args:
        x: [N, C, H, W]; C divisible by num_channels.
        group_size: images in a group; None: all.
        num_channels: maps to make.

    Returns:
        [N, num_channels, H, W], constant over H and W.

    Raises:
        ValueError: N is not a multiple of G.
    """
    n, c, h, w = x.shape
    group = n if group_size is None else min(group_size, n)
    if n == 0:
        return x.new_zeros(0, num_channels, h, w)
    if n % group:
        raise ValueError(f"img: expected a batch size that is a multiple of {group}, got {n}")
    y = x.reshape(group, n // group, num_channels, c // num_channels, h, w)
    y = y - y.mean(dim=0)
    y = (y.square().mean(dim=0) + 1e-8).sqrt().mean(dim=(2, 3, 4))  # [N/G, num_channels]
    return y.repeat(group, 1)[:, :, None, None].expand(n, num_channels, h, w)
