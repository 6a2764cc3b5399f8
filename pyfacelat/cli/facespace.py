"""`pyfacelat facespace`."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyfacelat.cli.latent_sources import load_landmarker, load_network
from pyfacelat.cli.options import (
    DeviceOption,
    JsonOption,
    LandmarkerOption,
    NetworkOption,
    OutdirOption,
    existing,
    safe_outdir,
)
from pyfacelat.cli.sweep import MorphVideoOption, write_morph
from pyfacelat.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from pyfacelat.facespace import FaceSpace
    from pyfacelat.losses.landmark import Landmarker

SpaceArgument = Annotated[Path, typer.Argument(help="A face space that `train` wrote.")]
StrengthOption = Annotated[
    bool,
    typer.Option(
        "--strength", help="Let the sum of the weights count: 0 the average face, 1 the blend."
    ),
]


def train(
    folder: Annotated[Path, typer.Argument(help="Folder of aligned faces.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    epochs: Annotated[int, typer.Option(help="Of each of the three phases.")] = 200,
    batch: Annotated[int, typer.Option(help="Faces per step.")] = 2,
    landmarks: Annotated[
        bool, typer.Option("--landmarks", help="Faces by their 68 landmarks instead of by name.")
    ] = False,
    z_dims: Annotated[
        int | None, typer.Option(help="Width of vectors that are fitted too; default: one a face.")
    ] = None,
    fine_tune: Annotated[
        bool, typer.Option("--fine-tune", help="A last phase for pixels.")
    ] = False,
    perceptual: Annotated[
        str, typer.Option(help="auto, sample, lpips-vgg16, or none (pixels only).")
    ] = "auto",
    landmarker: LandmarkerOption = "auto",
    network: NetworkOption = "sample",
    seed: Annotated[int, typer.Option(help="Of the encoder and the order of faces.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a fit that was interrupted.")
    ] = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Fit a face space to a folder. Beside OUT, a picture shows the faces and what became of them.

    While it runs, the folder OUT.part keeps its state every 20 seconds, for --resume.
    Only the direction of a vector of weights matters in it; see `blend --strength`.
    """
    import torch

    from pyfacelat import zoo
    from pyfacelat.edits.sheets import render, sheet
    from pyfacelat.facespace import FitConfig, fit, load_faces
    from pyfacelat.facespace.features import features_of
    from pyfacelat.images import save_png, to_uint8
    from pyfacelat.projection.space import measure

    config = FitConfig(epochs=epochs, batch=batch, fine_tune=fine_tune, seed=seed)
    generator = load_network(network, device)
    where = next(generator.parameters()).device
    points_of = None
    if landmarks:
        eyes = load_landmarker(landmarker, network, generator)
        points_of = lambda image: _seen(eyes, image.to(where))  # noqa: E731
    data = load_faces(
        folder, generator.img_resolution, z_dims=z_dims, points_of=points_of, seed=seed
    )
    features = None
    if perceptual != "none":
        auto = "sample" if network == "sample" else "lpips-vgg16"
        name = auto if perceptual == "auto" else perceptual
        features = features_of(zoo.load_perceptual(name, device=where))
    statistics = measure(generator)
    unfinished = out.with_suffix(".part")
    with _bar(sys.stderr.isatty() and not as_json) as report:
        space = fit(
            data,
            generator,
            features,
            config,
            mean=statistics.mean,
            spread=statistics.std,
            progress=report,
            outdir=unfinished,
            resume=resume,
        )
    space.save(out)
    with contextlib.suppress(OSError):  # something of the user's own may be in it
        unfinished.rmdir()
    pictures = list(to_uint8(data.images).numpy())
    with torch.no_grad():
        fitted = list(space.render(space.z))
    rows = [pictures, list(render(generator, space.targets)), fitted]
    labels = ["face", "target latents", "encoder"]
    save_png(out.with_suffix(".png"), sheet(rows, captions=data.names, labels=labels))
    last = {str(part["phase"]): float(part["image"][-1]) for part in space.history}
    if as_json:
        typer.echo(json.dumps({"out": str(out), "faces": data.names, "image_loss": last}))
        return
    for phase, loss in last.items():
        typer.echo(f"{phase:9} image loss {loss:.3f}")
    typer.echo(f"space    {out}\npicture  {out.with_suffix('.png')}")


def blend(
    space: SpaceArgument,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="A blend, e.g. anna=2,bert=1; may be given repeatedly."),
    ] = None,
    random: Annotated[int, typer.Option(help="How many random blends.")] = 0,
    strength: StrengthOption = False,
    seed: Annotated[int, typer.Option(help="Of the random blends.")] = 0,
    network: NetworkOption = "sample",
    outdir: OutdirOption = Path("blend-out"),
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Mix faces by weights. Writes blend_w.npz, the pictures, and blends.png with the weights."""
    import torch

    from pyfacelat.facespace.charts import weight_chart
    from pyfacelat.images import enlarge, save_png, tile
    from pyfacelat.latents import save_latents

    if random < 0 or not (random or weights):
        raise ConfigError("weights: give --weights, or --random with a number above 0")
    faces = _load(space, network, device)
    vectors = [faces.vector(_weights(text)) for text in weights or []]
    if random:
        vectors += list(faces.random(random, seed=seed))
    z = torch.stack(vectors)
    ws = faces.ws(z, strength=strength)
    pictures = faces.render(z, strength=strength)
    folder = safe_outdir(outdir)
    save_latents(folder / "blend_w.npz", ws)
    cells = []
    for number, (vector, picture) in enumerate(zip(z, pictures, strict=True)):
        save_png(folder / f"{number:03d}.png", picture)
        chart = weight_chart(faces.names, _shares(faces, vector))
        cells.append(_beside(enlarge(picture, 256), chart))
    save_png(folder / "blends.png", _stack(cells) if len(cells) > 1 else tile(cells))
    if as_json:
        typer.echo(json.dumps({"outdir": str(folder), "blends": len(z)}))
        return
    typer.echo(f"picture  {folder / 'blends.png'}")


def morph(
    space: SpaceArgument,
    names: Annotated[list[str], typer.Argument(help="Faces, or blends such as anna=1,bert=1.")],
    steps: Annotated[int, typer.Option(help="Frames from one to the next.")] = 20,
    save_video: MorphVideoOption = True,
    network: NetworkOption = "sample",
    outdir: OutdirOption = Path("facespace-out"),
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Morph through faces and blends. Writes morph_w.npz, strip.png and morph.mp4."""
    import torch

    faces = _load(space, network, device)
    vectors = [faces.vector(_weights(name) if "=" in name else {name: 1.0}) for name in names]
    path = faces.morph(torch.stack(vectors), steps=steps)
    folder = write_morph(path, faces.generator, outdir, save_video=save_video)
    if as_json:
        typer.echo(json.dumps({"outdir": str(folder), "frames": len(path)}))
        return
    typer.echo(f"{len(path)} frames\npicture  {folder / 'strip.png'}")


def pose(
    space: SpaceArgument,
    landmarks: Annotated[str, typer.Argument(help="An image, or a file of 68 points.")],
    landmarker: LandmarkerOption = "auto",
    network: NetworkOption = "sample",
    outdir: OutdirOption = Path("pose-out"),
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Render a space of landmarks at other landmarks. Writes pose_w.npz and pose.png."""
    from pyfacelat.faces.landmarks import POINT_FILES, load_points
    from pyfacelat.facespace import points_vector
    from pyfacelat.images import load_image, save_png
    from pyfacelat.latents import save_latents

    faces = _load(space, network, device)
    if faces.encoder.config.kind != "landmarks":
        raise ConfigError("space: its vectors are weights of faces, not landmarks")
    if Path(landmarks).suffix.lower() in POINT_FILES:
        points, side = load_points(landmarks)
        if side is None:
            raise ConfigError(f"landmarks: {landmarks} does not say the side of its image")
        relative = points / side
    else:
        image = load_image(landmarks, size=faces.generator.img_resolution)
        where = next(faces.generator.parameters()).device
        relative = _seen(load_landmarker(landmarker, network, faces.generator), image.to(where))
        if len(relative) != 1:
            raise ConfigError(f"landmarks: no face seen in {landmarks}")
    z = points_vector(relative)
    folder = safe_outdir(outdir)
    save_latents(folder / "pose_w.npz", faces.ws(z))
    save_png(folder / "pose.png", faces.render(z)[0])
    typer.echo(
        json.dumps({"outdir": str(folder)}) if as_json else f"picture  {folder / 'pose.png'}"
    )


def frames(
    video: Annotated[Path, typer.Argument(help="A video.")],
    outdir: OutdirOption = Path("frames"),
    start: Annotated[int, typer.Option(help="First frame.")] = 0,
    stop: Annotated[int | None, typer.Option(help="Frame to end before.")] = None,
    step: Annotated[int, typer.Option(help="Frames from one picture to the next.")] = 10,
    rotate: Annotated[float, typer.Option(help="Degrees anticlockwise.")] = 0.0,
) -> None:
    """Write pictures from a video, to choose faces from."""
    from pyfacelat.facespace.frames import frames_from_video

    safe_outdir(outdir)
    files = frames_from_video(video, outdir, start=start, stop=stop, step=step, rotate=rotate)
    typer.echo(f"{len(files)} pictures in {outdir}")


def _load(path: Path, network: str, device: str) -> FaceSpace:
    from pyfacelat.facespace import FaceSpace

    return FaceSpace.load(existing(path), load_network(network, device))


def _weights(text: str) -> dict[str, float]:
    weights = {}
    for item in text.split(","):
        name, equals, value = item.partition("=")
        try:
            weights[name.strip()] = float(value)
        except ValueError:
            raise ConfigError(f"weights: expected pairs like anna=2,bert=1, got {item!r}") from None
    return weights


def _shares(faces: FaceSpace, vector: Tensor) -> list[float]:
    """Weights of the faces in a vector: itself for one-hot spaces, else the least squares."""
    import torch

    solved = torch.linalg.lstsq(faces.z.T.double().cpu(), vector.double().cpu()[:, None])
    shares: list[float] = solved.solution[:, 0].tolist()
    return shares


def _seen(landmarker: Landmarker, image: Tensor) -> Tensor:
    """Points [1,68,2], or [0,68,2] where the landmark network is unsure of a face."""
    points, confidence = landmarker.points(image[None])
    return points[confidence.mean(1) >= 0.2].cpu()


def _beside(picture: Any, chart: Any) -> Any:
    import numpy as np

    height = max(picture.shape[0], chart.shape[0])
    white = [np.full((height, part.shape[1], 3), 255, np.uint8) for part in (picture, chart)]
    for canvas, part in zip(white, (picture, chart), strict=True):
        canvas[: part.shape[0]] = part
    return np.concatenate(white, axis=1)


def _stack(cells: list[Any]) -> Any:
    import numpy as np

    gap = np.full((4, cells[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([part for cell in cells for part in (cell, gap)][:-1])


@contextmanager
def _bar(show: bool) -> Iterator[Callable[[str, int, int, float], None] | None]:
    if not show:
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:9}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.4g}"),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("start", total=1, loss=float("nan"))
        yield lambda phase, epoch, epochs, loss: bar.update(
            task, description=phase, completed=epoch, total=epochs, loss=loss
        )
