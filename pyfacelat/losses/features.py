"""Differences of a network's features without learnt weights: layers of VGG-16 by mean square.

sum over layers of mean((f_k(x) - f_k(y))^2): the objective of encoders that fit latents to images
layer by layer (Dosovitskiy and Brox 2016, "Generating images with perceptual similarity metrics
based on deep networks"). LPIPS, which normalises and weighs the channels, agrees better with people
and takes more of the image's places with it; this one is steeper far from the target.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyfacelat.images import shrink_to
from pyfacelat.nets.vgg import VGG16Features

# ImageNet's statistics for images in [0, 1].
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)

DEFAULT_LAYERS = (11,)
"""relu3_1's number: the deepest layer of `features[:12]`, on which the published encoders look."""


class FeatureDistance(nn.Module):
    """Mean squared feature difference.

    Args:
        trunk: a `VGG16Features`. Frozen and in evaluation mode from here on.
        layers: torchvision's layer numbers, ascending, 0 to 29.
        size: larger images are area-shrunk to this many pixels a side.

    Raises:
        ValueError: a layer number is out of range, repeated or out of order.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, trunk: VGG16Features, layers: Sequence[int] = DEFAULT_LAYERS, *, size: int = 256
    ) -> None:
        super().__init__()
        self.layers = tuple(layers)
        if not self.layers or list(self.layers) != sorted(set(self.layers)):
            raise ValueError(f"layers: expected ascending numbers, got {list(self.layers)}")
        if not 0 <= self.layers[0] <= self.layers[-1] <= 29:
            raise ValueError(f"layers: expected numbers from 0 to 29, got {list(self.layers)}")
        self.trunk = trunk
        self.size = size
        self.register_buffer("mean", torch.tensor(_MEAN).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).reshape(3, 1, 1))
        self.eval().requires_grad_(False)

    def embed(self, images: Tensor) -> list[Tensor]:
        """Features of images [N,3,H,W] in [-1, 1], sides >= 16; one [N,C,h,w] for each layer."""
        smaller = shrink_to(images, self.size)
        return self.trunk.activations(((smaller + 1) / 2 - self.mean) / self.std, self.layers)

    def distance(self, embedded: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
        """Distance of two results of `embed`. Returns [N]."""
        stages = [(a - b).square().mean((1, 2, 3)) for a, b in zip(embedded, target, strict=True)]
        return torch.stack(stages).sum(0)

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        """Distance of images to target images, both as in `embed`. Returns [N]."""
        return self.distance(self.embed(images), self.embed(target))
