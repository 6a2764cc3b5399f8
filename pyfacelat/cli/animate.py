"""`pyfacelat animate` and `pyfacelat frames`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pyfacelat.cli.options import (
    DeviceOption,
    JsonOption,
    NetworkOption,
    OutdirOption,
    face_of,
    safe_outdir,
)
from pyfacelat.cli.project import WORDS, ResumeOption, parse_groups, parse_terms, single
from pyfacelat.errors import ConfigError


def animate(
    look: Annotated[
        str | None, typer.Argument(help="Image of the face to move.", show_default=False)
    ] = None,
    driving: Annotated[
        str | None,
        typer.Argument(
            help="Video, folder of frames, or file of points [F,68,2] that moves it.",
            show_default=False,
        ),
    ] = None,
    target_look: Annotated[str | None, typer.Option(help="The same as LOOK.")] = None,
    target_landmarks_folder: Annotated[
        str | None, typer.Option(help="The same as DRIVING.")
    ] = None,
    network: NetworkOption = "sample",
    outdir: OutdirOption = Path("out"),
    mode: Annotated[
        str,
        typer.Option(help="joint, all frames at once; sequential, each from the one before."),
    ] = "joint",
    preset: Annotated[
        str, typer.Option(help="balanced, or reference (as published).")
    ] = "balanced",
    space: Annotated[str, typer.Option(help="w or w+.")] = "w+",
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", "--num-steps-first", help="Steps of the look and the first frame(s)."
        ),
    ] = None,
    frame_steps: Annotated[
        int | None,
        typer.Option(
            "--frame-steps",
            "--num-steps",
            help="Steps of each further frame (joint: of all frames together).",
        ),
    ] = None,
    keyframe_every: Annotated[
        int, typer.Option(help="Frames from one keyframe to the next; joint only.")
    ] = 6,
    batch: Annotated[int, typer.Option(help="Most frames in memory at once; joint only.")] = 64,
    midpoints: Annotated[
        bool,
        typer.Option("--midpoints", help="Frames half way between as well, at twice the rate."),
    ] = False,
    track_sigma: Annotated[
        float, typer.Option(help="Smooth the driving points over so many frames.")
    ] = 0.0,
    fps: Annotated[
        float | None, typer.Option(help="Frames per second. Default: the video's, or 30.")
    ] = None,
    lpips_weight: Annotated[
        float | None,
        typer.Option("--perceptual-weight", "--lpips-weight", help="Of the look term."),
    ] = None,
    landmark_weight: Annotated[float | None, typer.Option(help="Of the landmark term.")] = None,
    fidelity_weight: Annotated[
        float | None, typer.Option(help="Of the distance to the mean face.")
    ] = None,
    smoothness_weight: Annotated[
        float | None, typer.Option(help="Of the distance to the frame before.")
    ] = None,
    discriminator_weight: Annotated[
        float | None,
        typer.Option("--discriminator-weight", "--d-weight", help="Of the discriminator term."),
    ] = None,
    loss_weights: Annotated[
        list[str] | None,
        typer.Option(
            "--loss-weights",
            "--weight",
            help="Weights by term, e.g. acceleration=10,jitter=1.",
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
        typer.Option(help="take the driving head's pose, or keep the look's. Default: take."),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(help="keep the shape of the look's face, or take that of the driving one."),
    ] = None,
    align: Annotated[
        str,
        typer.Option(help="Crop faces out of frames: auto (where it looks needed), true, false."),
    ] = "auto",
    face: Annotated[
        str,
        typer.Option(help="Of several: largest, central, confident, only, or a number from 0."),
    ] = "largest",
    detector: Annotated[
        str, typer.Option(help="auto (S3FD), or a file with such a network.")
    ] = "auto",
    discriminator: Annotated[
        str, typer.Option(help="For the discriminator term. auto: the one in NETWORK's pickle.")
    ] = "auto",
    perceptual: Annotated[str, typer.Option(help="auto, sample or lpips-vgg16.")] = "auto",
    landmarker: Annotated[str, typer.Option(help="auto, sample or 2dfan4.")] = "auto",
    encoder: Annotated[
        str, typer.Option(help="Where to start: auto, sample, or the file of an encoder.")
    ] = "auto",
    init: Annotated[str, typer.Option(help="auto, mean, encoder, or a file of latents.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 303,
    device: DeviceOption = "auto",
    save_frames: Annotated[
        bool, typer.Option("--save-frames", help="Write each frame as PNG and npz as well.")
    ] = False,
    resume: ResumeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Drive a face by a video, a folder of frames, or a track of landmarks.

    Writes videos, latents of all frames, and a report to OUTDIR.
    """
    import pyfacelat
    from pyfacelat.projection.outdir import open_outdir

    source = single("LOOK", "--target-look", look, target_look)
    clip = single("DRIVING", "--target-landmarks-folder", driving, target_landmarks_folder)
    if source is None or clip is None:
        raise typer.BadParameter("give an image as LOOK, and a video, folder or track as DRIVING")
    weights = parse_terms(
        loss_weights,
        perceptual=lpips_weight,
        landmark=landmark_weight,
        fidelity=fidelity_weight,
        smoothness=smoothness_weight,
        discriminator=discriminator_weight,
    )
    tty = sys.stderr.isatty()
    result = pyfacelat.animate(
        source,
        clip,
        mode=mode,
        network=network,
        space=space,
        preset=preset,
        steps=steps,
        frame_steps=frame_steps,
        keyframe_every=keyframe_every,
        batch=batch,
        midpoints=midpoints,
        track_sigma=track_sigma,
        fps=fps,
        perceptual=perceptual,
        landmarker=landmarker,
        loss_weights=weights or None,
        group_weights=parse_groups(group_weights),
        init=init,
        encoder=encoder,
        align=WORDS.get(align.lower(), align),
        face=face_of(face),
        seed=seed,
        device=device,
        outdir=outdir,
        resume=resume,
        progress=tty and not as_json,
        pose=pose,
        shape=shape,
        discriminator=discriminator,
        detector=detector,
    )
    if save_frames:
        with open_outdir(outdir):
            result.save(outdir, video=False, frames=True)
    if as_json:
        typer.echo(json.dumps({"outdir": str(outdir), **result.summary()}))
        return
    found = result.metrics
    typer.echo(
        f"{len(result)} frames in {result.timings['total']:.1f} s, "
        f"landmark error {100 * found['landmark_error']:.1f} %, jitter {found['jitter']:.2f}"
    )
    typer.echo(f"video    {outdir / 'animation.mp4'}\nreport   {outdir / 'report.html'}")


def frames(
    source: Annotated[Path, typer.Argument(help="A video.", show_default=False)],
    outdir: OutdirOption = Path("frames"),
    every: Annotated[int, typer.Option(help="Keep one frame of so many.")] = 1,
    most: Annotated[
        int | None, typer.Option(help="Frames to write, at most. Default: all.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the frames of a video as 0.png, 1.png, ..., upright and at full size.

    `pyfacelat align` crops the faces in a video or in such a folder.
    """
    from itertools import chain, islice

    from pyfacelat.images import save_png
    from pyfacelat.photographs import frames_of
    from pyfacelat.video import frame_rate

    for name, value in (("every", every), ("most", 1 if most is None else most)):
        if value < 1:
            raise ConfigError(f"{name}: expected at least 1, got {value}")
    if source.is_dir():
        raise ConfigError(f"source: {source} is a folder; expected a video")
    pictures = frames_of(source)
    first = next(pictures)
    safe_outdir(outdir)
    count = 0
    for frame in islice(chain([first], pictures), 0, None, every):
        if most is not None and count == most:
            break
        save_png(outdir / f"{count}.png", frame)
        count += 1
    rate = frame_rate(source) / every
    if as_json:
        height, width = first.shape[:2]
        row = {"outdir": str(outdir), "frames": count, "fps": rate, "size": [width, height]}
        typer.echo(json.dumps(row))
        return
    typer.echo(f"{count} frames in {outdir}, {rate:g} a second")
