"""One small network, three uses: perceptual features, image-to-latent start, landmarks.

A VGG-like trunk with batch normalisation looks at an image in five stages; the stage maps serve
as the features of a perceptual metric (`FeatureTrunk`). A dense head on the last one estimates the
landmarks; the latent that made the image is estimated from the same features and from a closer look
at the first two stages around eyes and mouth, since a gaze is two pixels of 128: the last stage no
longer has them, and in a mean over an image they count for nothing, so the metric looks there too.
The network belongs to the sample models, whose images are made from known latents.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .folding import Foldable, fold_into_conv

__all__ = ["FeatureTrunk", "SampleEncoder", "SampleEncoderConfig"]

# tanh(0.75 z) spreads a unit normal evenly over (-1, 1), so rare extremes do not rule the loss.
LATENT_SQUASH = 0.75
_POOLED = 4  # the heads see the last map at 4x4, whatever the image size

# Windows that are looked at closely: the landmarks whose mean is the centre, and where that lies in
# the average aligned face. Each eye goes with its brow. Faces are aligned, so all windows have one
# size, relative to the image.
_WINDOWS: dict[str, tuple[tuple[int, ...], tuple[float, float]]] = {
    "left_eye": ((*range(17, 22), *range(36, 42)), (0.38, 0.44)),
    "right_eye": ((*range(22, 27), *range(42, 48)), (0.62, 0.44)),
    "mouth": (tuple(range(48, 68)), (0.5, 0.75)),
}
_WINDOW_LANDMARKS = 68
_WINDOW_HALF = 0.14
_WINDOW_CELLS = 16
_WINDOW_UNITS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleEncoderConfig:
    """Size of a `SampleEncoder`. Round-trips through JSON.

    Raises:
        ValueError: a field is out of its range; the message names field, rule and value.
    """

    z_dim: int
    """Width of the estimated latent."""
    input_size: int = 64
    """Side of the images it was trained on, at least 16 times the stride."""
    widths: tuple[int, ...] = (16, 32, 64, 96, 96)
    """Feature channels of the stages; each stage after the first works at half the size."""
    hidden: int = 256
    """Width of the hidden layer of each head."""
    num_landmarks: int = 68
    """Points of the landmark head; 0 leaves it out."""
    stride: int = 1
    """Of the first convolution, 1 or 2; with 2, images of twice the side cost the same."""
    window_width: int = 0
    """Channels of the windows around eyes and mouth, which need 68 landmarks; 0 leaves them out."""

    @property
    def metric_channels(self) -> tuple[int, ...]:
        """Channels of the maps that a perceptual metric compares: stages, then windows."""
        maps = _WINDOW_UNITS * len(_WINDOWS) if self.window_width else 0
        return self.widths + maps * (self.window_width,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        limits = {"z_dim": 1, "input_size": 16, "hidden": 1, "num_landmarks": 0, "window_width": 0}
        values = [(name, getattr(self, name), least) for name, least in limits.items()]
        values += [(f"widths[{i}]", width, 1) for i, width in enumerate(self.widths)]
        for name, value, least in values:
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
        if len(self.widths) != 5:
            raise ValueError(f"widths: expected 5 stages, got {len(self.widths)}")
        if self.stride not in (1, 2):
            raise ValueError(f"stride: expected 1 or 2, got {self.stride!r}")
        if self.input_size < 16 * self.stride:
            raise ValueError(
                f"input_size: expected at least 16 times the stride {self.stride}, "
                f"got {self.input_size}"
            )
        if self.window_width and self.num_landmarks != _WINDOW_LANDMARKS:
            raise ValueError(
                f"window_width: windows need num_landmarks {_WINDOW_LANDMARKS}, "
                f"got {self.num_landmarks}"
            )


class SampleEncoder(Foldable):
    """Images to features, latent and landmarks; `config` is its `SampleEncoderConfig`.

    The buffers `lin0`, `lin1` ... [metric_channels[k]] >= 0 weigh channels in a perceptual metric;
    a fresh network counts every map alike.
    """

    def __init__(self, config: SampleEncoderConfig) -> None:
        super().__init__()
        self.config = config
        stages = []
        below = 3
        for k, width in enumerate(config.widths):
            stride = 1 if k else config.stride
            stages.append(nn.Sequential(_ConvUnit(below, width, stride), _ConvUnit(width, width)))
            below = width
        for k, width in enumerate(config.metric_channels):
            weights = torch.full((width,), 1 / len(config.metric_channels))
            self.register_buffer(f"lin{k}", weights)
        self.stages = nn.ModuleList(stages)
        self.hidden = nn.Linear(below * _POOLED**2, config.hidden, bias=False)
        self.hidden_norm = nn.BatchNorm1d(config.hidden)
        self.landmark_head: nn.Linear | None = None
        if config.num_landmarks:
            self.landmark_head = nn.Linear(config.hidden, 2 * config.num_landmarks)
        self.windows: _Windows | None = None
        if config.window_width:
            self.windows = _Windows(sum(config.widths[:2]), config.window_width, config.hidden)
        looks = 2 if config.window_width else 1
        self.latent_head = nn.Linear(looks * config.hidden, config.z_dim)

    def features(self, x: Tensor) -> list[Tensor]:
        """Stage maps, after ReLU.

        Args:
            x: RGB images [N, 3, H, W] in [-1, 1], H and W at least 16 times the stride, and
                multiples of the stride.

        Returns:
            Five maps [N, widths[k], H / stride // 2**k, W / stride // 2**k], k = 0 to 4.
        """
        maps: list[Tensor] = []
        for stage in self.stages:
            x = stage(F.max_pool2d(x, 2) if maps else x)
            maps.append(x)
        return maps

    def metric_maps(self, x: Tensor) -> list[Tensor]:
        """Maps that a perceptual metric compares: those of `features`, then those of the windows.

        A window's maps are [N, window_width, 16, 16], [.., 8, 8] and [.., 4, 4]. Windows follow the
        landmarks, so they compare one face's mouth with the other's, wherever it is.
        """
        maps = self.features(x)
        if self.windows is None:
            return maps
        close = self.windows.looks_at(maps[0], maps[1], self.points_from(maps[-1]).detach())
        return maps + [part for window in close for part in window]

    def points_from(self, last: Tensor) -> Tensor:
        """Landmarks [N, num_landmarks, 2] from the last map of `features`; there is a head."""
        points = self._points(self._hidden(last))
        assert points is not None
        return points

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
        latent, points = self.estimate(x)
        return torch.tanh(LATENT_SQUASH * latent), points

    def latent(self, x: Tensor) -> Tensor:
        """Estimated z [N, z_dim] of images as in `forward`; unsure entries are near 0."""
        return self.estimate(x)[0]

    def fold(self) -> None:
        """Put the normalisation into the convolutions, in place and for good."""
        for unit in list(self.modules()):
            if isinstance(unit, _ConvUnit):
                unit.conv = fold_into_conv(unit.conv, unit.norm)
                setattr(unit, "norm", nn.Identity())  # noqa: B010 (new type)

    def estimate(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Estimated z [N, z_dim], not squashed, and the landmarks; else as `forward`."""
        maps = self.features(x)
        hidden = self._hidden(maps[-1])
        points = self._points(hidden)
        if self.windows is not None:
            assert points is not None  # the config sees to it
            close = self.windows(maps[0], maps[1], points.detach())
            hidden = torch.cat([hidden, close], dim=1)
        latent: Tensor = self.latent_head(hidden)
        return latent, points

    def _hidden(self, last: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(last, _POOLED)
        return F.relu(self.hidden_norm(self.hidden(pooled.flatten(1))))

    def _points(self, hidden: Tensor) -> Tensor | None:
        if self.landmark_head is None:
            return None
        # Offsets from the image centre: the untrained head then starts near the right place.
        return self.landmark_head(hidden).unflatten(1, (-1, 2)) + 0.5


class FeatureTrunk(nn.Module):
    """The maps of an encoder as a module of their own, the trunk of a perceptual metric.

    Attributes:
        encoder: the network it reads; shared, not copied.
        channels: of the maps.
        regions: for each map the part of an aligned image that it shows, as (left, top, right,
            bottom) in units of the image side; None for all of it.
    """

    def __init__(self, encoder: SampleEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.channels = encoder.config.metric_channels
        self.regions: tuple[tuple[float, float, float, float] | None, ...]
        self.regions = (None,) * len(encoder.config.widths)
        if encoder.windows is not None:
            for _, (x, y) in _WINDOWS.values():
                half = _WINDOW_HALF
                self.regions += ((x - half, y - half, x + half, y + half),) * _WINDOW_UNITS

    def forward(self, x: Tensor) -> list[Tensor]:
        """[N, 3, H, W] in [-1, 1] -> maps; see `SampleEncoder.metric_maps`."""
        return self.encoder.metric_maps(x)


class _Windows(nn.Module):
    """A closer look at eyes and mouth: the first two stage maps, sampled at the landmarks."""

    def __init__(self, in_channels: int, width: int, hidden: int) -> None:
        super().__init__()
        self.looks = nn.ModuleDict(
            {
                name: nn.Sequential(
                    _ConvUnit(in_channels, width),
                    _ConvUnit(width, width, 2),
                    _ConvUnit(width, width, 2),
                )
                for name in _WINDOWS
            }
        )
        averages = torch.zeros(len(_WINDOWS), _WINDOW_LANDMARKS)
        for row, (members, _) in zip(averages, _WINDOWS.values(), strict=True):
            row[list(members)] = 1 / len(members)
        self.averages: Tensor
        self.register_buffer("averages", averages, persistent=False)
        cells = (_WINDOW_CELLS // 4) ** 2
        self.hidden = nn.Linear(len(_WINDOWS) * width * cells, hidden, bias=False)
        self.hidden_norm = nn.BatchNorm1d(hidden)

    def forward(self, first: Tensor, second: Tensor, points: Tensor) -> Tensor:
        """Stage maps [N, C, H, W] and landmarks [N, 68, 2] relative to the image -> [N, hidden]."""
        seen = [maps[-1].flatten(1) for maps in self.looks_at(first, second, points)]
        hidden: Tensor = self.hidden_norm(self.hidden(torch.cat(seen, dim=1)))
        return F.relu(hidden)

    def looks_at(self, first: Tensor, second: Tensor, points: Tensor) -> list[list[Tensor]]:
        """The three maps of every window; arguments as in `forward`."""
        seen = []
        for name, grid in self.grids(points).items():
            parts = [
                F.grid_sample(maps, grid.to(maps.dtype), align_corners=False)
                for maps in (first, second)
            ]
            maps = [torch.cat(parts, dim=1)]
            for unit in self.looks[name]:  # type: ignore[attr-defined]
                maps.append(unit(maps[-1]))
            seen.append(maps[1:])
        return seen

    def grids(self, points: Tensor) -> dict[str, Tensor]:
        """Where each window looks, [N, cells, cells, 2] as `F.grid_sample` has it, by name."""
        along = (torch.arange(_WINDOW_CELLS, device=points.device) + 0.5) / _WINDOW_CELLS * 2 - 1
        y, x = torch.meshgrid(along, along, indexing="ij")
        offsets = torch.stack([x, y], dim=-1) * _WINDOW_HALF  # [cells, cells, 2]
        centres = {
            name: points[:, list(members)].mean(1) for name, (members, _) in _WINDOWS.items()
        }
        return {name: (c[:, None, None] + offsets) * 2 - 1 for name, c in centres.items()}


class _ConvUnit(nn.Module):
    """Convolution, 3x3 (4x4 with stride 2, which keeps cells centred), normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, stride + 2, stride=stride, padding=1, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)
