"""`pyfacelat swap`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pyfacelat.cli.options import (
    DeviceOption,
    JsonOption,
    NetworkOption,
    OutdirOption,
    face_of,
    safe_outdir,
)
from pyfacelat.cli.progress import counting
from pyfacelat.errors import ConfigError

_WORDS: dict[str, bool] = {"true": True, "false": False}


def swap(
    images: Annotated[
        list[Path],
        typer.Argument(help="The picture, and who is put into it; or, with --table, all."),
    ],
    table: Annotated[
        bool, typer.Option("--table", help="Put every face into every picture.")
    ] = False,
    recipe: Annotated[
        str, typer.Option(help="default, or published (rates for FFHQ's generator).")
    ] = "default",
    steps: Annotated[int | None, typer.Option(help="Of each swap. Default: 100.")] = None,
    identity_weight: Annotated[
        float | None, typer.Option(help="Of the identity term. Default: the recipe's.")
    ] = None,
    identity: Annotated[
        str, typer.Option(help="auto (the sample network's own), or the file of ArcFace's IR-50.")
    ] = "auto",
    encoder: Annotated[
        str, typer.Option(help="To start from: auto, sample, or an e4e, pSp or finder file.")
    ] = "auto",
    network: NetworkOption = "sample",
    align: Annotated[
        str, typer.Option(help="Crop faces out of photographs: auto, true, false.")
    ] = "auto",
    face: Annotated[
        str,
        typer.Option(help="Of several: largest, central, confident, only, or a number from 0."),
    ] = "largest",
    detector: Annotated[str, typer.Option(help="auto (S3FD), or a file.")] = "auto",
    perceptual: Annotated[str, typer.Option(help="auto, sample or lpips-vgg16.")] = "auto",
    landmarker: Annotated[str, typer.Option(help="auto, sample or 2dfan4.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of the projection.")] = 303,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted swap.")] = False,
    outdir: OutdirOption = Path("swap-out"),
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Put one person's face into another's picture.

    Writes what `project` writes (pasted.png is the photograph with the new face), or, with --table,
    table.png, table.html, table.json, comparison.png (original, encoder, optimised) and the tiles.
    """
    from pyfacelat.swap import Swapper

    if len(images) != 2 and not table:
        raise ConfigError(f"images: expected the picture and the person, got {len(images)} images")
    if table and resume:
        raise ConfigError("resume: a table is made in one go")
    settings: dict[str, Any] = {
        "identity": identity,
        "encoder": encoder,
        "align": _WORDS.get(align.lower(), align),
        "face": face_of(face),
        "detector": detector,
        "perceptual": perceptual,
        "landmarker": landmarker,
        "seed": seed,
        "device": device,
    }
    if identity_weight is not None:
        settings["loss_weights"] = {"identity": identity_weight}
    swapper = Swapper(network, recipe=recipe, steps=steps, **settings)
    show = sys.stderr.isatty() and not as_json
    if table:
        folder = safe_outdir(outdir)
        with counting(show, "pictures") as report:
            made = swapper.table(images, names=[path.stem for path in images], progress=report)
        made.save(folder)
        if as_json:
            typer.echo(json.dumps({"outdir": str(folder), **made.summary()}))
            return
        typer.echo(f"picture  {folder / 'table.png'}\ntable    {folder / 'table.html'}")
        return
    look, person = images
    result = swapper.swap(look, person, outdir=outdir, progress=show, resume=resume)
    told = result.likeness()
    if as_json:
        typer.echo(json.dumps({"outdir": str(outdir), **told}))
        return
    typer.echo(
        f"likeness to {person.name}: {told['to_person']:.2f} (was {told['to_person_before']:.2f})\n"
        f"picture  {outdir / 'proj.png'}"
    )
