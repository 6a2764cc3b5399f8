"""`pyfacelat boundary`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from pyfacelat.cli.latent_sources import (
    SOURCE_HELP,
    TruncationOption,
    load_landmarker,
    load_network,
    read_ws,
    read_z,
)
from pyfacelat.cli.options import (
    DeviceOption,
    JsonOption,
    LandmarkerOption,
    NetworkOption,
    OutdirOption,
    existing,
)
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

    from pyfacelat.edits.boundaries import Boundary, BoundarySpace
    from pyfacelat.edits.sampling import Samples
    from pyfacelat.nets.stylegan2 import Generator

_SPACES = ("whitened", "w", "w+", "z")
_MIXING = 0.9  # for W+: the share of mixed samples that StyleGAN2 is trained with


def fit(
    attribute: Annotated[
        str,
        typer.Option(
            help="mouth_open, smile, mouth_width, eye_open, brow_raise, yaw, pitch or roll."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The .npz (or bare .npy) file to write.")],
    samples: Annotated[
        Path, typer.Option(help="Folder of scored samples, made or continued as needed.")
    ] = Path("samples"),
    count: Annotated[int, typer.Option(help="Samples to use.")] = 2000,
    space: Annotated[
        str,
        typer.Option(help="whitened (W, distances in standard deviations), w, w+ or z."),
    ] = "whitened",
    share: Annotated[
        float, typer.Option(help="Of the samples on each side; a count if 1 or more.")
    ] = 0.1,
    condition_on: Annotated[
        list[Path] | None,
        typer.Option("--condition", help="Boundaries to leave alone; may be given repeatedly."),
    ] = None,
    landmarker: LandmarkerOption = "auto",
    network: NetworkOption = "sample",
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    truncation: Annotated[
        float, typer.Option(help="Psi of the first 8 (of 18) rows of the samples.")
    ] = 0.7,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Find the plane that parts faces by an attribute that their landmarks tell.

    Samples are drawn, rendered and scored once, for all attributes; SAMPLES keeps them, also when
    this is interrupted.
    """
    import torch

    from pyfacelat.edits import boundaries
    from pyfacelat.edits.sampling import SampleConfig, sample
    from pyfacelat.faces.attributes import LandmarkScores
    from pyfacelat.faces.attributes import attribute as check_attribute
    from pyfacelat.projection.space import LatentSpace, measure

    check_attribute(attribute)
    if space not in _SPACES:
        raise ConfigError(f"space: expected one of {', '.join(_SPACES)}, got {space!r}")
    others = [boundaries.Boundary.load(existing(path)) for path in condition_on or []]
    generator = load_network(network, device)
    mixing = _MIXING if space == "w+" else 0.0
    # Samples of mixed rows are others, so they live in a folder of their own.
    folder = samples / "mixed" if mixing else samples
    score = LandmarkScores(load_landmarker(landmarker, network, generator).points)
    config = SampleConfig(seed=seed, truncation=truncation, mixing=mixing)
    with _bar(sys.stderr.isatty() and not as_json, count) as report:
        drawn = sample(generator, count, score, config, outdir=folder, progress=report)
    scores, about = drawn.scores[attribute], {"attribute": attribute}
    if space == "whitened":
        statistics = measure(generator)
        coordinates = LatentSpace(statistics, "w+", "whitened", generator.num_ws)
        w = drawn.w.to(statistics.mean)
        v = coordinates.from_ws(w[:, None])[:, 0].cpu()
        found = boundaries.fit_boundary(v, scores, space="w", share=share, about=about)
        found = boundaries.whitened(found, coordinates, statistics.mean)
    else:
        kind = cast(boundaries.BoundarySpace, space)
        codes = _codes(kind, drawn)
        found = boundaries.fit_boundary(codes, scores, space=kind, share=share, about=about)
    found = boundaries.condition(found, others)
    found.save(out)
    spread = float(found.distance(_codes(found.space, drawn)).std())
    told = {"out": str(out), **found.about, "spread": round(spread, 4)}
    told["invalid"] = int((~torch.isfinite(scores)).sum())
    if as_json:
        typer.echo(json.dumps(told))
        return
    for name, value in found.about["accuracy"].items():
        typer.echo(f"accuracy {name:10} {100 * value:.1f} %")
    typer.echo(f"samples spread over {spread:.2f} (standard deviation of their distances)")
    typer.echo(f"boundary {out}")


def apply(
    boundary: Annotated[Path, typer.Argument(help="A boundary file: ours, or a shared .npy.")],
    faces: Annotated[str, typer.Argument(help=f"Faces to edit: {SOURCE_HELP}")],
    start: StartOption = -3.0,
    end: EndOption = 3.0,
    steps: StepsOption = 7,
    relative: Annotated[
        bool | None,
        typer.Option(
            "--relative/--absolute",
            help="Distances from the plane, or added to what the face has. Default: relative for "
            "latents of one W, absolute for others.",
        ),
    ] = None,
    rows: RowsOption = None,
    save_video: VideoOption = False,
    network: NetworkOption = "sample",
    outdir: OutdirOption = Path("boundary-out"),
    truncation: TruncationOption = 1.0,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Move faces across a boundary, to given signed distances from it."""
    from pyfacelat.edits.boundaries import Boundary
    from pyfacelat.edits.rows import parse_rows, row_indices

    values = amounts(start, end, steps)
    plane = Boundary.load(existing(boundary))
    generator = load_network(network, device)
    chosen = None if rows is None else row_indices(parse_rows(rows), generator.num_ws)
    if plane.space == "z":
        if chosen is not None:
            raise ConfigError("rows: a boundary in Z moves all rows; give none")
        z = read_z(faces, generator, name="faces")
        change = _in_z(plane, z, generator, truncation, relative)
    else:
        ws = read_ws(faces, generator, network=network, truncation=truncation, name="faces")

        def change(wanted: Tensor) -> Tensor:
            return plane.edit_ws(ws, wanted, relative=relative, rows=chosen)

    about = {"attribute": plane.about.get("attribute", boundary.stem), "space": plane.space}
    write_sweep(
        change, values, generator, outdir, save_video=save_video, as_json=as_json, about=about
    )


def _in_z(
    plane: Boundary, z: Tensor, generator: Generator, truncation: float, relative: bool | None
) -> Edit:
    import torch

    def change(wanted: Tensor) -> Tensor:
        moved = plane.shift(z, wanted) if relative is False else plane.at(z, wanted)
        with torch.no_grad():
            ws: Tensor = generator.mapping(moved.flatten(0, 1), None, truncation)
        sweep: Tensor = ws.unflatten(0, moved.shape[:2])
        return sweep

    return change


def _codes(space: BoundarySpace, drawn: Samples) -> Tensor:
    return {"w": drawn.w, "w+": drawn.ws, "z": drawn.z}[space]


@contextmanager
def _bar(show: bool, count: int) -> Iterator[Callable[[int, int], None] | None]:
    if not show:
        yield None
        return
    from rich.progress import Progress

    with Progress() as bar:
        task = bar.add_task("samples", total=count)
        yield lambda done, _count: bar.update(task, completed=done)
