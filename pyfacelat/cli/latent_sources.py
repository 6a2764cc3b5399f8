"""What the editing commands take as a latent: a seed, a file, a projection's folder, an image."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pyfacelat.cli.options import existing
from pyfacelat.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from pyfacelat.losses.landmark import Landmarker
    from pyfacelat.nets.stylegan2 import Generator

SOURCE_HELP = (
    "seed:7 or seed:7-9, a file of latents (.npz, .npy, .pt), a folder that `project` wrote, or, "
    "for the sample network, an image."
)
TruncationOption = Annotated[
    float, typer.Option(help="Truncation psi of latents from seeds; 1 leaves them alone.")
]

_MAX_SEEDS = 1000
_LATENT_FILES = (".npz", ".npy", ".pt", ".pth")


def load_network(network: str, device: str) -> Generator:
    """The generator, unconditional, on a device by name; "auto" is the first GPU, or the CPU."""
    from pyfacelat import zoo
    from pyfacelat.projection.runtime import resolve_device

    generator = zoo.load_generator(network, device=resolve_device(device))
    if generator.c_dim > 0:
        raise ConfigError(
            f"network: conditional (c_dim={generator.c_dim}); edits need an unconditional one"
        )
    return generator


def load_landmarker(name: str, network: str, generator: Generator) -> Landmarker:
    """The landmark network, where the generator is; "auto" is the one that goes with `network`."""
    from pyfacelat import zoo
    from pyfacelat.losses.landmark import Landmarker

    auto = "sample" if network == "sample" else "2dfan4"
    device = next(generator.parameters()).device
    return Landmarker(zoo.load_landmarker(auto if name == "auto" else name, device=device))


def read_ws(
    source: str, generator: Generator, *, network: str, truncation: float = 1.0, name: str
) -> Tensor:
    """Latents [N,num_ws,w_dim], on the generator's device, from what was typed.

    Raises:
        ConfigError: not a source, or an image for a network that has no encoder.
        CheckpointError: a file that does not fit the generator.
    """
    import torch

    from pyfacelat.latents import load_latents

    device = next(generator.parameters()).device
    if source.startswith("seed:"):
        z = read_z(source, generator, name=name)
        with torch.no_grad():
            mapped: Tensor = generator.mapping(z, None, truncation)
        return mapped
    path = Path(source)
    if path.is_dir():
        path = path / "projected_w.npz"
    if path.suffix.lower() in _LATENT_FILES:
        ws = load_latents(existing(path), num_ws=generator.num_ws, w_dim=generator.w_dim)
        return ws.to(device)
    if not path.exists():
        raise ConfigError(f"{name}: expected {SOURCE_HELP} Got {source!r}")
    return _from_image(path, generator, network, name)


def read_z(source: str, generator: Generator, *, name: str) -> Tensor:
    """Latents z [N,z_dim], on the generator's device, of `seed:7` or `seed:7-9`.

    Raises:
        ConfigError: anything else.
    """
    import numpy as np
    import torch

    seeds = re.fullmatch(r"seed:(\d{1,9})(?:-(\d{1,9}))?", source)
    if not seeds:
        raise ConfigError(f"{name}: expected seeds such as seed:7 or seed:7-9, got {source!r}")
    first, last = int(seeds[1]), int(seeds[2] or seeds[1])
    if not first <= last < first + _MAX_SEEDS:
        raise ConfigError(f"{name}: expected 1 to {_MAX_SEEDS} seeds, got {source!r}")
    # One generator for each seed, as NVIDIA's scripts draw: seed 7 is the same face everywhere.
    z = [np.random.RandomState(seed).randn(generator.z_dim) for seed in range(first, last + 1)]
    return torch.from_numpy(np.stack(z)).to(next(generator.mapping.parameters()))


def _from_image(path: Path, generator: Generator, network: str, name: str) -> Tensor:
    from pyfacelat import zoo
    from pyfacelat.images import load_image
    from pyfacelat.projection.encoders import encode

    image = load_image(path, size=generator.img_resolution)
    if network != "sample":
        raise ConfigError(
            f"{name}: {path} is an image, and {network} has no encoder; run `pyfacelat project` "
            "on it and give the folder that it writes"
        )
    device = next(generator.parameters()).device
    encoder = zoo.load_encoder("sample", device=device)
    return encode(encoder, generator, image[None].to(device))
