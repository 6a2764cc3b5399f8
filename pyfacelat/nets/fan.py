"""The Face Alignment Network: stacked hourglasses that turn a face into landmark heat maps.

Bulat and Tzimiropoulos 2017, "How far are we from solving the 2D & 3D face alignment problem?"
(arXiv:1703.07332), with the hierarchical multi-scale residual block of the same authors. In its
published size (`FANConfig()`) it takes the state dict of the face_alignment package's 2DFAN-4
strictly, and parameter names are that package's in every size.

    image --stem--> features at 1/4 --[hourglass -> block -> 1x1 conv -> heat maps] x stacks
    each stack but the last adds its features and its heat maps to the next stack's input
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .folding import ChannelAffine, fold_into_conv

__all__ = ["FAN", "FANConfig", "fold_batchnorm"]

_STEMS: dict[str, int] = {"fan": 4, "half": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FANConfig:
    """Size of a `FAN`; the defaults are the published 2DFAN-4. Round-trips through JSON.

    Raises:
        ValueError: a field is out of its range; the message names field, rule and value.
    """

    num_stacks: int = 4
    """Hourglasses, 1 to 8."""
    width: int = 256
    """Feature channels of the hourglasses, a multiple of 8; the stem has width/4 and width/2."""
    depth: int = 4
    """Halvings inside an hourglass, 1 to 6."""
    num_landmarks: int = 68
    input_size: int = 256
    """Side of the images the weights were trained on; others run, with less accurate results."""
    stem: str = "fan"
    """"fan" reduces the image by 4 before the hourglasses, "half" by 2 (for small images)."""

    def __post_init__(self) -> None:
        ranges = {
            "num_stacks": (1, 8),
            "width": (8, 1024),
            "depth": (1, 6),
            "num_landmarks": (1, 10_000),
            "input_size": (4, 4096),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ValueError(f"{name}: expected an integer from {low} to {high}, got {value!r}")
        if self.width % 8:
            raise ValueError(f"width: expected a multiple of 8, got {self.width}")
        if self.stem not in _STEMS:
            raise ValueError(f"stem: expected one of {', '.join(_STEMS)}, got {self.stem!r}")
        if self.input_size % self.divisor:
            raise ValueError(
                f"input_size: expected a multiple of {self.divisor} for depth {self.depth} and "
                f"stem {self.stem!r}, got {self.input_size}"
            )

    @property
    def stride(self) -> int:
        """Image pixels per heat map cell: 4 for stem "fan", 2 for "half"."""
        return _STEMS[self.stem]

    @property
    def divisor(self) -> int:
        """What sides of input images must be multiples of."""
        return self.stride << self.depth

    @property
    def map_size(self) -> int:
        """Side of the heat maps of an image of `input_size`."""
        return self.input_size // self.stride


class FAN(nn.Module):
    """Images to landmark heat maps; `config` is the `FANConfig` it was built from."""

    def __init__(self, config: FANConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.conv1 = nn.Conv2d(3, width // 4, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(width // 4)
        self.conv2 = MultiScaleBlock(width // 4, width // 2)
        self.conv3 = MultiScaleBlock(width // 2, width // 2)
        self.conv4 = MultiScaleBlock(width // 2, width)
        for i in range(config.num_stacks):
            self.add_module(f"m{i}", Hourglass(width, config.depth))
            self.add_module(f"top_m_{i}", MultiScaleBlock(width, width))
            self.add_module(f"conv_last{i}", nn.Conv2d(width, width, 1))
            self.add_module(f"bn_end{i}", nn.BatchNorm2d(width))
            self.add_module(f"l{i}", nn.Conv2d(width, config.num_landmarks, 1))
            if i + 1 < config.num_stacks:
                self.add_module(f"bl{i}", nn.Conv2d(width, width, 1))
                self.add_module(f"al{i}", nn.Conv2d(config.num_landmarks, width, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Predict heat maps.

        Args:
            x: RGB images [N, 3, H, W] in [0, 1], dtype of the parameters; H and W multiples of
                `config.divisor` (64 for the published size). Faces should fill the image as in
                training.

        Returns:
            One [N, num_landmarks, H/stride, W/stride] for each stack; the last is the
            prediction. Cell (i, j) covers the pixels around ((j + .5) stride, (i + .5) stride).

        Raises:
            ValueError: x has a wrong shape.
        """
        divisor = self.config.divisor
        if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] % divisor or x.shape[3] % divisor:
            raise ValueError(
                f"x: expected shape [N, 3, H, W] with H and W multiples of {divisor}, "
                f"got {list(x.shape)}"
            )
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)  # [N, width/4, H/2, W/2]
        x = self.conv2(x)
        if self.config.stem == "fan":
            x = F.avg_pool2d(x, 2)
        x = self.conv4(self.conv3(x))  # [N, width, H/stride, W/stride]

        maps: list[Tensor] = []
        for i in range(self.config.num_stacks):
            part = self.get_submodule
            y = part(f"top_m_{i}")(part(f"m{i}")(x))
            y = F.relu(part(f"bn_end{i}")(part(f"conv_last{i}")(y)), inplace=True)
            maps.append(part(f"l{i}")(y))
            if i + 1 < self.config.num_stacks:
                x = x + part(f"bl{i}")(y)
                if hasattr(self, f"al{i}"):  # absent once folded into bl
                    x = x + part(f"al{i}")(maps[-1])
        return maps


class MultiScaleBlock(nn.Module):
    """Pre-activation residual block: three 3x3 convolutions in a row, their outputs concatenated.

    1/2, 1/4 and 1/4 of the output channels, so later ones see more of the image; the shortcut is
    a 1x1 convolution where the width changes.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half, quarter = out_channels // 2, out_channels // 4
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, half, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, quarter, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(quarter)
        self.conv3 = nn.Conv2d(quarter, quarter, 3, padding=1, bias=False)
        self.downsample: nn.Sequential | None = None
        if in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.BatchNorm2d(in_channels),
                nn.ReLU(inplace=True),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H, W]."""
        a = self.conv1(F.relu(self.bn1(x), inplace=True))
        b = self.conv2(F.relu(self.bn2(a), inplace=True))
        c = self.conv3(F.relu(self.bn3(b), inplace=True))
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.cat((a, b, c), dim=1) + shortcut


class Hourglass(nn.Module):
    """`depth` halvings and doublings with a skip branch at each size.

    Level `depth` is the outermost; at level k, b1_k is the skip branch, b2_k follows the halving,
    b3_k precedes the doubling, and b2_plus_1 is the bottom.
    """

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        for level in range(depth, 0, -1):
            self.add_module(f"b1_{level}", MultiScaleBlock(width, width))
            self.add_module(f"b2_{level}", MultiScaleBlock(width, width))
        self.add_module("b2_plus_1", MultiScaleBlock(width, width))
        for level in range(1, depth + 1):
            self.add_module(f"b3_{level}", MultiScaleBlock(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """[N, width, H, W] -> the same shape."""
        skips: list[Tensor] = []
        for level in range(self.depth, 0, -1):
            skips.append(self.get_submodule(f"b1_{level}")(x))
            x = self.get_submodule(f"b2_{level}")(F.avg_pool2d(x, 2))
        x = self.get_submodule("b2_plus_1")(x)
        for level in range(1, self.depth + 1):
            x = self.get_submodule(f"b3_{level}")(x)
            x = skips.pop() + F.interpolate(x, scale_factor=2, mode="nearest")
        return x


def fold_batchnorm(fan: FAN) -> FAN:
    """Return an equal network with fewer operations, for inference and for gradients to images.

    Batch normalisation behind a convolution goes into the convolution, elsewhere it becomes one
    multiply-add; the two 1x1 convolutions that feed a stack's result to the next one become one.
    Weights are channels_last, and so are the heat maps.

    Args:
        fan: a trained network; not changed.

    Returns:
        A new frozen network in evaluation mode, equal to `fan.eval()` up to rounding, with other
        state-dict names: save the original.
    """
    folded = copy.deepcopy(fan).eval().requires_grad_(False)
    folded.conv1 = fold_into_conv(folded.conv1, folded.bn1)
    setattr(folded, "bn1", nn.Identity())  # noqa: B010 (new type)
    part: Callable[[str], Any] = folded.get_submodule
    for i in range(folded.config.num_stacks):
        conv = fold_into_conv(part(f"conv_last{i}"), part(f"bn_end{i}"))
        setattr(folded, f"conv_last{i}", conv)
        setattr(folded, f"bn_end{i}", nn.Identity())
        if i + 1 < folded.config.num_stacks:
            _merge_feedback(part(f"l{i}"), part(f"bl{i}"), part(f"al{i}"))
            delattr(folded, f"al{i}")
    for module in list(folded.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, ChannelAffine(child))
    # Convolutions hand on their weights' layout: channels_last is the faster one on CPU and GPU.
    return folded.to(memory_format=torch.channels_last)


def _merge_feedback(maps: nn.Conv2d, features: nn.Conv2d, back: nn.Conv2d) -> None:
    """Make `features` compute features(y) + back(maps(y)): all three are 1x1 convolutions."""
    assert features.bias is not None and maps.bias is not None and back.bias is not None
    matrix = back.weight.double().flatten(1)  # [width, landmarks]
    weight = matrix @ maps.weight.double().flatten(1)
    bias = matrix @ maps.bias.double() + back.bias.double()
    features.weight.add_(weight[:, :, None, None])
    features.bias.add_(bias)
