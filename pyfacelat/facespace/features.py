"""What faces are compared by: the maps behind a perceptual metric."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from pyfacelat.losses.perceptual import LPIPS
from pyfacelat.nets.vgg import VGG16Features

__all__ = ["features_of"]

# Behind the ReLU of each of VGG-16's thirteen convolutions, as the published program compares them.
_VGG_LAYERS = (1, 3, 6, 8, 11, 13, 15, 18, 20, 22, 25, 27, 29)
_VGG_SIZE = 256


def features_of(metric: LPIPS) -> Callable[[Tensor], list[Tensor]]:
    """Maps [n,C,H,W] of images [n,3,S,S] in [-1, 1], as the metric's trunk sees them.

    With VGG-16 all thirteen convolutions at 256 px; with another trunk the stages that it has.
    """
    trunk = metric.trunk

    def features(images: Tensor) -> list[Tensor]:
        if isinstance(trunk, VGG16Features):
            if images.shape[-1] != _VGG_SIZE:
                size = (_VGG_SIZE, _VGG_SIZE)
                images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
            return trunk.activations((images - metric.shift) / metric.scale, _VGG_LAYERS)
        maps: list[Tensor] = trunk((images - metric.shift) / metric.scale)
        return maps

    return features
