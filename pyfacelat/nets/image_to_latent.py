"""Images to W+ by a ResNet-50 with three linear layers behind it.

The "latent finder" of pytorch_stylegan_encoder (image_to_latent.pt): ResNet-50 up to its last
stage, a 1x1 convolution to 256 channels, and two dense layers, with no activation between them. It
gives optimisation a start; it was trained with the StyleGAN1 face generator.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from .checks import check_images, check_integers
from .folding import Foldable
from .resnet import ResNet, ResNetConfig

__all__ = ["ImageToLatent", "ImageToLatentConfig"]

# ImageNet statistics of images in [0, 1].
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageToLatentConfig(ResNetConfig):
    """Size of an `ImageToLatent`; the defaults are the published one. Round-trips through JSON.

    Raises:
        ValueError: a field is out of its range; the message names field, rule and value.
    """

    input_size: int = 256
    """Side of the images, a multiple of 32."""
    reduced: int = 256
    """Channels behind the 1x1 convolution."""
    hidden: int = 256
    """Width between the dense layers."""
    num_ws: int = 18
    """Rows of a latent."""
    w_dim: int = 512
    """Width of a row."""

    def __post_init__(self) -> None:
        super().__post_init__()
        limits = {"reduced": (1, 4096), "hidden": (1, 1 << 16), "num_ws": (1, 64)}
        check_integers(self, {"input_size": (32, 4096), **limits, "w_dim": (1, 1 << 16)})
        if self.input_size % 32:
            raise ValueError(f"input_size: expected a multiple of 32, got {self.input_size}")


class ImageToLatent(Foldable):
    """Images to latents; `config` is the `ImageToLatentConfig` it was built from."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: ImageToLatentConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = ResNet(config)
        self.reduce = nn.Conv2d(config.channels[-1], config.reduced, 1)
        side = config.input_size // 32
        self.dense1 = nn.Linear(config.reduced * side**2, config.hidden)
        self.dense2 = nn.Linear(config.hidden, config.num_ws * config.w_dim)
        for name, values in (("mean", _MEAN), ("deviation", _DEVIATION)):
            value = torch.tensor(values).reshape(3, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Estimate latents.

        Args:
            images: RGB [N, 3, S, S] in [-1, 1] with S = `config.input_size`, dtype of the
                parameters.

        Returns:
            ws [N, num_ws, w_dim].

        Raises:
            ValueError: images have a wrong shape.
        """
        config = self.config
        check_images(images, side=config.input_size)
        x = ((images + 1) / 2 - self.mean) / self.deviation
        (x,) = self.trunk.activations(x, ["layer4"])
        ws: Tensor = self.dense2(self.dense1(self.reduce(x).flatten(1)))
        return ws.reshape(images.shape[0], config.num_ws, config.w_dim)

    def fold(self) -> None:
        """As `Foldable.fold`."""
        self.trunk.fold()
