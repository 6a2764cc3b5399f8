"""`pyfacelat gallery`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyfacelat.cli.options import safe_outdir
from pyfacelat.errors import ConfigError


def gallery(
    outdir: Annotated[
        Path, typer.Option("--outdir", "--out", help="Where pictures and page are written.")
    ] = Path("gallery"),
    parts: Annotated[
        str | None, typer.Option(help="Some of them only, e.g. swap,morph. Default: all.")
    ] = None,
    save_video: Annotated[
        bool, typer.Option("--save-video/--no-save-video", help="Write morph.mp4.")
    ] = True,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few steps: to see that it runs, not to look at.")
    ] = False,
) -> None:
    """Make a gallery of inversion, transfer, swap, attributes, blends and a morph.

    It uses the sample models, and takes a few minutes on two cores.
    """
    from pyfacelat.gallery import PARTS, Effort, make

    chosen = tuple(PARTS) if parts is None else tuple(p.strip() for p in parts.split(","))
    for name in chosen:
        if name not in PARTS:
            raise ConfigError(f"parts: expected some of {', '.join(PARTS)}, got {name!r}")
    few = Effort(inversion_steps=2, swap_steps=2, samples=64, epochs=1, faces=2, frames=2)
    effort = few if quick else Effort()
    make(safe_outdir(outdir), effort, parts=chosen, video=save_video, say=typer.echo)
    typer.echo(f"page     {outdir / 'gallery.html'}")
