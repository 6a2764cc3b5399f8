"""`pyfacelat morph`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from pyfacelat.cli.latent_sources import SOURCE_HELP, TruncationOption, load_network, read_ws
from pyfacelat.cli.options import DeviceOption, JsonOption, NetworkOption, OutdirOption
from pyfacelat.cli.sweep import MorphVideoOption, write_morph
from pyfacelat.errors import ConfigError

if TYPE_CHECKING:
    from pyfacelat.edits.morph import Coordinates
    from pyfacelat.nets.stylegan2 import Generator

_SPACES = ("w+", "w", "whitened")
_MAX_FRAMES = 20_000


def morph(
    keys: Annotated[list[str], typer.Argument(help=f"Two faces or more: {SOURCE_HELP}")],
    steps: Annotated[int, typer.Option(help="Frames from one face to the next.")] = 20,
    method: Annotated[str, typer.Option(help="linear or spherical.")] = "linear",
    space: Annotated[
        str, typer.Option(help="w+, w (one row for all), or whitened (of W+).")
    ] = "whitened",
    loop: Annotated[bool, typer.Option("--loop", help="Return to the first face.")] = False,
    fps: Annotated[int, typer.Option(help="Frames per second of the video.")] = 30,
    save_video: MorphVideoOption = True,
    network: NetworkOption = "sample",
    outdir: OutdirOption = Path("morph-out"),
    truncation: TruncationOption = 1.0,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Morph from face to face. Writes morph_w.npz, strip.png and morph.mp4."""
    import torch

    from pyfacelat.edits.morph import morph as path_through

    if fps < 1:
        raise ConfigError(f"fps: expected at least 1, got {fps}")
    generator = load_network(network, device)
    sources = [
        read_ws(key, generator, network=network, truncation=truncation, name="keys") for key in keys
    ]
    ws = torch.cat(sources)
    if len(ws) * steps > _MAX_FRAMES:
        raise ConfigError(f"steps: expected at most {_MAX_FRAMES} frames, got {len(ws) * steps}")
    coordinates = _coordinates(space, generator)
    path = path_through(ws, steps=steps, method=cast(Any, method), space=coordinates, loop=loop)
    folder = write_morph(path, generator, outdir, save_video=save_video, fps=fps)
    if as_json:
        typer.echo(json.dumps({"outdir": str(folder), "frames": len(path), "keys": len(ws)}))
        return
    typer.echo(f"{len(path)} frames through {len(ws)} faces")
    typer.echo(f"picture  {folder / 'strip.png'}")
    if save_video:
        typer.echo(f"video    {folder / 'morph.mp4'}")


def _coordinates(space: str, generator: Generator) -> Coordinates | None:
    if space not in _SPACES:
        raise ConfigError(f"space: expected one of {', '.join(_SPACES)}, got {space!r}")
    if space == "w+":
        return None
    from pyfacelat.projection.space import LatentSpace, measure

    statistics = measure(generator)
    if space == "w":
        return LatentSpace(statistics, "w", "raw", generator.num_ws)
    return LatentSpace(statistics, "w+", "whitened", generator.num_ws)
