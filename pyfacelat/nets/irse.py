"""The residual trunk of face recognition networks: IR, IR-SE and IResNet.

Pre-activation-like residual units from Deng et al. 2019, "ArcFace" (arXiv:1801.07698), section
3.1, with squeeze and excitation (Hu et al. 2018, arXiv:1709.01507) where the variant says so:

    x -> norm -> 3x3 conv [-> norm] -> PReLU -> 3x3 conv, stride -> norm [-> squeeze] -> + shortcut

Three variants are in use. "ir" and "ir-se" (InsightFace_Pytorch, face.evoLVe; e4e and pSp have an
IR-SE trunk) subsample the shortcut without weights where the width stays; "iresnet" (insightface)
has a second norm, and projects every shortcut that subsamples.
"""

from __future__ import annotations

import dataclasses
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_integers
from .folding import ChannelAffine, fold_into_conv

__all__ = ["IRConfig", "IRTrunk"]

VARIANTS = ("ir", "ir-se", "iresnet")


@dataclasses.dataclass(frozen=True, kw_only=True)
class IRConfig:
    """Size of an `IRTrunk`; the defaults are IR-50. Round-trips through JSON.

    Raises:
        ValueError: a field is out of its range; the message names field, rule and value.
    """

    variant: str = "ir"
    """"ir", "ir-se" or "iresnet"."""
    blocks: tuple[int, ...] = (3, 4, 14, 3)
    """Units of each stage; the first unit of every stage halves the image."""
    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of each stage; the stem has those of the first."""
    reduction: int = 16
    """Squeeze and excitation has 1/reduction of the channels inside."""

    def __post_init__(self) -> None:
        for name in ("blocks", "widths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        ranges = {"blocks": (1, 100), "widths": (1, 4096), "reduction": (1, 4096)}
        check_integers(self, ranges)
        if self.variant not in VARIANTS:
            raise ValueError(
                f"variant: expected one of {', '.join(VARIANTS)}, got {self.variant!r}"
            )
        if len(self.blocks) != len(self.widths) or not 1 <= len(self.blocks) <= 8:
            raise ValueError(
                f"blocks: expected as many as widths, 1 to 8, got {len(self.blocks)} "
                f"and {len(self.widths)}"
            )
        if self.variant == "ir-se" and min(self.widths) < self.reduction:
            raise ValueError(
                f"reduction: expected at most the smallest width, {min(self.widths)}, "
                f"got {self.reduction}"
            )

    @property
    def stage_ends(self) -> tuple[int, ...]:
        """Index of the last unit of each stage: 2, 6, 20, 23 for IR-50."""
        return tuple(count - 1 for count in itertools.accumulate(self.blocks))


class IRTrunk(nn.Module):
    """Images to the output of every stage; `config` is its `IRConfig`."""

    def __init__(self, config: IRConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = Stem(config.widths[0])
        units: list[nn.Module] = []
        below = config.widths[0]
        for count, width in zip(config.blocks, config.widths, strict=True):
            for index in range(count):
                units.append(Unit(config, below, width, stride=1 if index else 2))
                below = width
        self.units = nn.ModuleList(units)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Stage outputs.

        Args:
            x: RGB images [N, 3, H, W] in [-1, 1].

        Returns:
            One [N, widths[k], ceil(H / 2**(k+1)), ceil(W / 2**(k+1))] for each stage k.
        """
        x = self.stem(x)
        ends = self.config.stage_ends
        stages: list[Tensor] = []
        for index, unit in enumerate(self.units):
            x = unit(x)
            if index in ends:
                stages.append(x)
        return stages

    def fold(self) -> None:
        """Put batch normalisation into neighbouring convolutions, in place and for good."""
        for part in (self.stem, *self.units):
            part.fold()


class Stem(nn.Module):
    """3x3 convolution, norm, PReLU: [N, 3, H, W] -> [N, width, H, W]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(width)
        self.act = nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers."""
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y

    def fold(self) -> None:
        """As `IRTrunk.fold`."""
        self.conv, self.norm = _folded(self.conv, self.norm)


class Unit(nn.Module):
    """One residual unit: [N, in, H, W] -> [N, out, H / stride, W / stride]."""

    def __init__(self, config: IRConfig, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        iresnet = config.variant == "iresnet"
        self.stride = stride
        # Its result is zero-padded by the convolution, so it cannot be folded into that.
        self.norm1: nn.Module = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm2: nn.Module = nn.BatchNorm2d(out_channels) if iresnet else nn.Identity()
        self.act = nn.PReLU(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm3: nn.Module = nn.BatchNorm2d(out_channels)
        self.squeeze: nn.Module = nn.Identity()
        if config.variant == "ir-se":
            self.squeeze = SqueezeExcite(out_channels, config.reduction)
        self.shortcut: Projection | None = None
        if in_channels != out_channels or (iresnet and stride != 1):
            self.shortcut = Projection(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the unit."""
        y: Tensor = self.act(self.norm2(self.conv1(self.norm1(x))))
        y = self.squeeze(self.norm3(self.conv2(y)))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.stride != 1:
            # Every stride-th pixel, which the published code spells as a 1x1 maximum.
            x = x[:, :, :: self.stride, :: self.stride]
        return x + y

    def fold(self) -> None:
        """As `IRTrunk.fold`."""
        if isinstance(self.norm1, nn.BatchNorm2d):
            self.norm1 = ChannelAffine(self.norm1)
        self.conv1, self.norm2 = _folded(self.conv1, self.norm2)
        self.conv2, self.norm3 = _folded(self.conv2, self.norm3)
        if self.shortcut is not None:
            self.shortcut.conv, self.shortcut.norm = _folded(self.shortcut.conv, self.shortcut.norm)


class Projection(nn.Module):
    """1x1 convolution with stride and norm, for shortcuts that change shape."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers."""
        y: Tensor = self.norm(self.conv(x))
        return y


class SqueezeExcite(nn.Module):
    """x * sigmoid(expand(relu(reduce(mean over pixels of x)))), one factor a channel."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        inside = channels // reduction
        self.reduce = nn.Conv2d(channels, inside, 1, bias=False)
        self.expand = nn.Conv2d(inside, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> the same shape."""
        mean = x.mean(dim=(2, 3), keepdim=True)
        y: Tensor = x * torch.sigmoid(self.expand(F.relu(self.reduce(mean))))
        return y


def _folded(conv: nn.Conv2d, norm: nn.Module) -> tuple[nn.Conv2d, nn.Module]:
    """A convolution with the norm behind it inside, and nothing in the norm's place."""
    if isinstance(norm, nn.BatchNorm2d):
        conv = fold_into_conv(conv, norm)
    return conv, nn.Identity()
