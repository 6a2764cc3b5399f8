"""e4e and pSp: photographs to latents of a StyleGAN2 generator, one for each of its layers.

Richardson et al. 2021, "Encoding in Style" (pSp, arXiv:2008.00951) and Tov et al. 2021, "Designing
an Encoder for StyleGAN Image Manipulation" (e4e, arXiv:2102.02766): an IR-SE50 trunk, a feature
pyramid on its last three stages (top-down, bilinear with aligned corners, 1x1 lateral
convolutions), and for every layer a head on one level of the pyramid, rows 0 to 2 on the coarsest,
3 to 6 on the middle one, the rest on the finest. In pSp a head gives its row; in e4e head 0 gives
one w for all rows, and the others what their row differs by, so that training can begin with none
of them and add row after row.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_images, check_integers
from .folding import Foldable
from .irse import IRConfig, IRTrunk
from .layers import FullyConnected

__all__ = ["E4E", "E4EConfig"]

# First rows whose heads are on the middle and on the finest level of the pyramid.
_MIDDLE, _FINE = 3, 7
_SLOPE = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class E4EConfig(IRConfig):
    """Size of an `E4E`; the defaults are the published e4e at 1024 px. Round-trips through JSON.

    Raises:
        ValueError: a field is out of its range; the message names field, rule and value.
    """

    variant: str = "ir-se"
    num_ws: int = 18
    """Rows of a latent: 2 log2(resolution) - 2."""
    w_dim: int = 512
    """Width of a row."""
    input_size: int = 256
    """Side of the images, a power of two from 32 to 1024."""
    relative: bool = True
    """Rows are differences from row 0 (e4e) or stand alone (pSp)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integers(self, {"num_ws": (1, 64), "w_dim": (1, 1 << 16), "input_size": (32, 1024)})
        if self.input_size & (self.input_size - 1):
            raise ValueError(f"input_size: expected a power of two, got {self.input_size}")
        if len(self.blocks) != 4:
            raise ValueError(f"blocks: expected 4 stages, got {len(self.blocks)}")

    def head_size(self, row: int) -> int:
        """Side of the map that the head of a row looks at: 16, 32 or 64 for images of 256."""
        return self.input_size // (16 if row < _MIDDLE else 8 if row < _FINE else 4)


class E4E(Foldable):
    """Images to latents in W+; `config` is the `E4EConfig` it was built from.

    Attributes:
        latent_avg: [num_ws, w_dim], added to every latent; the generator's average w in each row,
            or zeros where an encoder was trained without.
    """

    latent_avg: Tensor

    def __init__(self, config: E4EConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = IRTrunk(config)
        width = config.widths[-1]
        # Coarse to fine.
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in config.widths[2:0:-1])
        self.heads = nn.ModuleList(
            Head(width, config.w_dim, config.head_size(row)) for row in range(config.num_ws)
        )
        self.register_buffer("latent_avg", torch.zeros(config.num_ws, config.w_dim))

    def forward(self, images: Tensor) -> Tensor:
        """Encode aligned faces.

        Args:
            images: RGB [N, 3, S, S] in [-1, 1] with S = `config.input_size`, dtype of the
                parameters.

        Returns:
            ws [N, num_ws, w_dim].

        Raises:
            ValueError: images have a wrong shape.
        """
        return self.codes(images) + self.latent_avg

    def codes(self, images: Tensor, stage: int | None = None) -> Tensor:
        """Latents without `latent_avg`.

        Args:
            images: as in `forward`.
            stage: of progressive training: rows above it stay those of row 0; None for all rows.

        Returns:
            [N, num_ws, w_dim].

        Raises:
            ValueError: images have a wrong shape, or `stage` is given to a pSp encoder.
        """
        config = self.config
        check_images(images, side=config.input_size)
        if stage is not None and not config.relative:
            raise ValueError(f"stage: only e4e is trained in stages, got {stage} for pSp")
        *_, fine, middle, features = self.trunk(images)
        last = config.num_ws if stage is None else min(stage + 1, config.num_ws)
        rows: list[Tensor] = []
        for row in range(last):
            if row == _MIDDLE:
                features = _upsampled(features, self.lateral[0](middle))
            elif row == _FINE:
                features = _upsampled(features, self.lateral[1](fine))
            code = self.heads[row](features)
            rows.append(rows[0] + code if rows and config.relative else code)
        rows += [rows[0]] * (config.num_ws - last)
        return torch.stack(rows, dim=1)

    def fold(self) -> None:
        """As `Foldable.fold`."""
        self.trunk.fold()


class Head(nn.Module):
    """3x3 convolutions with stride 2 down to one pixel, then a dense layer: a row of a latent."""

    def __init__(self, in_channels: int, w_dim: int, size: int) -> None:
        super().__init__()
        convs: list[nn.Module] = []
        while size > 1:
            convs.append(nn.Conv2d(in_channels, w_dim, 3, stride=2, padding=1))
            in_channels, size = w_dim, size // 2
        self.convs = nn.ModuleList(convs)
        self.dense = FullyConnected(w_dim, w_dim)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, size, size] -> [N, w_dim]."""
        for conv in self.convs:
            x = F.leaky_relu(conv(x), _SLOPE)
        y: Tensor = self.dense(x.flatten(1))
        return y


def _upsampled(x: Tensor, lateral: Tensor) -> Tensor:
    size = (lateral.shape[2], lateral.shape[3])
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True) + lateral
