"""`pyfacelat align` and `pyfacelat landmarks`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyfacelat.cli.options import JsonOption, face_of, safe_outdir
from pyfacelat.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from pyfacelat.faces.align import AlignedFace
    from pyfacelat.photographs import FaceFinder

Detector = Annotated[str, typer.Option(help='"auto" (S3FD), or a file with such a network.')]
LandmarkNet = Annotated[
    str, typer.Option("--landmarker", help="auto (2DFAN-4), sample, or a file.")
]
Face = Annotated[
    str,
    typer.Option(
        help="Of several: largest, central, confident, only, or a number from the left; align: all."
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1.")]


def align(
    source: Annotated[
        Path, typer.Argument(help="A photograph, a folder of them, or a video.", show_default=False)
    ],
    outdir: Annotated[Path, typer.Option(help="Where crops are written.")] = Path("aligned"),
    size: Annotated[int, typer.Option("--size", "--res", help="Side of the crops, pixels.")] = 1024,
    landmarks: Annotated[
        Path | None, typer.Option(help="File of 68 points; nothing is searched then.")
    ] = None,
    smooth: Annotated[
        bool, typer.Option(help="One clip: crops that are smooth in time. Default for a video.")
    ] = False,
    face: Face = "largest",
    detector: Detector = "auto",
    landmarker: LandmarkNet = "auto",
    device: Device = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Crop faces the way FFHQ does.

    A photograph becomes OUTDIR/NAME.png; the frames of a folder (in natural order) or a video
    become 0.png, 1.png, ... With --face all every face of NAME becomes NAME_00.png, NAME_01.png,
    ..., from the left. Each is cut from the picture at full size. crops.json says where from.
    """
    from pyfacelat.faces.align import align_face
    from pyfacelat.photographs import FaceFinder, align_clip, frames_of, photo_of
    from pyfacelat.video import SUFFIXES

    if not source.exists():
        raise ImageError(f"source: there is no file {source}")
    several = source.is_dir() or source.suffix.lower() in SUFFIXES
    safe_outdir(outdir)
    if face == "all":
        if landmarks is not None or source.suffix.lower() in SUFFIXES:
            raise ConfigError("face: all is for photographs and folders of them, without landmarks")
        finder = FaceFinder(detector, landmarker, device=device)
        _write(outdir, _every_face(source, finder, size), as_json)
        return
    crops: Iterator[AlignedFace]
    if landmarks is not None:
        if several:
            raise ConfigError("landmarks: one set of points is for one photograph")
        crops = iter([align_face(photo_of(source), _points(landmarks), size=size)])
    else:
        finder = FaceFinder(detector, landmarker, face=face_of(face), device=device)
        frames = frames_of(source) if several else iter([photo_of(source)])
        if several and (smooth or not source.is_dir()):
            crops = iter(align_clip(list(frames), finder=finder, size=size))
        else:
            crops = (
                finder.align(frame, size=size, name=f"frame {i}" if several else "source")
                for i, frame in enumerate(frames)
            )
    named = ((f"{i}.png" if several else f"{source.stem}.png", c) for i, c in enumerate(crops))
    _write(outdir, named, as_json)


def landmarks(
    source: Annotated[Path, typer.Argument(help="A photograph.", show_default=False)],
    out: Annotated[Path, typer.Option(help="File of points, json.")] = Path("landmarks.json"),
    picture: Annotated[
        Path | None, typer.Option(help="Also write the photograph with the landmarks drawn.")
    ] = None,
    face: Face = "largest",
    detector: Detector = "auto",
    landmarker: LandmarkNet = "auto",
    device: Device = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Find a face in a photograph and write its 68 landmarks, in pixels."""
    from pyfacelat.faces.draw import draw_landmarks
    from pyfacelat.files import write_atomically
    from pyfacelat.images import save_png
    from pyfacelat.photographs import FaceFinder, photo_of

    photo = photo_of(source)
    finder = FaceFinder(detector, landmarker, face=face_of(face), device=device)
    points = finder.find(photo, name="source")
    rows = [[round(float(x), 3), round(float(y), 3)] for x, y in points]
    write_atomically(out, json.dumps(rows).encode())
    if picture is not None:
        save_png(picture, draw_landmarks(photo, points))
    typer.echo(json.dumps({"file": str(out), "points": rows}) if as_json else str(out))


def _write(outdir: Path, crops: Iterable[tuple[str, AlignedFace]], as_json: bool) -> None:
    """Write crops under their names, and crops.json."""
    from pyfacelat.files import write_atomically
    from pyfacelat.images import save_png

    rows = []
    for name, crop in crops:
        save_png(outdir / name, crop.image)
        rows.append({"file": name, "size": crop.size, "quad": crop.quad.tolist()})
    write_atomically(outdir / "crops.json", json.dumps(rows, indent=1).encode())
    told = json.dumps({"outdir": str(outdir), "crops": rows})
    typer.echo(told if as_json else f"{len(rows)} crops in {outdir}")


def _every_face(source: Path, finder: FaceFinder, size: int) -> Iterator[tuple[str, AlignedFace]]:
    """Name and crop of all faces of a photograph or a folder of them."""
    from pyfacelat.faces.align import align_face
    from pyfacelat.photographs import photo_of, pictures_in

    for file in pictures_in(source) if source.is_dir() else [source]:
        photo = photo_of(file)
        faces = finder.find_all(photo)
        if not faces:
            typer.echo(f"{file}: no face found", err=True)
        for number, points in enumerate(faces):
            yield f"{file.stem}_{number:02d}.png", align_face(photo, points, size=size)


def _points(path: Path) -> Any:
    from pyfacelat.faces.landmarks import load_points

    points, _ = load_points(path)
    if len(points) != 1:
        raise ConfigError(f"landmarks: {path}: expected one set of points, got {len(points)}")
    return points[0].double().numpy()
