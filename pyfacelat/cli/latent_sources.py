"""What the editing commands take as a latent: a seed, a file, a projection's folder, an image."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pyfacelat.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from pyfacelat.nets.stylegan2 import Generator

SOURCE_HELP = (
    "seed:7 or seed:7-9, a file of latents (.npz, .npy, .pt), a folder that `project` wrote, or, "
    "for the sample network, an image."
)
NetworkOption = Annotated[
    str, typer.Option(help='StyleGAN2 file (.pkl, .safetensors), or "sample".')
]
OutdirOption = Annotated[Path, typer.Option(help="Where results are written.")]
TruncationOption = Annotated[
    float, typer.Option(help="Truncation psi of latents from seeds; 1 leaves them alone.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

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
        if not path.exists():
            raise CheckpointError(path, "no such file")
        ws = load_latents(path, num_ws=generator.num_ws, w_dim=generator.w_dim)
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


def safe_outdir(outdir: Path) -> Path:
    """Create a folder for results; ConfigError if that is not possible."""
    try:
        outdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"outdir: {outdir}: cannot be made: {error.strerror}") from None
    return outdir


def _from_image(path: Path, generator: Generator, network: str, name: str) -> Tensor:
    from pyfacelat import zoo
    from pyfacelat.images import load_image
    from pyfacelat.projection.networks import encode

    image = load_image(path, size=generator.img_resolution)
    if network != "sample":
        raise ConfigError(
            f"{name}: {path} is an image, and {network} has no encoder; run `pyfacelat project` "
            "on it and give the folder that it writes"
        )
    device = next(generator.parameters()).device
    encoder = zoo.load_encoder("sample", device=device)
    return encode(encoder, generator, image[None].to(device))
