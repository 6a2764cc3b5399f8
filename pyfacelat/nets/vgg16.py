"""The convolutional part of VGG-16 (Simonyan and Zisserman 2014, configuration D).

Module names are torchvision's, `features.N`, so the `features.*` entries of its weight file load
strictly. The last pooling layer is left out: nothing here reads behind relu5_3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["VGG16Features"]

# Channels of the 3x3 convolutions of each stage; a 2x2 maximum pooling lies between stages.
_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_TAPS = (3, 8, 15, 22, 29)  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3


class VGG16Features(nn.Module):
    """Images to the five feature maps that perceptual metrics use.

    Attributes:
        channels: of the five maps: (64, 128, 256, 512, 512).
        features: the layers, numbered as torchvision numbers them, 0 to 29.
    """

    channels = tuple(stage[-1] for stage in _STAGES)

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for stage in _STAGES:
            if layers:
                layers.append(nn.MaxPool2d(2))
            for channels in stage:
                layers.append(nn.Conv2d(width, channels, 3, padding=1))
                layers.append(nn.ReLU())
                width = channels
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Feature maps relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3.

        Args:
            x: [N, 3, H, W], normalised as the weights expect; H and W at least 16.

        Returns:
            Five maps [N, channels[k], H // 2**k, W // 2**k], k = 0 to 4.
        """
        return self.activations(x, _TAPS)

    def activations(self, x: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Return the outputs of the layers with the given torchvision numbers.

        Args:
            x: as in `forward`.
            layers: ascending numbers from 0 to 29; a convolution's output is the one before ReLU.

        Returns:
            One map for each number.

        Raises:
            ValueError: a number is out of range, repeated or out of order.
        """
        wanted = list(layers)
        if not wanted or sorted(set(wanted)) != wanted or not 0 <= wanted[0] <= wanted[-1] <= 29:
            raise ValueError(f"layers: expected ascending numbers from 0 to 29, got {wanted}")
        outputs: list[Tensor] = []
        for number, layer in enumerate(self.features[: wanted[-1] + 1]):
            if isinstance(layer, nn.ReLU):
                x = F.relu(x, inplace=number - 1 not in wanted)
            else:
                x = layer(x)
            if number in wanted:
                outputs.append(x)
        return outputs
