"""Hyperparameters of the StyleGAN2 generator and discriminator, checked on construction.

Every field has the meaning and the default of the published StyleGAN2-ADA code. A config
round-trips through JSON: `GeneratorConfig(**json.loads(json.dumps(dataclasses.asdict(config))))`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from pyfacelat.ops import ACTIVATIONS

__all__ = ["DiscriminatorConfig", "GeneratorConfig"]

_ARCHITECTURES = ("skip", "resnet", "orig")
_MAX_RESOLUTION = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class _NetworkConfig:
    """What generator and discriminator have in common: the image and the widths."""

    c_dim: int = 0
    """Width of the class label; 0 for an unconditional network."""
    img_resolution: int = 1024
    """Side of the square image: a power of two, 4 to 4096."""
    img_channels: int = 3
    channel_base: int = 32768
    """Feature channels at resolution r are min(channel_base // r, channel_max)."""
    channel_max: int = 512
    channels: Mapping[int, int] | None = None
    """Explicit channels for every resolution from 4 up; overrides base and max."""
    architecture: str = "skip"
    """"skip", "resnet" or "orig" (figure 7 of the StyleGAN2 paper)."""
    resample_filter: tuple[float, ...] = (1, 3, 3, 1)
    """Separable FIR low-pass filter of every up- and downsampling; normalised when used."""
    activation: str = "lrelu"
    conv_clamp: float | None = None
    """Outputs of convolutions are clamped to +-conv_clamp times the layer's extra gain; 256 for
    networks trained with fp16 layers. Not visible in the tensors: it must come from the file."""
    num_fp16_res: int = 0
    """How many of the highest resolutions were trained in fp16. Recorded only: everything here
    runs in the parameters' dtype, with the clamp kept."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "resample_filter", tuple(float(v) for v in self.resample_filter))
        if self.channels is not None:
            # JSON turns the resolutions into strings.
            channels = {int(res): int(count) for res, count in self.channels.items()}
            object.__setattr__(self, "channels", channels)
        res = self.img_resolution
        _require(
            _is_int(res) and 4 <= res <= _MAX_RESOLUTION and res & (res - 1) == 0,
            "img_resolution",
            f"a power of two from 4 to {_MAX_RESOLUTION}",
            res,
        )
        for name in ("img_channels", "channel_base", "channel_max"):
            _require_count(name, getattr(self, name), 1)
        for name in ("c_dim", "num_fp16_res"):
            _require_count(name, getattr(self, name), 0)
        _require(
            self.architecture in _ARCHITECTURES,
            "architecture",
            f"one of {', '.join(_ARCHITECTURES)}",
            self.architecture,
        )
        _require_activation("activation", self.activation)
        _require(
            bool(self.resample_filter)
            and all(math.isfinite(v) for v in self.resample_filter)
            and sum(self.resample_filter) != 0,
            "resample_filter",
            "finite taps with a sum other than 0",
            self.resample_filter,
        )
        clamp = self.conv_clamp
        _require(
            clamp is None or (math.isfinite(clamp) and clamp > 0),
            "conv_clamp",
            "None or a positive number",
            clamp,
        )
        if self.channels is not None:
            _require(
                sorted(self.channels) == list(self.resolutions),
                "channels",
                f"one entry for each of the resolutions {list(self.resolutions)}",
                sorted(self.channels),
            )
        for res in self.resolutions:
            _require_count(f"channels at resolution {res}", self.channels_at(res), 1)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Resolutions of the blocks in ascending order: (4, 8, ..., img_resolution)."""
        return tuple(2**i for i in range(2, self.img_resolution.bit_length()))

    def channels_at(self, resolution: int) -> int:
        """Feature channels of the block at `resolution`."""
        if self.channels is not None:
            return self.channels[resolution]
        return min(self.channel_base // resolution, self.channel_max)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorConfig(_NetworkConfig):
    """The generator.

    Options of the published code that only choose an implementation (fused_modconv,
    fp16_channels_last) have no field: drop them. Readers of NVIDIA's files should take `conv_clamp`
    and `w_avg_beta` from the stored modules' attributes of those names, not from the defaults of
    their kwargs: these are None and 0.995 in the ADA code, but 256 and 0.998 in the StyleGAN2 code
    of the StyleGAN3 repository.

    Raises:
        ValueError: a field is out of its range; the message names field, rule and value.
    """

    z_dim: int = 512
    """Width of the input latent; 0 makes the class label the only input."""
    w_dim: int = 512
    num_mapping_layers: int = 8
    mapping_layer_features: int | None = None
    """Width of the mapping's hidden layers; None means w_dim."""
    embed_features: int | None = None
    """Width of the embedded label; None means w_dim. Without meaning when c_dim is 0."""
    mapping_activation: str = "lrelu"
    mapping_lr_multiplier: float = 0.01
    w_avg_beta: float | None = 0.995
    """Decay of the moving average of w in training; None: no `w_avg` buffer, no truncation."""
    use_noise: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("z_dim", "num_mapping_layers"):
            _require_count(name, getattr(self, name), 0)
        _require_count("w_dim", self.w_dim, 1)
        for name in ("mapping_layer_features", "embed_features"):
            if getattr(self, name) is not None:
                _require_count(name, getattr(self, name), 1)
        _require(self.z_dim + self.c_dim > 0, "z_dim", "at least 1 when c_dim is 0", self.z_dim)
        _require_activation("mapping_activation", self.mapping_activation)
        _require(
            math.isfinite(self.mapping_lr_multiplier) and self.mapping_lr_multiplier > 0,
            "mapping_lr_multiplier",
            "a positive number",
            self.mapping_lr_multiplier,
        )
        beta = self.w_avg_beta
        _require(beta is None or 0 <= beta <= 1, "w_avg_beta", "None or from 0 to 1", beta)

    @property
    def num_ws(self) -> int:
        """Rows of w that the synthesis network reads: 2 log2(img_resolution) - 2."""
        return 2 * (self.img_resolution.bit_length() - 1) - 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig(_NetworkConfig):
    """The discriminator; the mapping fields apply when c_dim > 0.

    Raises:
        ValueError: a field is out of its range; the message names field, rule and value.
    """

    architecture: str = "resnet"
    cmap_dim: int | None = None
    """Width of the projected label; None means the channels at resolution 4."""
    mbstd_group_size: int | None = 4
    """Images per group of the minibatch standard deviation; None: the whole batch."""
    mbstd_num_channels: int = 1
    """Feature maps that carry it; 0 leaves it out."""
    num_mapping_layers: int = 8
    mapping_layer_features: int | None = None
    """Width of the mapping's hidden layers; None means cmap_dim."""
    embed_features: int | None = None
    """Width of the embedded label; None means cmap_dim."""
    mapping_activation: str = "lrelu"
    mapping_lr_multiplier: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cmap_dim", "mbstd_group_size", "mapping_layer_features", "embed_features"):
            if getattr(self, name) is not None:
                _require_count(name, getattr(self, name), 1)
        for name in ("mbstd_num_channels", "num_mapping_layers"):
            _require_count(name, getattr(self, name), 0)
        if self.mbstd_num_channels:
            _require(
                self.channels_at(4) % self.mbstd_num_channels == 0,
                "mbstd_num_channels",
                f"a divisor of the {self.channels_at(4)} channels at resolution 4",
                self.mbstd_num_channels,
            )
        _require(self.img_resolution >= 8, "img_resolution", "at least 8 here", self.img_resolution)
        _require_activation("mapping_activation", self.mapping_activation)
        _require(
            math.isfinite(self.mapping_lr_multiplier) and self.mapping_lr_multiplier > 0,
            "mapping_lr_multiplier",
            "a positive number",
            self.mapping_lr_multiplier,
        )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require(condition: bool, name: str, rule: str, value: object) -> None:
    if not condition:
        raise ValueError(f"{name}: expected {rule}, got {value!r}")


def _require_count(name: str, value: object, least: int) -> None:
    ok = isinstance(value, int) and not isinstance(value, bool) and value >= least
    _require(ok, name, f"an integer of at least {least}", value)


def _require_activation(name: str, value: str) -> None:
    _require(value in ACTIVATIONS, name, f"one of {', '.join(ACTIVATIONS)}", value)
