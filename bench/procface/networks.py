"""The networks of a benchmark run: those that answer, those of the losses, and the judge.

The judge is a landmark network that no loss sees. It measures, and nothing else.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyfacelat import procface, zoo
from pyfacelat.errors import ConfigError, MissingWeightsError
from pyfacelat.images import shrink_to
from pyfacelat.losses.landmark import Landmarker
from pyfacelat.losses.perceptual import LPIPS
from pyfacelat.nets.fan import fold_batchnorm
from pyfacelat.nets.sample_encoder import LATENT_SQUASH, SampleEncoder
from pyfacelat.nets.stylegan2 import Generator
from pyfacelat.projection import ProjectionConfig, Projector
from pyfacelat.projection.encoders import encode
from pyfacelat.projection.runtime import resolve_device

JUDGE = Path(__file__).resolve().parents[2] / "tests" / "data" / "judge_fan.safetensors"

_SAMPLE_FILES = {
    "generator": ("sample", ("sample-generator",)),
    "landmarker": ("sample", ("sample-landmarker",)),
    "perceptual": ("sample", ("sample-encoder",)),
    "encoder": ("sample", ("sample-encoder",)),
}
_NAMED_FILES = {
    ("landmarker", "2dfan4"): ("2dfan4",),
    ("perceptual", "lpips-vgg16"): ("vgg16", "lpips-lins"),
}


@dataclass(frozen=True)
class Sources:
    """Where each network comes from: a path, or a name that `pyfacelat.zoo` knows.

    Attributes:
        generator: "sample" or a StyleGAN2 file.
        landmarker: "auto", "sample", "2dfan4" or a FAN's file; what the losses see.
        perceptual: "auto", "sample", "lpips-vgg16" or an encoder's file; loss and look distance.
        encoder: "auto", "none", "sample" or a file: where presets other than `reference` start.
        judge: a FAN's file.

    """

    generator: str = "sample"
    landmarker: str = "auto"
    perceptual: str = "auto"
    encoder: str = "auto"
    judge: str = str(JUDGE)

    def resolved(self) -> dict[str, str]:
        """Path or name by role, with no "auto" left."""
        sample = self.generator == "sample"
        auto = {
            "landmarker": "sample" if sample else "2dfan4",
            "perceptual": "sample" if sample else "lpips-vgg16",
            "encoder": "sample" if sample else "none",
        }
        given = vars(self)
        return {role: auto[role] if source == "auto" else source for role, source in given.items()}


class Networks:
    """Everything loaded, on one device, in float32.

    Args:
        sources: where from.
        device: "auto", "cpu", "cuda", "cuda:N".

    Attributes:
        sources: path or name by role.
        device: where they are.
        size: the generator's resolution, which is the benchmark's.
        generator: who answers.
        judge, landmarker: the landmark network that measures, and the one in the losses.
        perceptual: the look distance.
        encoder: gives latents to start from, or None.
        sees_traits: whether the encoder estimates this renderer's parameters.

    Raises:
        CheckpointError, MissingWeightsError: a file is malformed, or absent.
        ConfigError: judge and landmarker are one and the same file.
        DeviceError: no such device.

    """

    def __init__(self, sources: Sources, device: str = "auto") -> None:
        self.sources = sources.resolved()
        self.device = resolve_device(device)
        if not Path(self.sources["judge"]).is_file():
            raise MissingWeightsError(f"judge: there is no file {self.sources['judge']}")
        self._files = {
            role: _files(role, source) for role, source in self.sources.items() if source != "none"
        }
        if {d for _, d in self.files["judge"]} & {d for _, d in self.files["landmarker"]}:
            raise ConfigError(
                f"judge: {self.sources['judge']} is also the landmark network of the losses; "
                "a judge must be one that no loss sees"
            )
        generator = zoo.load_generator(self.sources["generator"], device=self.device)
        if generator.c_dim > 0 or generator.img_channels != 3:
            raise ConfigError(
                "generator: expected an unconditional one with 3 image channels, got "
                f"c_dim={generator.c_dim}, img_channels={generator.img_channels}"
            )
        self.generator: Generator = generator
        self.size = int(generator.img_resolution)
        self.judge = Landmarker(zoo.load_landmarker(self.sources["judge"], device=self.device))
        fan = zoo.load_landmarker(self.sources["landmarker"], device=self.device)
        self._fan = fold_batchnorm(fan)  # as a projection does with a network it loads itself
        self.landmarker = Landmarker(self._fan)
        self.perceptual: LPIPS = zoo.load_perceptual(self.sources["perceptual"], device=self.device)
        self.encoder: SampleEncoder | None = None
        if self.sources["encoder"] != "none":
            self.encoder = zoo.load_encoder(self.sources["encoder"], device=self.device)
            if self.encoder.config.z_dim != self.generator.z_dim:
                raise ConfigError(
                    f"encoder: expected one for z of {self.generator.z_dim}, the generator's, "
                    f"got {self.encoder.config.z_dim}"
                )
        self.sees_traits = self.encoder is not None and self.encoder.config.z_dim == procface.Z_DIM

    @property
    def files(self) -> dict[str, list[tuple[str, str]]]:
        """File name and SHA-256 of each file, by role."""
        return self._files

    def projector(
        self, config: ProjectionConfig, seed: int, init: Tensor | None = None
    ) -> Projector:
        """A projector as a user would make one: with the sample networks by name, else by file.

        Args:
            config: what to do.
            seed: of its noise.
            init: latents [N,num_ws,w_dim] to start from; None leaves the start to the preset.

        """
        sample = self.sources["generator"] == "sample"
        network: Any = "sample" if sample and init is None else self.generator
        landmarker: Any = "sample"
        if self.sources["landmarker"] != "sample":
            landmarker = Landmarker(self._fan, resize=config.resize, normalize=config.normalize)
        return Projector(
            network,
            preset=config,
            space=config.space,
            seed=seed,
            landmark_backend=config.landmark_backend,
            perceptual=self.perceptual,
            landmarker=landmarker,
            init="auto" if init is None else init,
            device=self.device,
        )

    def start(self, look: Tensor, config: ProjectionConfig) -> Tensor | None:
        """Latents of images [N,3,R,R] by a user's own encoder; None where the preset knows better.

        The sample generator finds its encoder by itself, and `reference` starts at the mean.
        """
        by_itself = self.sources["generator"] == "sample" and self.sources["encoder"] == "sample"
        if by_itself or self.encoder is None or config.preset == "reference":
            return None
        return encode(self.encoder, self.generator, look.to(self.device))

    def points(self, net: Landmarker, images: Tensor) -> Tensor:
        """Relative points [N,68,2] that a landmark network sees in images [N,3,R,R]."""
        found = [net.points(part.to(self.device))[0] for part in images.split(32)]
        return torch.cat(found).cpu()

    @torch.no_grad()
    def look_distance(self, images: Tensor, other: Tensor, mask: Tensor | None = None) -> Tensor:
        """Perceptual distance [N] of images [N,3,R,R]; with a mask [N,1,R,R], of its area."""
        parts = []
        for i in range(0, len(images), 32):
            a, b = (shrink_to(x[i : i + 32].to(self.device), 256) for x in (images, other))
            area = None if mask is None else mask[i : i + 32].to(self.device)
            parts.append(self.perceptual(a, b, area))
        return torch.cat(parts).float().cpu()

    @torch.no_grad()
    def traits(self, images: Tensor) -> Tensor:
        """The face parameters the encoder sees, as tanh(0.75 z), [N,z_dim]."""
        assert self.encoder is not None
        net, size = self.encoder, self.encoder.config.input_size
        small = shrink_to(images.to(self.device), size)
        z = torch.cat([net.latent(part) for part in small.split(32)])
        return torch.tanh(LATENT_SQUASH * z).cpu()


def _files(role: str, source: str) -> list[tuple[str, str]]:
    """Name and SHA-256 of the files behind a source."""
    named = _NAMED_FILES.get((role, source))
    if role in _SAMPLE_FILES and source == _SAMPLE_FILES[role][0]:
        named = _SAMPLE_FILES[role][1]
    paths = [Path(source)]
    if named is not None:
        rows = {row.name: row for row in zoo.known_weights()}
        missing = [rows[name] for name in named if rows[name].found is None]
        if missing:
            raise MissingWeightsError(f"{role}: {missing[0].file} is not there. {missing[0].how}")
        paths = [path for name in named if (path := rows[name].found) is not None]
    found = []
    for path in paths:
        if not path.is_file():
            raise MissingWeightsError(f"{role}: {os.fspath(path)!r} is neither a file nor a name")
        found.append((path.name, hashlib.sha256(path.read_bytes()).hexdigest()))
    return found
