"""`pyfacelat encode` and `pyfacelat generate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pyfacelat.cli.latent_sources import load_network
from pyfacelat.cli.options import (
    DeviceOption,
    JsonOption,
    NetworkOption,
    OutdirOption,
    face_of,
    safe_outdir,
)
from pyfacelat.cli.progress import counting


def encode(
    images: Annotated[list[Path], typer.Argument(help="Pictures of faces, or photographs.")],
    encoder: Annotated[
        str, typer.Option(help="auto, sample, or the file of an e4e, pSp or finder network.")
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
    landmarker: Annotated[str, typer.Option(help="auto, sample or 2dfan4.")] = "auto",
    outdir: OutdirOption = Path("encode-out"),
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Estimate the latents of faces in one pass of an encoder.

    Writes encoded_w.npz (a row for each picture, in order), what they render as 000.png, ..., and
    sheet.png with the faces above and the renderings below.
    """
    from pyfacelat.edits.sheets import render, sheet
    from pyfacelat.encoding import Encoder
    from pyfacelat.images import save_png, shrink_to, to_uint8
    from pyfacelat.latents import save_latents

    generator = load_network(network, device)
    own = network == "sample" and encoder == "auto"
    words = {"true": True, "false": False}
    read = Encoder(
        "sample" if own else encoder,
        network=generator,
        align=words.get(align.lower(), align),
        face=face_of(face),
        detector=detector,
        landmarker="sample" if network == "sample" and landmarker == "auto" else landmarker,
        device=next(generator.parameters()).device,
    )
    found = read(images)
    pictures = render(generator, found.ws)
    shown = to_uint8(shrink_to(found.images, generator.img_resolution)).numpy()
    folder = safe_outdir(outdir)
    save_latents(folder / "encoded_w.npz", found.ws)
    for number, picture in enumerate(pictures):
        save_png(folder / f"{number:03d}.png", picture)
    save_png(folder / "sheet.png", sheet([list(shown), list(pictures)]))
    rows = [
        {
            "image": str(path),
            "psnr": round(_psnr(a, b), 2),
            "cropped": crop is not None,
        }
        for path, a, b, crop in zip(images, shown, pictures, found.crops, strict=True)
    ]
    if as_json:
        typer.echo(json.dumps({"outdir": str(folder), "images": rows}))
        return
    for row in rows:
        typer.echo(f"{row['image']}: {row['psnr']} dB")
    typer.echo(f"picture  {folder / 'sheet.png'}")


def generate(
    count: Annotated[int, typer.Option(help="How many faces.")] = 16,
    seed: Annotated[int, typer.Option(help="Of all of them together.")] = 0,
    truncation: Annotated[float, typer.Option(help="psi of the first rows; 1: none.")] = 0.7,
    cutoff: Annotated[
        int | None, typer.Option(help="Rows, of 18, that are truncated. 18: all.")
    ] = 8,
    mixing: Annotated[
        float, typer.Option(help="Share of faces whose rows come from two latents.")
    ] = 0.0,
    network: NetworkOption = "sample",
    outdir: OutdirOption = Path("generated"),
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Generate faces with their latents, to look at or to train encoders on.

    Writes 000000.png, ... and z.npy, w.npy, wp.npy, whose row i made picture i. Run again it goes
    on where it stopped; a larger count extends the folder.
    """
    from pyfacelat.edits.dataset import write_dataset
    from pyfacelat.edits.sampling import SampleConfig

    config = SampleConfig(seed=seed, truncation=truncation, cutoff=cutoff, mixing=mixing)
    generator = load_network(network, device)
    with counting(sys.stderr.isatty() and not as_json, "pictures") as report:
        folder = write_dataset(generator, count, outdir, config, progress=report)
    told = {"outdir": str(folder), "images": count}
    typer.echo(json.dumps(told) if as_json else f"{count} faces in {folder}")


def _psnr(a: object, b: object) -> float:
    import math

    import numpy as np

    error = float(np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64)).mean())
    return 10 * math.log10(255**2 / error) if error else 99.0
