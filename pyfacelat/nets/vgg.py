"""The convolutional parts of VGG-16 and VGG-19 (Simonyan and Zisserman 2014, D and E).

Module names are torchvision's, `features.N`, so the `features.*` entries of its weight files load
strictly. The last pooling layer is left out: nothing here reads behind relu5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["VGG16Features", "VGG19Features", "VGGFeatures"]

Stages = tuple[tuple[int, ...], ...]


class VGGFeatures(nn.Module):
    """Images to feature maps; made by `VGG16Features` and `VGG19Features`.

    Attributes:
        channels: of the five maps: (64, 128, 256, 512, 512).
        features: the layers, numbered as torchvision numbers them, from 0.
        taps: numbers of the layers that `forward` returns.
        numbers: name of every layer -> its number: "conv3_2", "relu3_2", "pool3".

    Args:
        stages: channels of the 3x3 convolutions of each stage; a 2x2 maximum pooling lies between
            stages.
    """

    def __init__(self, stages: Stages) -> None:
        super().__init__()
        self.channels = tuple(stage[-1] for stage in stages)
        self.numbers: dict[str, int] = {}
        layers: list[nn.Module] = []
        width = 3

        def add(name: str, layer: nn.Module) -> None:
            self.numbers[name] = len(layers)
            layers.append(layer)

        for k, stage in enumerate(stages, 1):
            if layers:
                add(f"pool{k - 1}", nn.MaxPool2d(2))
            for i, channels in enumerate(stage, 1):
                add(f"conv{k}_{i}", nn.Conv2d(width, channels, 3, padding=1))
                add(f"relu{k}_{i}", nn.ReLU())
                width = channels
        self.features = nn.Sequential(*layers)
        self.taps = [self.numbers[f"relu{k}_{len(stage)}"] for k, stage in enumerate(stages, 1)]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Feature maps behind the last ReLU of each stage, such as relu1_2.

        Args:
            x: [N, 3, H, W], normalised as the weights expect; H and W at least 16.

        Returns:
            Five maps [N, channels[k], H // 2**k, W // 2**k], k = 0 to 4.
        """
        return self.activations(x, self.taps)

    def activations(self, x: Tensor, layers: Sequence[int | str]) -> list[Tensor]:
        """Return the outputs of the layers with the given names or torchvision numbers.

        Args:
            x: as in `forward`.
            layers: in the order of the network; a convolution's output is the one before ReLU.

        Returns:
            One map for each layer.

        Raises:
            ValueError: a layer is unknown, repeated or out of order.
        """
        wanted = [self.numbers.get(layer, -1) if isinstance(layer, str) else layer
                  for layer in layers]  # fmt: skip
        last = len(self.features) - 1
        if not wanted or sorted(set(wanted)) != wanted or not 0 <= wanted[0] <= wanted[-1] <= last:
            raise ValueError(
                f"layers: expected ascending numbers from 0 to {last}, or names from conv1_1 to "
                f"{list(self.numbers)[-1]}, got {list(layers)}"
            )
        outputs: list[Tensor] = []
        for number, layer in enumerate(self.features[: wanted[-1] + 1]):
            if isinstance(layer, nn.ReLU):
                x = F.relu(x, inplace=number - 1 not in wanted)
            else:
                x = layer(x)
            if number in wanted:
                outputs.append(x)
        return outputs


class VGG16Features(VGGFeatures):
    """13 convolutions; `forward` gives relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3."""

    def __init__(self) -> None:
        super().__init__(((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3))


class VGG19Features(VGGFeatures):
    """16 convolutions; `forward` gives relu1_2, relu2_2, relu3_4, relu4_4 and relu5_4."""

    def __init__(self) -> None:
        super().__init__(((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4))
