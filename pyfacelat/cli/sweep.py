"""What the commands write that sweep an edit or morph: latents, pictures, a strip, a video."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyfacelat.cli.options import safe_outdir
from pyfacelat.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from pyfacelat.nets.stylegan2 import Generator

Edit = Callable[["Tensor"], "Tensor"]
"""Amounts [S] to edited ws [N,S,L,D]."""

StartOption = Annotated[float, typer.Option("--start", "--start-distance", help="First amount.")]
EndOption = Annotated[float, typer.Option("--end", "--end-distance", help="Last amount.")]
StepsOption = Annotated[int, typer.Option(help="Pictures from first to last.")]
RowsOption = Annotated[
    str | None,
    typer.Option(help="Rows that move: coarse, middle, fine, all, 8-18 (half-open), or 0,1,5."),
]
VideoOption = Annotated[
    bool, typer.Option("--save-video/--no-save-video", help="Write edit.mp4, there and back.")
]
MorphVideoOption = Annotated[
    bool, typer.Option("--save-video/--no-save-video", help="Write morph.mp4.")
]

_FRAMES = 48  # of a video, one way
_COLUMNS = 6  # faces side by side in a video, at most
_STRIP = 9  # pictures in the strip of a morph, at most
_MAX_STEPS = 1000


def amounts(start: float, end: float, steps: int) -> Tensor:
    """`steps` equally spaced numbers [S], float64. Raises ConfigError unless 1 <= steps <= 1000."""
    import torch

    if not 1 <= steps <= _MAX_STEPS:
        raise ConfigError(f"steps: expected 1 to {_MAX_STEPS}, got {steps}")
    return torch.linspace(start, end, steps, dtype=torch.float64)


def write_sweep(
    edit: Edit,
    values: Tensor,
    generator: Generator,
    outdir: Path,
    *,
    save_video: bool,
    as_json: bool,
    about: dict[str, Any],
) -> None:
    """Edit, render and write: edited_w.npz, {face}_{step}.png, strip.png, edit.mp4."""
    import torch

    from pyfacelat.edits.sheets import render, sheet
    from pyfacelat.images import save_png
    from pyfacelat.latents import save_latents
    from pyfacelat.video import write_mp4

    edited = edit(values)  # [N,S,L,D]
    pictures = render(generator, edited)  # [N,S,R,R,3]
    folder = safe_outdir(outdir)
    save_latents(folder / "edited_w.npz", edited.flatten(0, 1))
    for face, line in enumerate(pictures):
        for step, picture in enumerate(line):
            save_png(folder / f"{face:03d}_{step:03d}.png", picture)
    captions = [f"{value:+.2f}" for value in values.tolist()]
    save_png(folder / "strip.png", sheet([list(line) for line in pictures], captions=captions))
    if save_video:
        fine = torch.linspace(float(values[0]), float(values[-1]), _FRAMES, dtype=values.dtype)
        frames = list(_video_frames(edit(fine)[:_COLUMNS], generator))
        write_mp4(folder / "edit.mp4", frames + frames[-2:0:-1], fps=24)
    if as_json:
        told = {"outdir": str(folder), "faces": len(edited), "amounts": values.tolist()}
        typer.echo(json.dumps(told | about))
        return
    for name, value in about.items():
        typer.echo(f"{name:8} {value}")
    typer.echo(f"picture  {folder / 'strip.png'}")


def write_morph(
    path: Tensor, generator: Generator, outdir: Path, *, save_video: bool, fps: int = 30
) -> Path:
    """Render and write a path of latents [F,L,D]: morph_w.npz, strip.png, morph.mp4.

    Returns:
        the folder.
    """
    import numpy as np

    from pyfacelat.edits.sheets import frames, render, sheet
    from pyfacelat.images import enlarge, save_png
    from pyfacelat.latents import save_latents
    from pyfacelat.video import write_mp4

    folder = safe_outdir(outdir)
    save_latents(folder / "morph_w.npz", path)
    shown = path[np.linspace(0, len(path) - 1, min(_STRIP, len(path))).round().astype(int)]
    save_png(folder / "strip.png", sheet([list(render(generator, shown))]))
    if save_video:
        pictures = (enlarge(frame, 256) for frame in frames(generator, path))
        write_mp4(folder / "morph.mp4", pictures, fps=fps)
    return folder


def _video_frames(
    edited: Tensor, generator: Generator
) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
    from pyfacelat.edits.sheets import render, sheet

    for faces in edited.transpose(0, 1):  # [N,L,D]
        yield sheet([list(render(generator, faces))], side=256)
