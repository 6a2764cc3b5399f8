"""`pyfacelat mix`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pyfacelat.cli.latent_sources import SOURCE_HELP, TruncationOption, load_network, read_ws
from pyfacelat.cli.options import (
    DeviceOption,
    JsonOption,
    NetworkOption,
    OutdirOption,
    safe_outdir,
)
from pyfacelat.errors import ConfigError


def mix(
    original: Annotated[str, typer.Argument(help=f"Faces to change: {SOURCE_HELP}")],
    donor: Annotated[str, typer.Argument(help="Faces to take from; the same kinds.")],
    recipe: Annotated[
        str | None, typer.Option(help="style (rows 8-18, psi 0) or expression (3-10, psi 0.5).")
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(help="coarse, middle, fine, all, a half-open range 8-18, or 0,1,5."),
    ] = None,
    rows_of: Annotated[
        int | None,
        typer.Option(
            help="Rows of the generator that --rows was written for; 18 for published numbers."
        ),
    ] = None,
    psi: Annotated[
        float | None, typer.Option(help="Share of the original that stays. Default: 0.")
    ] = None,
    network: NetworkOption = "sample",
    outdir: OutdirOption = Path("mix-out"),
    truncation: TruncationOption = 1.0,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Replace rows of some latents by those of others: every original with every donor.

    Writes mixed_w.npz (original after original, each with all donors), sheet.png with originals
    down and donors across, and the pictures 000_000.png, ...
    """
    from pyfacelat.edits.mix import find_recipe
    from pyfacelat.edits.mix import mix as mix_ws
    from pyfacelat.edits.rows import PUBLISHED_ROWS, Rows, parse_rows, row_indices
    from pyfacelat.edits.sheets import render, sheet
    from pyfacelat.images import save_png
    from pyfacelat.latents import save_latents

    if recipe is not None:
        if rows is not None or rows_of is not None:
            raise ConfigError("rows: a recipe brings its own; give --recipe or --rows")
        known = find_recipe(recipe)
        chosen: Rows = slice(*known.rows)
        rows_of, share = PUBLISHED_ROWS, known.psi if psi is None else psi
    elif rows is None:
        raise ConfigError("rows: give --rows, or a recipe: style or expression")
    else:
        chosen, share = parse_rows(rows), psi or 0.0
    generator = load_network(network, device)
    used = row_indices(chosen, generator.num_ws, of=rows_of)
    a, b = (
        read_ws(source, generator, network=network, truncation=truncation, name=name)
        for name, source in (("original", original), ("donor", donor))
    )  # [N,L,D], [M,L,D]
    mixed = mix_ws(a[:, None], b[None], used, psi=share)  # [N,M,L,D]

    folder = safe_outdir(outdir)
    pictures = render(generator, mixed)  # [N,M,R,R,3]
    save_latents(folder / "mixed_w.npz", mixed.flatten(0, 1))
    for i, line in enumerate(pictures):
        for k, picture in enumerate(line):
            save_png(folder / f"{i:03d}_{k:03d}.png", picture)
    header = [None, *render(generator, b)]
    body = [[first, *line] for first, line in zip(render(generator, a), pictures, strict=True)]
    save_png(folder / "sheet.png", sheet([header, *body]))
    if as_json:
        typer.echo(
            json.dumps(
                {"outdir": str(folder), "rows": used, "psi": share, "images": len(a) * len(b)}
            )
        )
        return
    typer.echo(f"rows {', '.join(map(str, used))} of {generator.num_ws}, psi {share:g}")
    typer.echo(f"picture  {folder / 'sheet.png'}")
