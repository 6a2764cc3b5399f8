"""`pyfacelat edit`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pyfacelat.cli.latent_sources import SOURCE_HELP, TruncationOption, load_network, read_ws
from pyfacelat.cli.options import DeviceOption, JsonOption, NetworkOption, OutdirOption, existing
from pyfacelat.cli.sweep import (
    Edit,
    EndOption,
    RowsOption,
    StartOption,
    StepsOption,
    VideoOption,
    amounts,
    write_sweep,
)
from pyfacelat.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from pyfacelat.edits.directions import GANSpace
    from pyfacelat.edits.rows import Rows
    from pyfacelat.nets.stylegan2 import Generator

_COMPONENTS = 80  # of GANSpace, as many as others store
_SAMPLES = 10_000  # of w, for GANSpace


def edit(
    faces: Annotated[str, typer.Argument(help=f"Faces to edit: {SOURCE_HELP}")],
    direction: Annotated[
        str,
        typer.Option(
            help="A shared file (a direction, or GANSpace's), sefa:N, or ganspace:N (found now)."
        ),
    ],
    component: Annotated[
        int | None, typer.Option(help="Which component of a GANSpace file; its first is 0.")
    ] = None,
    start: StartOption = -3.0,
    end: EndOption = 3.0,
    steps: StepsOption = 7,
    rows: RowsOption = None,
    save_direction: Annotated[
        Path | None, typer.Option(help="Also write the direction: .npy, or .npz for GANSpace.")
    ] = None,
    save_video: VideoOption = False,
    network: NetworkOption = "sample",
    outdir: OutdirOption = Path("edit-out"),
    truncation: TruncationOption = 1.0,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Move faces along a direction of W: a shared one, or one found by SeFa or GANSpace.

    The amount is a factor of the direction in a file. Directions of sefa:N are as long as one
    standard deviation of w along them; with GANSpace the amount is the coordinate to reach, in
    standard deviations.
    """
    from pyfacelat.edits import directions
    from pyfacelat.edits.rows import parse_rows, row_indices

    values = amounts(start, end, steps)
    generator = load_network(network, device)
    chosen = row_indices(None if rows is None else parse_rows(rows), generator.num_ws)
    ws = read_ws(faces, generator, network=network, truncation=truncation, name="faces")
    found, index = _find(direction, component, generator, chosen)
    if isinstance(found, directions.GANSpace):
        change = _ganspace(found, index, ws, chosen)
        if save_direction is not None:
            found.save(save_direction)
    else:
        change = _move(found, ws, chosen)
        if save_direction is not None:
            directions.save_direction(save_direction, found)
    about = {"rows": chosen, "direction": direction}
    write_sweep(
        change, values, generator, outdir, save_video=save_video, as_json=as_json, about=about
    )


def _move(direction: Tensor, ws: Tensor, rows: Rows) -> Edit:
    from pyfacelat.edits.directions import move

    return lambda values: move(ws[:, None], direction, values.to(ws)[:, None, None], rows)


def _ganspace(found: GANSpace, index: int, ws: Tensor, rows: Rows) -> Edit:
    import torch

    return lambda values: torch.stack(
        [found.edit(ws, index, value, rows) for value in values.tolist()], dim=1
    )


def _find(
    text: str, component: int | None, generator: Generator, rows: list[int]
) -> tuple[Tensor | GANSpace, int]:
    """A direction, or components and which of them; SeFa looks at the layers of the rows."""
    from pyfacelat.edits import directions
    from pyfacelat.latents import load_arrays, load_boundary

    named = re.fullmatch(r"(sefa|ganspace):(\d{1,4})", text)
    if named and component is not None:
        raise ConfigError(f"component: {text} names its own")
    if named and named[1] == "sefa":
        layers = directions.modulations(generator.synthesis)
        # The last row feeds no convolution, only the last toRGB.
        of_rows = [layers[min(row, len(layers) - 1)] for row in rows]
        found = directions.sefa(of_rows, int(named[2]) + 1)[0][-1:]
        return found * float((_w(generator) @ found[0]).std()), 0
    if named:
        return directions.ganspace(_w(generator), _COMPONENTS), int(named[2])
    existing(Path(text))
    if any(name in load_arrays(text) for name in ("comp", "act_comp")):
        if component is None:
            raise ConfigError(f"component: {text} holds many; say which")
        return directions.GANSpace.load(text), component
    if component is not None:
        raise ConfigError(f"component: {text} holds a single direction")
    return load_boundary(text, num_ws=generator.num_ws, w_dim=generator.w_dim).normal, 0


def _w(generator: Generator) -> Tensor:
    """Samples of w [n,D], on the CPU."""
    import torch

    z = torch.randn(_SAMPLES, generator.z_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ws: Tensor = generator.mapping(z.to(next(generator.mapping.parameters())), None)
    return ws[:, 0].cpu()
