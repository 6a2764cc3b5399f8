"""`pyfacelat convert`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pyfacelat.cli.options import JsonOption, existing
from pyfacelat.errors import CheckpointError, ConfigError

_LATENTS = (".npz", ".npy")


def convert(
    source: Annotated[Path, typer.Argument(help="A weight file in any known format, or latents.")],
    target: Annotated[
        Path,
        typer.Argument(
            help="The file to write: .safetensors, .pt for rosinality's StyleGAN2, or .npz or "
            ".npy for latents as NVIDIA's projectors write them."
        ),
    ],
    half: Annotated[bool, typer.Option("--half", help="Store weights as float16.")] = False,
    part: Annotated[
        str, typer.Option(help="generator, discriminator or encoder, of a file with several.")
    ] = "generator",
    name: Annotated[
        str | None, typer.Option(help="Latents: which array of a file with several.")
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(help="Latents: rows of the generator (18 at 1024 px), to repeat a single w."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Convert a weight file or latents, without executing anything in them."""
    from pyfacelat.checkpoints.convert import convert as convert_file
    from pyfacelat.checkpoints.reading import PARTS

    existing(source)
    if target.suffix.lower() in _LATENTS:
        if half:
            raise ConfigError("half: latents are stored in float32")
        shape = _latents(source, target, name, rows)
        told = {"file": str(target), "w": shape}
        typer.echo(json.dumps(told) if as_json else f"{target}: w {shape} float32")
        return
    if name is not None or rows is not None:
        raise ConfigError(f"name, rows: only for latents, to {' or '.join(_LATENTS)}")
    if part not in PARTS:
        raise ConfigError(f"part: expected one of {', '.join(PARTS)}, got {part!r}")
    file = str(convert_file(source, target, half=half, part=part))
    typer.echo(json.dumps({"file": file}) if as_json else file)


def _latents(source: Path, target: Path, name: str | None, rows: int | None) -> list[int]:
    """Write latents as they are shared; returns their shape."""
    from pyfacelat.latents import load_latents, normalise_latents, save_latents

    ws = load_latents(source, name=name)
    if rows is not None:
        if rows < 1:
            raise ConfigError(f"rows: expected at least 1, got {rows}")
        try:
            ws = normalise_latents(ws, num_ws=rows, w_dim=ws.shape[-1])
        except ValueError as error:
            raise CheckpointError(source, str(error)) from None
    elif ws.ndim == 1 or ws.shape[-2] == 1:
        raise ConfigError(
            f"rows: needed, since {source} holds one row of w, {list(ws.shape)}, for the whole "
            "generator; 2 log2(resolution) - 2, which is 18 at 1024 px"
        )
    elif ws.ndim == 2:
        ws = ws[None]
    save_latents(target, ws)
    return list(ws.shape)
