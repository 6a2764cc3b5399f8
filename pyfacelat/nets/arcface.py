"""ArcFace: who a face is, as a direction in 512 dimensions.

Deng et al. 2019, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition"
(arXiv:1801.07698): a residual trunk (`irse`) with the head that paper calls E, norm - dropout -
dense - norm. Dropout does nothing outside of training and is left out. The cosine of two
embeddings says how likely two photographs show one person.
"""

from __future__ import annotations

import dataclasses

import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_images, check_integers
from .folding import Foldable, fold_into_linear
from .irse import IRConfig, IRTrunk

__all__ = ["ArcFace", "ArcFaceConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArcFaceConfig(IRConfig):
    """Size of an `ArcFace`; the defaults are IR-50. Round-trips through JSON.

    Raises:
        ValueError: a field is out of its range; the message names field, rule and value.
    """

    input_size: int = 112
    """Side of the images, a multiple of 2 for every stage."""
    embed_dim: int = 512
    """Width of the embedding."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integers(self, {"input_size": (2, 4096), "embed_dim": (1, 1 << 16)})
        if self.input_size % (1 << len(self.blocks)):
            raise ValueError(
                f"input_size: expected a multiple of {1 << len(self.blocks)} for "
                f"{len(self.blocks)} stages, got {self.input_size}"
            )

    @property
    def final_size(self) -> int:
        """Side of the last stage's maps: 7 for 112."""
        return self.input_size >> len(self.blocks)


class ArcFace(Foldable):
    """Aligned faces to unit embeddings.

    Attributes:
        config: the `ArcFaceConfig` it was built from.
        input_size: side of the images it takes.
        embed_dim: width of the embedding.
    """

    def __init__(self, config: ArcFaceConfig) -> None:
        super().__init__()
        self.config = config
        self.input_size = config.input_size
        self.embed_dim = config.embed_dim
        self.trunk = IRTrunk(config)
        width = config.widths[-1]
        self.head_norm = nn.BatchNorm2d(width)
        self.dense = nn.Linear(width * config.final_size**2, config.embed_dim)
        self.embed_norm = nn.BatchNorm1d(config.embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Embed faces.

        Args:
            images: RGB [N, 3, S, S] in [-1, 1] with S = `input_size`, aligned as in training
                (eyes and mouth at fixed places), dtype of the parameters.

        Returns:
            [N, embed_dim] of length 1. The published networks leave the division by the length to
            the caller in part; here it is always done.

        Raises:
            ValueError: images have a wrong shape.
        """
        check_images(images, side=self.input_size)
        x = self.head_norm(self.trunk(images)[-1])
        return F.normalize(self.embed_norm(self.dense(x.flatten(1))), dim=1)

    def fold(self) -> None:
        """As `Foldable.fold`."""
        self.trunk.fold()
        self.dense = fold_into_linear(self.dense, before=self.head_norm, after=self.embed_norm)
        for name in ("head_norm", "embed_norm"):
            setattr(self, name, nn.Identity())
