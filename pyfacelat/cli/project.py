"""`pyfacelat project`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from pyfacelat.cli.options import (
    DeviceOption,
    JsonOption,
    LandmarkerOption,
    NetworkOption,
    OutdirOption,
    face_of,
)
from pyfacelat.errors import ConfigError, LandmarkError

if TYPE_CHECKING:
    from pyfacelat.losses.landmark import Normalize

LookArgument = Annotated[
    str | None, typer.Argument(help="Image of the face to look like.", show_default=False)
]
LandmarksArgument = Annotated[
    str | None,
    typer.Argument(
        help="Image, or file of 68 points, with the landmarks to have. Default: the look's own.",
        show_default=False,
    ),
]
VideoOption = Annotated[
    bool, typer.Option("--save-video/--no-save-video", help="Write proj.mp4 as well.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]

WORDS: dict[str, bool | str] = {"true": True, "yes": True, "false": False, "no": False}


def project(
    look: LookArgument = None,
    landmarks: LandmarksArgument = None,
    target_look: Annotated[str | None, typer.Option(help="The same as LOOK.")] = None,
    target_landmarks: Annotated[str | None, typer.Option(help="The same as LANDMARKS.")] = None,
    network: NetworkOption = "sample",
    outdir: OutdirOption = Path("out"),
    preset: Annotated[
        str, typer.Option(help="fast, balanced, best, or reference (as published).")
    ] = "balanced",
    space: Annotated[str, typer.Option(help="w or w+.")] = "w+",
    steps: Annotated[
        int | None,
        typer.Option("--steps", "--num-steps", help="Steps in all. Default: the preset's."),
    ] = None,
    lpips_weight: Annotated[
        float | None,
        typer.Option("--perceptual-weight", "--lpips-weight", help="Of the look term."),
    ] = None,
    landmark_weight: Annotated[float | None, typer.Option(help="Of the landmark term.")] = None,
    loss_weights: Annotated[
        list[str] | None,
        typer.Option(
            "--loss-weights",
            "--weight",
            help="Weights by term, e.g. pixel=5,prior=0.1; coordinate=1:0.2 moves over a stage.",
            show_default=False,
        ),
    ] = None,
    group_weights: Annotated[
        str | None,
        typer.Option(
            "--group-weights",
            "--landmark-weights",
            help="Weights by landmark group, e.g. outer_lip=5,jaw=0.05, or nine or 68 numbers.",
        ),
    ] = None,
    pose: Annotated[
        str | None,
        typer.Option(help="take the target's head pose, or keep the look's. Default: take."),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            help="keep the shape of the look's face, or take the target's. Default: keep."
        ),
    ] = None,
    perceptual_mask: Annotated[
        str | None,
        typer.Option(help="What the look term does not see: none, face, landmarks."),
    ] = None,
    align: Annotated[
        str,
        typer.Option(
            help="Crop faces out of photographs: auto (where it looks needed), true, false."
        ),
    ] = "auto",
    face: Annotated[
        str,
        typer.Option(help="Of several: largest, central, confident, only, or a number from 0."),
    ] = "largest",
    detector: Annotated[
        str, typer.Option(help="auto (S3FD), or a file with such a network.")
    ] = "auto",
    identity: Annotated[
        str, typer.Option(help="For the identity term: auto, sample, or a recognition net's file.")
    ] = "auto",
    discriminator: Annotated[
        str, typer.Option(help="For the discriminator term. auto: the one in NETWORK's pickle.")
    ] = "auto",
    perceptual: Annotated[str, typer.Option(help="auto, sample or lpips-vgg16.")] = "auto",
    landmarker: LandmarkerOption = "auto",
    normalize: Annotated[
        str | None,
        typer.Option(help="Landmark network's input: unit, or minmax as the published code."),
    ] = None,
    init: Annotated[str, typer.Option(help="auto, mean, encoder, or a file of latents.")] = "auto",
    encoder: Annotated[
        str, typer.Option(help="To start from: auto, sample, or an e4e, pSp or finder file.")
    ] = "auto",
    person: Annotated[
        str | None,
        typer.Option(help="Whose identity the identity term asks for. Default: the look's."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 303,
    device: DeviceOption = "auto",
    landmark_backend: Annotated[
        str, typer.Option(help="Engine of the landmark term: torch, or onnx (onnxruntime).")
    ] = "torch",
    save_video: VideoOption = False,
    resume: ResumeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Project a face under a look target and a landmark target.

    Writes latents, noise, pictures, losses and a report to OUTDIR.
    """
    source = single("LOOK", "--target-look", look, target_look)
    if source is None:
        raise typer.BadParameter("give an image as LOOK or with --target-look")
    target = single("LANDMARKS", "--target-landmarks", landmarks, target_landmarks)
    weights = parse_terms(loss_weights, perceptual=lpips_weight, landmark=landmark_weight)
    groups = parse_groups(group_weights)
    run(
        source,
        target,
        outdir=outdir,
        save_video=save_video,
        as_json=as_json,
        network=network,
        preset=parse_preset(preset, normalize),
        space=space,
        steps=steps,
        loss_weights=weights or None,
        group_weights=groups,
        pose=pose,
        shape=shape,
        align=WORDS.get(align.lower(), align),
        face=face_of(face),
        detector=detector,
        perceptual_mask=perceptual_mask,
        identity=identity,
        discriminator=discriminator,
        perceptual=perceptual,
        landmarker=landmarker,
        init=init,
        encoder=encoder,
        person=person,
        seed=seed,
        device=device,
        landmark_backend=landmark_backend,
        resume=resume,
    )


def run(
    look: Any, landmarks: Any, *, outdir: Path, save_video: bool, as_json: bool, **settings: Any
) -> None:
    """Project, write everything, and say in words or JSON what came out."""
    import pyfacelat
    from pyfacelat.projection.outdir import open_outdir

    tty = sys.stderr.isatty()
    result = pyfacelat.project(
        look, landmarks, outdir=outdir, progress=tty and not as_json, **settings
    )
    if save_video:
        with open_outdir(outdir):
            result.save(outdir, video=True)
    if as_json:
        typer.echo(json.dumps({"outdir": str(outdir), **result.summary()}))
        return
    seconds = result.timings["total"]
    steps = len(result.losses["total"])
    for index, error in enumerate(result.landmark_error.tolist()):
        which = f" image {index}:" if len(result) > 1 else ""
        typer.echo(f"{steps} steps in {seconds:.1f} s,{which} landmark error {100 * error:.1f} %")
    first = outdir if len(result) == 1 else outdir / "000"
    typer.echo(f"picture  {first / 'strip.png'}\nreport   {first / 'report.html'}")


def single(argument: str, option: str, first: str | None, second: str | None) -> str | None:
    """The one of two ways to say a thing that was used; None where neither was."""
    if first is not None and second is not None:
        raise typer.BadParameter(f"{argument} and {option} are the same; give one")
    return first if first is not None else second


def parse_terms(
    texts: list[str] | None, **named: float | None
) -> dict[str, float | tuple[float, float]]:
    """Weights by term from texts like pixel=5,prior=0.1; `named` ones count unless None."""
    weights: dict[str, float | tuple[float, float]] = {}
    for item in ",".join(texts or []).split(","):
        if not item.strip():
            continue
        name, _, value = item.partition("=")
        first, colon, last = value.partition(":")
        try:
            start = float(first)
            weights[name.strip()] = (start, float(last)) if colon else start
        except ValueError:
            raise ConfigError(
                "loss_weights: expected pairs like pixel=5,prior=0.1 or coordinate=1:0.2, "
                f"got {item!r}"
            ) from None
    return weights | {name: value for name, value in named.items() if value is not None}


def parse_groups(text: str | None) -> Any:
    """Group weights as `project` takes them."""
    if text is None:
        return None
    from pyfacelat.faces import groups

    try:
        weights = groups.parse(text)
        groups.expand(weights)
    except LandmarkError as error:
        raise ConfigError(str(error)) from None
    return weights


def parse_preset(name: str, normalize: str | None) -> Any:
    """A preset, with the landmark network's input as said."""
    if normalize is None:
        return name
    import dataclasses

    from pyfacelat.projection import make_config

    # The configuration checks the word itself, and says which ones there are.
    return dataclasses.replace(make_config(name), normalize=cast("Normalize", normalize))
