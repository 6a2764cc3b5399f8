"""Images to latents in one pass: `Encoder` and `encode`.

The estimate takes milliseconds where a projection takes a minute, and is where projections start.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from pyfacelat import zoo
from pyfacelat.errors import ConfigError
from pyfacelat.faces.align import AlignedFace
from pyfacelat.faces.detect import Detector
from pyfacelat.images import read_images
from pyfacelat.nets.stylegan2 import Generator
from pyfacelat.photographs import FaceFinder, check_face
from pyfacelat.projection.encoders import check_encoder, input_size
from pyfacelat.projection.encoders import encode as encode_batch
from pyfacelat.projection.framing import check_align, frame_inputs
from pyfacelat.projection.inputs import Inputs
from pyfacelat.projection.runtime import resolve_device

__all__ = ["Encoded", "Encoder", "encode"]


@dataclass(frozen=True)
class Encoded:
    """What an encoder saw, and what it made of it.

    Attributes:
        ws: latents [N,num_ws,w_dim] float32, on the CPU.
        images: the aligned faces it was shown, [N,3,R,R] in [-1, 1].
        crops: for each the FFHQ crop that was made of a photograph, or None.
    """

    ws: Tensor
    images: Tensor
    crops: list[AlignedFace | None]


class Encoder:
    """An encoder with its generator, ready for many images.

    Args: as `encode`.

    Attributes:
        generator: whose latents they are, or None.
        net: the encoder.
        device: where both are.
    """

    def __init__(
        self,
        encoder: str | os.PathLike[str] | nn.Module = "auto",
        *,
        network: str | os.PathLike[str] | Generator | None = "sample",
        align: bool | str = "auto",
        face: str | int = "largest",
        detector: str | os.PathLike[str] | Detector = "auto",
        landmarker: str | os.PathLike[str] | nn.Module = "auto",
        device: str | torch.device = "auto",
    ) -> None:
        check_align(align)
        check_face(face)
        sample = isinstance(network, str) and network == "sample"
        if isinstance(encoder, str) and encoder == "auto":
            if not sample:
                raise ConfigError(
                    "encoder: this network has none of its own; give the file of an e4e, pSp or "
                    "image-to-latent network"
                )
            encoder = "sample"
        self.device = resolve_device(device)
        self.net = (
            encoder.to(self.device).eval()
            if isinstance(encoder, nn.Module)
            else zoo.load_any_encoder(encoder, device=self.device)
        )
        self.generator: Generator | None
        if network is None or isinstance(network, Generator):
            self.generator = network
        else:
            self.generator = zoo.load_generator(network, device=self.device)
        check_encoder(self.net, self.generator)
        self._align = align
        auto: str | os.PathLike[str] | nn.Module = "sample" if sample else "2dfan4"
        named_auto = isinstance(landmarker, str) and landmarker == "auto"
        self._finding: dict[str, Any] = {
            "detector": detector,
            "landmarker": auto if named_auto else landmarker,
            "face": face,
            "device": self.device,
        }
        self._finder: FaceFinder | None = None

    def __call__(self, images: Any) -> Encoded:
        """Encode one image or several. Arguments and errors as `encode`."""
        size = input_size(self.net)
        if self.generator is not None:
            size = max(size, self.generator.img_resolution)
        pictures = read_images(images, name="images")
        inputs = Inputs(pictures, None, None)
        crops: list[AlignedFace | None] = [None] * len(inputs)
        # Tensors are taken for crops, unless told otherwise; then no landmark network is needed.
        if self._align is True or (
            self._align == "auto" and any(isinstance(image, Image.Image) for image in pictures)
        ):
            self._finder = self._finder or FaceFinder(**self._finding)
            framed = frame_inputs(inputs, self._align, self._finder, size)
            inputs, crops = framed.inputs, framed.looks
        batch = inputs.look_batch(size)
        ws = encode_batch(self.net, self.generator, batch.to(self.device))
        return Encoded(ws.float().cpu(), batch, crops)


def encode(
    images: Any,
    encoder: str | os.PathLike[str] | nn.Module = "auto",
    *,
    network: str | os.PathLike[str] | Generator | None = "sample",
    align: bool | str = "auto",
    face: str | int = "largest",
    detector: str | os.PathLike[str] | Detector = "auto",
    landmarker: str | os.PathLike[str] | nn.Module = "auto",
    device: str | torch.device = "auto",
) -> Tensor:
    """Estimate latents of faces in one pass of an encoder.

    Args:
        images: one or several, as `look` of `pyfacelat.project`.
        encoder: the file of an e4e, pSp or image-to-latent network, or such a network; "auto" is
            the sample network's own, "sample".
        network: the generator whose latents they are: "sample", a file or a `Generator`; None for
            encoders that need none and shall not be held to one.
        align: as in `pyfacelat.project`, like `face`, `detector`, `landmarker` and `device`.
        face: which of several faces.
        detector: what finds faces.
        landmarker: what reads them, in pictures and files.
        device: where the networks run.

    Returns:
        latents [N,num_ws,w_dim] float32: of an encoder in W, like the sample one, with equal rows.

    Raises:
        ConfigError: the encoder and the network do not fit, or there is no encoder.
        ImageError, NoFaceError, CheckpointError, MissingWeightsError, DeviceError: as
            `pyfacelat.project`.
    """
    read = Encoder(
        encoder,
        network=network,
        align=align,
        face=face,
        detector=detector,
        landmarker=landmarker,
        device=device,
    )
    return read(images).ws
