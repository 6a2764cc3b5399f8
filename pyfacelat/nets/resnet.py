"""ResNet-50 and its deeper relatives, without their classifier.

He et al. 2015, "Deep Residual Learning" (arXiv:1512.03385), section 4.1, bottleneck units, with the
stride in the 3x3 convolution as torchvision has it ("v1.5"). Module names are torchvision's, so its
weight files load strictly but for their last dense layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_images, check_integers
from .folding import Foldable, fold_into_conv

__all__ = ["ResNet", "ResNetConfig"]

_EXPANSION = 4
_SMALLEST = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """Size of a `ResNet`; the defaults are ResNet-50. Round-trips through JSON.

    Raises:
        ValueError: a field is out of its range; the message names field, rule and value.
    """

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    """Units of each of the four stages."""
    width: int = 64
    """Channels of the stem; stage k works on width * 2**k channels and gives four times these."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))
        check_integers(self, {"blocks": (1, 100), "width": (1, 1024)})
        if len(self.blocks) != 4:
            raise ValueError(f"blocks: expected 4 stages, got {len(self.blocks)}")

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the five maps: (64, 256, 512, 1024, 2048)."""
        stages = (_EXPANSION * self.width << stage for stage in range(len(self.blocks)))
        return (self.width, *stages)


class ResNet(Foldable):
    """Images to feature maps.

    Attributes:
        config: the `ResNetConfig` it was built from.
        channels: of the five maps, see `forward`.
        layers: names of the maps, for `activations`.
    """

    layers = ("conv1", "layer1", "layer2", "layer3", "layer4")

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.channels = config.channels
        self.conv1 = nn.Conv2d(3, config.width, 7, stride=2, padding=3, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(config.width)
        below = config.width
        for stage, count in enumerate(config.blocks):
            inside = config.width << stage
            units = []
            for index in range(count):
                units.append(Bottleneck(below, inside, 2 if stage and not index else 1))
                below = inside * _EXPANSION
            self.add_module(f"layer{stage + 1}", nn.Sequential(*units))

    def forward(self, x: Tensor) -> list[Tensor]:
        """All five maps.

        Args:
            x: [N, 3, H, W], normalised as the weights expect (torchvision: ImageNet mean and
                deviation of images in [0, 1]), dtype of the parameters; H and W at least 32.

        Returns:
            The stem before pooling, [N, width, H / 2, W / 2], and the stages,
            [N, channels[k], H / 2**(k+1), W / 2**(k+1)] for k = 1 to 4; sides rounded up.

        Raises:
            ValueError: x has a wrong shape.
        """
        return self.activations(x, self.layers)

    def activations(self, x: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """Maps by name.

        Args:
            x: as in `forward`.
            layers: names from `self.layers`, each once, in any order; nothing behind the last one
                is computed.

        Returns:
            One map for each name, in the order of `layers`.

        Raises:
            ValueError: x has a wrong shape, or a name is unknown or repeated.
        """
        if not layers or len(set(layers)) != len(layers) or not set(layers) <= set(self.layers):
            raise ValueError(
                f"layers: expected names out of {', '.join(self.layers)}, each once, "
                f"got {list(layers)}"
            )
        check_images(x, least=_SMALLEST)
        x = F.relu(self.bn1(self.conv1(x)))
        found = {"conv1": x}
        for name in self.layers[1 : 1 + max(self.layers.index(name) for name in layers)]:
            if name == "layer1":
                x = F.max_pool2d(x, 3, stride=2, padding=1)
            found[name] = x = self.get_submodule(name)(x)
        return [found[name] for name in layers]

    def fold(self) -> None:
        """As `Foldable.fold`."""
        for module in list(self.modules()):
            if isinstance(module, ResNet | Bottleneck):
                for name in ("1", "2", "3"):
                    norm = getattr(module, f"bn{name}", None)
                    if isinstance(norm, nn.BatchNorm2d):
                        conv = getattr(module, f"conv{name}")
                        setattr(module, f"conv{name}", fold_into_conv(conv, norm))
                        setattr(module, f"bn{name}", nn.Identity())
            shortcut = getattr(module, "downsample", None)
            if isinstance(shortcut, nn.Sequential):
                conv, norm = shortcut
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    shortcut[0], shortcut[1] = fold_into_conv(conv, norm), nn.Identity()


class Bottleneck(nn.Module):
    """1x1 to `inside` channels, 3x3 with stride, 1x1 to four times as many, plus the shortcut."""

    def __init__(self, in_channels: int, inside: int, stride: int) -> None:
        super().__init__()
        out_channels = inside * _EXPANSION
        self.conv1 = nn.Conv2d(in_channels, inside, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, inside, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inside)
        self.conv3 = nn.Conv2d(inside, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, 4 * inside, H / stride, W / stride]."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(y + shortcut)
