"""A small identity net: who a face is, whatever its pose, expression and light.

It stands in for ArcFace (Deng et al. 2019) among the sample models. The body is a `SampleEncoder`
that estimates, instead of a latent, the coordinates in which the identities of its training faces
differ; the embedding is their direction, so two images are compared by the cosine.
"""

from __future__ import annotations

import dataclasses

import torch.nn.functional as F
from torch import Tensor

from .checks import check_images, check_integers
from .folding import Foldable
from .sample_encoder import SampleEncoder, SampleEncoderConfig

__all__ = ["IdentityConfig", "IdentityNet"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdentityConfig:
    """Size of an `IdentityNet`. Round-trips through JSON.

    Raises:
        ValueError: a field is out of its range; the message names field, rule and value.
    """

    embedding_dim: int
    """Width of the embedding, at least 2."""
    input_size: int = 128
    """Side of the images it works on; others are resized."""
    widths: tuple[int, ...] = (16, 32, 48, 64, 64)
    """Feature channels of the five stages of its body."""
    hidden: int = 128
    """Width of the hidden layers."""
    stride: int = 2
    """Of the first convolution, 1 or 2."""
    window_width: int = 32
    """Channels of the closer look at eyes and mouth; 0 leaves it out."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        check_integers(self, {"embedding_dim": (2, 1 << 16)})
        self.body()

    def body(self) -> SampleEncoderConfig:
        """Size of the body."""
        shared = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return SampleEncoderConfig(z_dim=shared.pop("embedding_dim"), **shared)


class IdentityNet(Foldable):
    """Images to unit embeddings; `config` is its `IdentityConfig`.

    Attributes:
        input_size: side of the images it works on.
        embed_dim: width of the embedding.
    """

    def __init__(self, config: IdentityConfig) -> None:
        super().__init__()
        self.config = config
        self.input_size = config.input_size
        self.embed_dim = config.embedding_dim
        self.body = SampleEncoder(config.body())

    def forward(self, images: Tensor) -> Tensor:
        """Embed images.

        Args:
            images: RGB [N, 3, S, S] in [-1, 1]; other sizes than `config.input_size` are resized,
                by averaging when they shrink.

        Returns:
            [N, embedding_dim] of length 1, dtype of the parameters. The cosine of two embeddings
            is near 1 for one identity.

        Raises:
            ValueError: images have a wrong shape.
        """
        check_images(images, side=images.shape[-1])
        size = self.input_size
        if images.shape[-1] > size:
            images = F.interpolate(images, size=(size, size), mode="area")
        elif images.shape[-1] < size:
            images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
        return F.normalize(self.body.latent(images), dim=1)

    def fold(self) -> None:
        """Put the normalisation into the convolutions, in place and for good."""
        self.body.fold()
