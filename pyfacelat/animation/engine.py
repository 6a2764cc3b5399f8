"""`animate`: inputs, configuration and networks brought together."""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from torch import Tensor, nn

from pyfacelat.animation.config import AnimationConfig, make_animation
from pyfacelat.animation.driving import Driving, Source
from pyfacelat.animation.journal import Journal
from pyfacelat.animation.result import AnimationResult
from pyfacelat.animation.studio import AnimationStep as AnimationStep
from pyfacelat.animation.studio import Callback, Studio
from pyfacelat.errors import ConfigError, ImageError
from pyfacelat.faces.detect import Detector
from pyfacelat.faces.groups import GroupWeights
from pyfacelat.images import shrink_to, to_uint8
from pyfacelat.nets.stylegan2 import Generator
from pyfacelat.projection import ProjectionConfig, Projector
from pyfacelat.projection.config import LossWeights
from pyfacelat.projection.framing import frame_inputs
from pyfacelat.projection.inputs import read_inputs
from pyfacelat.projection.memory import blocks_kept
from pyfacelat.projection.outdir import Outdir, open_outdir
from pyfacelat.projection.runtime import named_memory_errors, progress_bar


def animate(
    look: Any,
    driving: Any,
    *,
    mode: str = "joint",
    network: str | os.PathLike[str] | Generator = "sample",
    space: str = "w+",
    preset: str | ProjectionConfig | AnimationConfig = "balanced",
    steps: int | None = None,
    frame_steps: int | None = None,
    keyframe_every: int = 6,
    batch: int = 64,
    midpoints: bool = False,
    track_sigma: float = 0.0,
    fps: float | None = None,
    perceptual: str | os.PathLike[str] | nn.Module = "auto",
    landmarker: str | os.PathLike[str] | nn.Module = "auto",
    loss_weights: LossWeights | None = None,
    group_weights: GroupWeights | None = None,
    init: str | os.PathLike[str] | Tensor = "auto",
    encoder: str | os.PathLike[str] | nn.Module = "auto",
    align: bool | str = "auto",
    face: str | int = "largest",
    seed: int = 303,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    graph: bool | str = "auto",
    outdir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    callback: Callback | None = None,
    progress: bool = False,
    landmark_backend: str = "torch",
    pose: str | None = None,
    shape: str | None = None,
    perceptual_mask: str | None = None,
    identity: str | os.PathLike[str] | nn.Module = "auto",
    discriminator: str | os.PathLike[str] | nn.Module = "auto",
    detector: str | os.PathLike[str] | Detector = "auto",
) -> AnimationResult:
    """Drive a face by the landmarks of a clip.

    What is not said here is as in `pyfacelat.project`.

    Args:
        look: the face to move: one image.
        driving: a video, a folder of pictures (in natural order: 2.png before 10.png), a list or
            batch of images, or a track of landmarks: points [F,68,2] in pixels of the look, or a
            file of them (json, npy, npz with `landmarks`).
        mode: "joint", all frames at once, or "sequential", each from the one before, as published.
        network: "sample", the path of a StyleGAN2 file, or a `Generator`.
        space: "w" or "w+".
        preset: a preset of projections ("reference" is the published video projection; see
            `animation.config`), a `ProjectionConfig`, or an `AnimationConfig`, which decides
            everything up to `track_sigma`, and weights, seed, pose, mask and engine as well.
        steps: of the look and the first frame (joint: the keyframes); None takes the preset's.
        frame_steps: of each further frame (joint: of all frames together).
        keyframe_every: frames from one keyframe to the next, in mode "joint".
        batch: most frames that are in memory at once, in mode "joint".
        midpoints: also give the frames half way between, at twice the rate.
        track_sigma: average the driving points over time by a Gaussian of so many frames.
        fps: frames per second; None takes the video's, or 30.
        perceptual: the look term's network.
        landmarker: the landmark network.
        loss_weights: by term; besides those of `project`: smoothness (to the frame before, as
            published), acceleration (second difference of latents) and jitter (of landmarks).
        group_weights: of landmarks.
        init: where the look starts.
        encoder: gives the latents to start from.
        align: True finds the face in every frame and crops it, through crops that are smooth in
            time; a track is framed by itself. False takes frames for crops, and points for pixels
            of the look. "auto" looks which of the two it is, and warns.
        face: which of several.
        seed: of the noise.
        device: where to run.
        dtype: "auto", "float32" or "float64".
        graph: "auto" or False.
        outdir: where to write results and, during the run, a state to resume from.
        resume: go on with what is in `outdir`; gives the same bits on CPU.
        callback: called with an `AnimationStep` every 20 steps; returning False ends the work, and
            the result has what is there by then.
        progress: show a progress bar.
        landmark_backend: engine of the landmark term.
        pose: "take" the driving head's pose, or "keep" the look's and carry over the expression.
        shape: "keep" the shape of the look's face where frames drive, or "take" that of the face
            in them; a track of points brings its own.
        perceptual_mask: what the look term does not see.
        identity: network of the identity term.
        discriminator: network of the discriminator term.
        detector: what finds faces.

    Returns:
        an `AnimationResult`.

    Raises:
        ImageError, LandmarkError, ConfigError: a bad argument, before any work; the message names
            the frame.
        NoFaceError: a frame, or the look, has no face; the message says which.
        CheckpointError, MissingWeightsError, DeviceError, NonFiniteError, OutdirBusyError,
        OutputError: as `project`.
    """
    config = preset
    if not isinstance(config, AnimationConfig):
        config = make_animation(
            mode,
            config,
            space=space,
            steps=steps,
            frame_steps=frame_steps,
            loss_weights=loss_weights,
            group_weights=group_weights,
            seed=seed,
            pose=pose,
            shape=shape,
            perceptual_mask=perceptual_mask,
            landmark_backend=landmark_backend,
            keyframe_every=keyframe_every,
            batch=batch,
            midpoints=midpoints,
            track_sigma=track_sigma,
        )
    if resume and outdir is None:
        raise ConfigError("resume: expected an outdir to resume from, got none")
    source = Source(driving, fps)
    inputs = read_inputs(look)
    if len(inputs) != 1:
        raise ImageError(f"look: expected one image, got {len(inputs)}")
    began = time.perf_counter()
    projector = Projector(
        network,
        space=config.projection.space,
        preset=config.projection,
        perceptual=perceptual,
        landmarker=landmarker,
        init=init,
        encoder=encoder,
        align=align,
        face=face,
        seed=config.projection.seed,
        device=device,
        dtype=dtype,
        graph=graph,
        landmark_backend=config.projection.landmark_backend,
        identity=identity,
        discriminator=discriminator,
        detector=detector,
    )
    given = inputs.look[0]
    width, height = given.shape[:0:-1] if isinstance(given, Tensor) else given.size
    size = projector.generator.img_resolution
    framed = frame_inputs(inputs, align, projector.finder, size)
    clip = source.read(
        projector.finder,
        align=align,
        size=size,
        look=(int(width), int(height)),
        look_crop=framed.looks[0],
        sigma=config.track_sigma,
    )
    picture = framed.inputs.look_batch(size).to(projector.device, projector.dtype)
    in_memory = min(len(clip), config.batch) if config.mode == "joint" else 1
    with (
        open_outdir(outdir) as folder,
        blocks_kept(),
        named_memory_errors(in_memory, size, resumable=outdir is not None),
    ):
        result = _work(projector, config, picture, clip, folder, resume, callback, progress)
        result.timings["total"] = time.perf_counter() - began
        if folder is not None:
            result.save(folder.path)
            if result.complete:
                folder.clear_state()
    return result


def _work(
    projector: Projector,
    config: AnimationConfig,
    look: Tensor,
    clip: Driving,
    folder: Outdir | None,
    resume: bool,
    callback: Callback | None,
    progress: bool,
) -> AnimationResult:
    identity = ""
    if folder is not None:
        pictures = None if clip.pictures is None else torch.from_numpy(clip.pictures)
        identity = projector.hash_of("animation", config.to_json(), look, clip.points, pictures)
    journal = Journal(folder, identity, resume)
    studio = Studio(projector, config, look, clip, journal, callback=callback, report=None)
    with progress_bar(progress, studio.steps) as studio.report:
        try:
            ws = studio.work()
        finally:  # also when interrupted: what is done is on disk
            journal.flush()
    return _result(studio, config, ws, look, clip, projector.timings)


@torch.no_grad()
def _result(
    studio: Studio,
    config: AnimationConfig,
    ws: Tensor,
    look: Tensor,
    clip: Driving,
    timings: dict[str, float],
) -> AnimationResult:
    began = time.perf_counter()
    projector, count = studio.projector, len(ws)
    generator, size = projector.generator, projector.config.perceptual_size
    buffers = dict(generator.named_buffers())
    noise = {name: buffers[name].detach()[None].clone() for name in generator.noise_names()}

    def rendered(latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One by one, so that saved latents render the very same bits again."""
        parts = []
        for one in latents.float().split(1):
            image = generator.synthesis(one.to(ws), noise=noise or None)
            parts.append(
                (to_uint8(image).cpu(), *projector.landmarker.points(shrink_to(image, size)))
            )
        images, points, confidence = (torch.cat(column) for column in zip(*parts, strict=True))
        return images, points.float().cpu(), confidence.float().cpu()

    ws = ws.contiguous()
    images, points, confidence = rendered(ws)
    between = None
    if config.midpoints and count > 1:
        between = rendered((ws[1:] + ws[:-1]) / 2)[0].numpy()
    side = generator.img_resolution
    return AnimationResult(
        ws=ws.float().cpu(),
        noise={name: maps.float().cpu() for name, maps in noise.items()},
        images=images.numpy(),
        between=between,
        landmarks=points * side,
        confidence=confidence,
        target_landmarks=studio.points(range(count)) * side,
        look=to_uint8(look)[0].cpu().numpy(),
        driving=None if clip.pictures is None else clip.pictures[:count],
        fps=clip.fps,
        losses=studio.losses(),
        config=config,
        timings=timings | studio.seconds() | {"render": time.perf_counter() - began},
        backends=projector.backends(),
        complete=not studio.stopped,
        generator=generator,
    )
