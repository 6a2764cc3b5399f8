"""One small network, three uses: perceptual features, image-to-latent start, landmarks.

A VGG-like trunk with batch normalisation looks at an image in five stages; the stage maps serve
as the features of a perceptual metric (`FeatureTrunk`), and a dense head on the last one estimates
the latent that made the image and the landmarks in it. It belongs to the sample models, whose
images are made from known latents.
"""

from __future__ import annotations

import copy
import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .folding import fold_into_conv

__all__ = ["FeatureTrunk", "SampleEncoder", "SampleEncoderConfig"]

# tanh(0.75 z) spreads a unit normal evenly over (-1, 1), so rare extremes do not rule the loss.
LATENT_SQUASH = 0.75
_POOLED = 4  # the head sees the last stage at 4x4, whatever the image size


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleEncoderConfig:
    """Size of a `SampleEncoder`. Round-trips through JSON.

    Raises:
        ValueError: a field is out of its range; the message names field, rule and value.
    """

    z_dim: int
    """Width of the estimated latent."""
    input_size: int = 64
    """Side of the images it was trained on, at least 16."""
    widths: tuple[int, ...] = (16, 32, 64, 96, 96)
    """Feature channels of the stages; each stage after the first works at half the size."""
    hidden: int = 256
    """Width of the head's hidden layer."""
    num_landmarks: int = 68
    """Points of the landmark head; 0 leaves it out."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        limits = {"z_dim": 1, "input_size": 16, "hidden": 1, "num_landmarks": 0}
        values = [(name, getattr(self, name), least) for name, least in limits.items()]
        values += [(f"widths[{i}]", width, 1) for i, width in enumerate(self.widths)]
        for name, value, least in values:
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
        if len(self.widths) != 5:
            raise ValueError(f"widths: expected 5 stages, got {len(self.widths)}")


class SampleEncoder(nn.Module):
    """Images to features, latent and landmarks; `config` is its `SampleEncoderConfig`."""

    def __init__(self, config: SampleEncoderConfig) -> None:
        super().__init__()
        self.config = config
        stages = []
        below = 3
        for width in config.widths:
            stages.append(nn.Sequential(_ConvUnit(below, width), _ConvUnit(width, width)))
            below = width
        self.stages = nn.ModuleList(stages)
        self.hidden = nn.Linear(below * _POOLED**2, config.hidden, bias=False)
        self.hidden_norm = nn.BatchNorm1d(config.hidden)
        self.latent_head = nn.Linear(config.hidden, config.z_dim)
        self.landmark_head: nn.Linear | None = None
        if config.num_landmarks:
            self.landmark_head = nn.Linear(config.hidden, 2 * config.num_landmarks)

    def features(self, x: Tensor) -> list[Tensor]:
        """Stage maps, after ReLU.

        Args:
            x: RGB images [N, 3, H, W] in [-1, 1], H and W at least 16.

        Returns:
            Five maps [N, widths[k], H // 2**k, W // 2**k], k = 0 to 4.
        """
        maps: list[Tensor] = []
        for stage in self.stages:
            x = stage(F.max_pool2d(x, 2) if maps else x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Estimate latent and landmarks.

        Args:
            x: RGB images [N, 3, H, W] in [-1, 1].

        Returns:
            tanh(0.75 z) [N, z_dim] for the estimated z, and the landmarks [N, num_landmarks, 2]
            as (x, y) in units of the image side, (0, 0) its upper left corner, (1, 1) the lower
            right one; they lie in [0, 1] except for points outside the image. None without
            landmark head.
        """
        hidden = self._hidden(x)
        squashed = torch.tanh(LATENT_SQUASH * self.latent_head(hidden))
        if self.landmark_head is None:
            return squashed, None
        # Offsets from the image centre: the untrained head then starts near the right place.
        return squashed, self.landmark_head(hidden).unflatten(1, (-1, 2)) + 0.5

    def latent(self, x: Tensor) -> Tensor:
        """Estimated z [N, z_dim] of images as in `forward`; unsure entries are near 0."""
        z: Tensor = self.latent_head(self._hidden(x))
        return z

    def folded(self) -> SampleEncoder:
        """Copy this network with the normalisation inside the convolutions.

        Frozen, in evaluation mode, equal up to rounding, faster; it has other state-dict names, so
        save the original.
        """
        encoder = copy.deepcopy(self).eval().requires_grad_(False)
        for unit in list(encoder.modules()):
            if isinstance(unit, _ConvUnit):
                unit.conv = fold_into_conv(unit.conv, unit.norm)
                setattr(unit, "norm", nn.Identity())  # noqa: B010 (new type)
        # Convolutions hand on their weights' layout: channels_last is the faster one.
        return encoder.to(memory_format=torch.channels_last)

    def _hidden(self, x: Tensor) -> Tensor:
        last = F.adaptive_avg_pool2d(self.features(x)[-1], _POOLED)
        return F.relu(self.hidden_norm(self.hidden(last.flatten(1))))


class FeatureTrunk(nn.Module):
    """The stage maps of an encoder as a module of their own, the trunk of a perceptual metric.

    Attributes:
        encoder: the network it reads; shared, not copied.
        channels: of the five maps.
    """

    def __init__(self, encoder: SampleEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.channels = encoder.config.widths

    def forward(self, x: Tensor) -> list[Tensor]:
        """[N, 3, H, W] in [-1, 1] -> five stage maps; see `SampleEncoder.features`."""
        return self.encoder.features(x)


class _ConvUnit(nn.Module):
    """3x3 convolution, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)
