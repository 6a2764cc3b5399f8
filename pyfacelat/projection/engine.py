"""`Projector` and `project`: networks, inputs and configuration brought together."""

from __future__ import annotations

import copy
import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyfacelat.errors import ConfigError, NonFiniteError
from pyfacelat.faces.detect import Detector
from pyfacelat.faces.groups import GroupWeights
from pyfacelat.images import shrink_to, to_uint8
from pyfacelat.latents import load_latents
from pyfacelat.nets.frozen_synthesis import can_freeze, frozen_render
from pyfacelat.nets.stylegan2 import Generator
from pyfacelat.ops import backend_report
from pyfacelat.photographs import FaceFinder, check_face
from pyfacelat.projection.config import (
    TEMPORAL,
    LossWeights,
    ProjectionConfig,
    Stage,
    make_config,
)
from pyfacelat.projection.encoders import encode
from pyfacelat.projection.framing import Framed, check_align, frame_inputs
from pyfacelat.projection.graphs import GraphCache
from pyfacelat.projection.inputs import Inputs, read_inputs
from pyfacelat.projection.landmark_term import landmark_term
from pyfacelat.projection.loop import Callback, Coordinates, Run, SaveState
from pyfacelat.projection.memory import blocks_kept
from pyfacelat.projection.motion import MotionModel, motion_model
from pyfacelat.projection.networks import load_networks
from pyfacelat.projection.outdir import Outdir, fingerprint, open_outdir
from pyfacelat.projection.plan import Plan, transfers
from pyfacelat.projection.result import ProjectionResult
from pyfacelat.projection.runtime import (
    Report,
    named_memory_errors,
    progress_bar,
    resolve_device,
    resolve_dtype,
    resolve_graph,
)
from pyfacelat.projection.space import LatentSpace, check_ws, measure
from pyfacelat.projection.targets import Targets, make_targets
from pyfacelat.projection.terms import Terms
from pyfacelat.version import __version__


class Projector:
    """A generator with its loss networks, ready to project many faces.

    Args: as `project`; the networks are read, and the generator's latents measured, once.
    """

    def __init__(
        self,
        network: str | os.PathLike[str] | Generator = "sample",
        *,
        space: str = "w+",
        preset: str | ProjectionConfig = "balanced",
        steps: int | None = None,
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
        landmark_backend: str = "torch",
        pose: str | None = None,
        shape: str | None = None,
        perceptual_mask: str | None = None,
        identity: str | os.PathLike[str] | nn.Module = "auto",
        discriminator: str | os.PathLike[str] | nn.Module = "auto",
        detector: str | os.PathLike[str] | Detector = "auto",
    ) -> None:
        self.config = make_config(
            preset,
            space=space,
            steps=steps,
            loss_weights=loss_weights,
            group_weights=group_weights,
            seed=seed,
            landmark_backend=landmark_backend,
            pose=pose,
            shape=shape,
            perceptual_mask=perceptual_mask,
        )
        self.device = resolve_device(device)
        self.dtype, self.features = resolve_dtype(dtype)
        check_align(align)
        check_face(face)
        recorded = resolve_graph(graph, self.device, self.config.landmark_backend)
        self._graphs = GraphCache() if recorded else None
        began = time.perf_counter()
        nets = load_networks(
            self.config,
            network=network,
            perceptual=perceptual,
            landmarker=landmarker,
            init=init,
            identity=identity,
            discriminator=discriminator,
            encoder=encoder,
            device=self.device,
            dtype=self.dtype,
            features=self.features,
        )
        self._nets = nets
        self.generator, self.perceptual = nets.generator, nets.perceptual
        if self.features is not None and not can_freeze(nets.generator):
            raise ConfigError(
                f"dtype: {dtype!r} is for StyleGAN2 generators of the skip architecture"
            )
        self._render = frozen_render(nets.generator, self.features)
        self.landmarker, self._encoder = nets.landmarker, nets.encoder
        self.identity = nets.identity
        self._init = self._given_latents(init)
        self.align = align
        self.finder = FaceFinder(detector, self.landmarker, face=face, device=self.device)
        self._landmark = landmark_term(
            self.config, self.landmarker, device=self.device, dtype=self.dtype
        )
        loaded = time.perf_counter()
        self.statistics = measure(
            self.generator, samples=self.config.w_samples, seed=self.config.w_seed
        )
        self.space = LatentSpace(
            self.statistics, self.config.space, self.config.coordinates, self.generator.num_ws
        )
        self._weights: str | None = None
        self._motion: MotionModel | None = None
        own = (network, landmarker, identity)
        self._sample = all(isinstance(net, str) and net in ("auto", "sample") for net in own)
        self._tells_identity = self._sample or self.identity is not None
        self._terms = Terms(self.config, nets, self.space, self._landmark)
        self.timings = {"load": loaded - began, "measure": time.perf_counter() - loaded}

    def project(
        self,
        look: Any,
        landmarks: Any = None,
        *,
        person: Any = None,
        outdir: str | os.PathLike[str] | None = None,
        resume: bool = False,
        callback: Callback | None = None,
        progress: bool = False,
    ) -> ProjectionResult:
        """Project one face or a batch. Arguments, result and errors as `pyfacelat.project`."""
        return self._project(
            read_inputs(look, landmarks, person), outdir, resume, callback, progress
        )

    def _project(
        self,
        inputs: Inputs,
        outdir: str | os.PathLike[str] | None,
        resume: bool,
        callback: Callback | None,
        progress: bool,
    ) -> ProjectionResult:
        if resume and outdir is None:
            raise ConfigError("resume: expected an outdir to resume from, got none")
        for term in TEMPORAL:
            if self.config.uses(term):
                raise ConfigError(f"loss_weights: {term}: is for the frames of a clip: `animate`")
        began = time.perf_counter()
        size = self.generator.img_resolution
        framed = frame_inputs(inputs, self.align, self.finder, size)
        resumable = outdir is not None
        with (
            open_outdir(outdir) as folder,
            blocks_kept(),
            named_memory_errors(len(inputs), size, resumable=resumable),
        ):
            return self._project_into(folder, framed, began, resume, callback, progress)

    def _project_into(
        self,
        folder: Outdir | None,
        framed: Framed,
        began: float,
        resume: bool,
        callback: Callback | None,
        progress: bool,
    ) -> ProjectionResult:
        inputs, size = framed.inputs, self.generator.img_resolution
        look = inputs.look_batch(size).to(self.device, self.dtype)
        source = inputs.landmark_batch(size)
        target_image = None if source is None else source.to(self.device, self.dtype)
        who = inputs.person_batch(size)
        person = None if who is None else who.to(self.device, self.dtype)
        targets = make_targets(
            self.config,
            self.landmarker,
            look,
            points=inputs.landmark_points,
            maps=inputs.landmark_maps,
            image=target_image,
            person=person,
        )
        plan = self.plan(targets, target_image, progress=progress)
        prepared = time.perf_counter()

        identity = ""
        if folder:  # not the target's heat maps: a GPU need not compute the same bits twice
            given = (inputs.landmark_points, inputs.landmark_maps, person)
            identity = self.hash_of(look, target_image, *given)
        state = folder.load_state(identity) if folder and resume else None
        with progress_bar(progress, plan.config.steps) as report:
            run = Run(
                self.generator,
                plan.config,
                self.space,
                plan.start,
                plan.terms,
                begin=plan.begin,
                coordinates=plan.coordinates,
                render=self._render,
                graphs=self._graphs,
                callback=callback,
                report=report,
                save=None
                if folder is None
                else lambda state: folder.try_save_state(state, identity),
            )
            try:
                run(state)
            except NonFiniteError:
                if folder is not None:  # what was good until then is worth keeping
                    self._result(run, plan, target_image, framed, {}).save(folder.path)
                raise
        timings = self.timings | {"prepare": prepared - began} | run.track.seconds
        result = self._result(run, plan, target_image, framed, timings)
        result.timings["total"] = time.perf_counter() - began
        if folder is not None:
            result.save(folder.path)
            if not run.stopped:
                folder.clear_state()
        return result

    def prepare(
        self,
        stages: tuple[Stage, ...],
        start: Tensor,
        targets: Targets,
        *,
        coordinates: Coordinates | None = None,
        callback: Callback | None = None,
        report: Report | None = None,
        save: SaveState | None = None,
    ) -> Run:
        """Some stages, ready to run, each from the end of the one before.

        Args:
            stages: of the kinds whose networks the configuration has loaded.
            start: coordinates [N,rows,D] to start from.
            targets: of the N faces.
            coordinates: see `Run`, as the next three.
            callback: called at checks.
            report: of progress.
            save: of states.

        """
        return Run(
            self.generator,
            dataclasses.replace(self.config, stages=stages),
            self.space,
            start,
            lambda stage, begin: self._terms(stage, begin, targets),
            coordinates=coordinates,
            render=self._render,
            graphs=self._graphs,
            callback=callback,
            report=report,
            save=save,
        )

    def with_noise(self, noise: Mapping[str, Tensor]) -> Projector:
        """This projector with other noise maps [H,W] in its generator; the weights are shared."""
        other = copy.copy(self)
        memo = {id(parameter): parameter for parameter in self.generator.parameters()}
        other.generator = copy.deepcopy(self.generator, memo)
        for name, buffer in other.generator.named_buffers():
            if name in noise:
                buffer.copy_(noise[name])
        other._render = frozen_render(other.generator, self.features)
        other._graphs = self._graphs and GraphCache()
        return other

    def backends(self) -> dict[str, str]:
        """Which implementation each op uses on this device."""
        used = {r["op"]: r["used"] for r in backend_report() if r["device"] == self.device.type}
        return used | {"landmark_term": self._landmark.backend}

    def hash_of(self, *given: str | Tensor | None) -> str:
        """A hash of networks, settings and what is given; see `Outdir.load_state`."""
        if self._weights is None:
            nets = self._nets
            self._weights = fingerprint(
                nets.generator,
                nets.landmarker,
                nets.perceptual,
                nets.encoder,
                nets.identity,
                nets.discriminator,
                nets.features,
            )
        dtypes = str((self.dtype, self.features))
        settings = (__version__, self.config.to_json(), dtypes, self._weights)
        return fingerprint(*settings, self._init, *given)

    def _given_latents(self, init: str | os.PathLike[str] | Tensor) -> Tensor | None:
        """Latents [N,num_ws,w_dim] that the caller wants to start from, or None."""
        if isinstance(init, str) and init in ("auto", "mean", "encoder"):
            return None
        if not isinstance(init, Tensor):
            try:
                init = load_latents(init)
            except FileNotFoundError:
                raise ConfigError(f"init: no such file: {init}") from None
        return check_ws(init, self.generator)

    def plan(
        self,
        targets: Targets,
        image: Tensor | None,
        *,
        progress: bool = False,
        start: Callable[[Tensor, bool], Tensor] | None = None,
    ) -> Plan:
        """The stages for these targets.

        Args:
            targets: of N faces.
            image: what the landmarks come from, [N,3,R,R], or None.
            progress: show a bar while a motion model is learnt.
            start: coordinates to start from; None for `start`.

        """
        return Plan(
            self.config,
            self.space,
            self._terms,
            targets,
            image=image if self.transfers(image is not None) else None,
            start=start or self.start,
            motion=lambda: self.motion_model(progress=progress),
            render=lambda ws: self.generator.synthesis(ws),
            landmarker=self.landmarker,
        )

    def transfers(self, image: bool) -> bool:
        """Whether the motion is taken over from inversions, where the targets are images or not."""
        return transfers(self.config, image=image, identity=self._tells_identity)

    def motion_model(self, *, progress: bool = False) -> MotionModel:
        """Read or learnt when it is first needed."""
        if self._motion is None:
            identity = self.identity if self.config.shape == "keep" else None
            self._motion = motion_model(
                self.config,
                self._nets,
                self.space,
                sample=self._sample,
                identity=identity,
                progress=progress,
            )
        return self._motion

    def start(self, images: Tensor, given: bool = True) -> Tensor:
        """Coordinates [N,rows,D] to start from for images; `given`: from latents, if there are."""
        count = len(images)
        if self._encoder is not None:
            ws = encode(self._encoder, self.generator, images)
        elif self._init is not None and given:
            ws = self._init
        else:
            mean = self.statistics.mean.expand(count, self.generator.num_ws, -1)
            return self.space.from_ws(mean).clone()
        if len(ws) not in (1, count):
            raise ConfigError(f"init: expected 1 or {count} latents, got {len(ws)}")
        ws = ws.to(self.device, self.dtype).expand(count, -1, -1)
        return self.space.from_ws(ws)

    @torch.no_grad()
    def _result(
        self,
        run: Run,
        plan: Plan,
        target_image: Tensor | None,
        framed: Framed,
        timings: dict[str, float],
    ) -> ProjectionResult:
        targets = plan.targets
        ws = self.space.to_ws(plan.end(run)).contiguous()
        noise = run.noise or {
            name: tensor.detach().expand(len(ws), *tensor.shape).clone()
            for name, tensor in self.generator.named_buffers()
            if name in self.generator.noise_names()
        }
        # One by one, so that latents saved per item render the very same bits again.
        rendered = [
            self.generator.synthesis(
                ws[i : i + 1], noise={k: v[i : i + 1] for k, v in noise.items()} or None
            )
            for i in range(len(ws))
        ]
        images = torch.cat(rendered)
        found, confidence = self.landmarker.points(shrink_to(images, self.config.perceptual_size))
        side = self.generator.img_resolution
        return ProjectionResult(
            ws=ws.float().cpu(),
            noise={name: tensor.float().cpu() for name, tensor in noise.items()},
            images=to_uint8(images).cpu().numpy(),
            landmarks=(found * side).float().cpu(),
            losses=run.track.losses,
            config=plan.config,
            timings=dict(timings),
            backends=self.backends(),
            look=to_uint8(targets.look).cpu().numpy(),
            landmark_image=None if target_image is None else to_uint8(target_image).cpu().numpy(),
            target_landmarks=(plan.points(run) * side).float().cpu(),
            confidence=confidence.float().cpu(),
            crops=framed.looks,
            start=self.space.to_ws(plan.start).float().cpu(),
            person=None if targets.person is None else to_uint8(targets.person).cpu().numpy(),
            history=self.space.to_ws(plan.history(run).to(ws)).cpu(),
            generator=self.generator,
        )


def project(
    look: Any,
    landmarks: Any = None,
    *,
    network: str | os.PathLike[str] | Generator = "sample",
    space: str = "w+",
    preset: str | ProjectionConfig = "balanced",
    steps: int | None = None,
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
    person: Any = None,
) -> ProjectionResult:
    """Project a face into a generator's latent space under a look target and a landmark target.

    Args:
        look: the face to look like: a path, a PIL image, a uint8 array [H,W,3], a float tensor
            [3,H,W] or [N,3,H,W] in [-1, 1], or a list of these (a batch). See `align` for what
            is not framed the FFHQ way; else the centred square is resized to the generator's
            resolution.
        landmarks: the landmarks to have: the same kinds (read off by the landmark network), or
            points, [68,2] or [N,68,2] in pixels of the look image, or a file of points (json, npy,
            npz, pts, txt), or heat maps, floats [68,h,w] or [N,68,h,w]. None keeps those of `look`.
        network: "sample", the path of a StyleGAN2 file, or a `Generator` (frozen by this call).
        space: "w", one latent row for all layers, or "w+", one per layer.
        preset: "fast", "balanced", "best", "reference" (the published algorithm), or a
            `ProjectionConfig`.
        steps: total number of steps, >= 1; None takes the preset's.
        perceptual: "auto", "sample", "lpips-vgg16", or a module with `embed` and `distance`.
        landmarker: "auto", "sample", "2dfan4", or a module from images [N,3,S,S] in [0, 1] to heat
            maps [N,68,h,w] (or a list, the last counts); S is its `config.input_size`, else 256.
            "auto" is the sample networks for the sample generator, LPIPS-VGG16 and 2DFAN-4 else.
        loss_weights: weight by term, instead of the preset's; 0 switches a term off, and a pair is
            the weight at a stage's first step and at its last. Look: perceptual, vgg, ms_ssim,
            pixel, colour, identity, discriminator. Landmarks: landmark (heat maps), coordinate.
            Latents: prior, gaussianised, spread, delta, pull, fidelity. And noise.
        group_weights: weight by landmark group name, nine weights, or 68.
        init: "mean", "encoder", latents [num_ws,w_dim], or a file of latents; "auto" is "encoder"
            where one is given, and for the sample network unless the preset is "reference".
        encoder: what "encoder" is: the file of an e4e, pSp or image-to-latent network, or such a
            network; "auto" is the sample network's own, "sample".
        align: True finds the face in every image, look and landmark image, and crops it the FFHQ
            way; points then move with their look, and heat maps are those of its crop. False takes
            images as crops. "auto" crops pictures and files (tensors never) whose landmarks are not
            where FFHQ's are, if a detector is there, and warns.
        face: which of several: "largest", "central", "confident", "only" (more are an error), or a
            number, counted from the left.
        seed: of the noise, in [0, 2^63). Same seed, same bits on CPU; global RNGs are left alone.
        device: "auto", "cpu", "cuda", "cuda:1".
        dtype: "auto" (float32), "float32", "float64", or "bfloat16": the networks' features in the
            steps, whatever is summed, read off or kept still float32.
        graph: whether steps are recorded as CUDA graphs and replayed; "auto" does on CUDA devices,
            True elsewhere is an error. One that cannot be recorded is a DeviceError.
        outdir: where to write results and, during the run, a state to resume from.
        resume: continue a run that was interrupted in `outdir`; gives the same bits on CPU.
        callback: called with a `StepInfo` every 20 steps; returning False stops the run.
        progress: show a progress bar.
        landmark_backend: "torch", or "onnx": the landmark network and its gradient run in
            onnxruntime (extra `onnx`, or `onnx-gpu`), exported on first use.
        pose: "take" the landmarks where they are, or "keep" the look's head and carry over only
            the expression; None takes the preset's ("take").
        shape: "keep" the shape of the look's face where the landmarks come from an image: it is
            inverted too, and only what moves a face is taken over. "take" makes for the landmarks
            as they are, with the shape of the face they come from; so do points, and weights given
            for the terms that move (landmark, pull, spread). None takes the preset's ("keep").
        perceptual_mask: what the perceptual term does not see: "none", the "face", or what is near
            the "landmarks"; None takes the preset's ("none").
        identity: for the identity term: a face recognition network's file, or a module from images
            [N,3,S,S] in [-1, 1] to embeddings; "auto" is the sample models' own, "sample", for the
            sample generator.
        discriminator: for the discriminator term: a file or module; "auto" is the one in the
            generator's own pickle.
        detector: what finds faces: "auto" (S3FD, `pyfacelat fetch s3fd`), a file, or a callable
            from uint8 [H,W,3] to boxes [K,4], [K,5] or landmarks [K,68,2].
        person: whose identity the identity term asks for, as `look`; None: that of the look.

    Returns:
        a `ProjectionResult`.

    Raises:
        ImageError, LandmarkError, ConfigError: a bad argument, before any work.
        NoFaceError: a photograph has no face, or not the one asked for.
        CheckpointError, MissingWeightsError: a network file is malformed, or absent.
        DeviceError: the device is not there, or out of memory.
        MissingPackageError: `landmark_backend` needs a package that is not installed.
        NonFiniteError: a loss became NaN or infinite; with `outdir` the last finite state is there.
        OutdirBusyError: another run writes to `outdir`.
        OutputError: `outdir` cannot be written to; the error's `result` is the result.
    """
    inputs = read_inputs(look, landmarks, person)
    projector = Projector(
        network,
        space=space,
        preset=preset,
        steps=steps,
        perceptual=perceptual,
        landmarker=landmarker,
        loss_weights=loss_weights,
        group_weights=group_weights,
        init=init,
        encoder=encoder,
        align=align,
        face=face,
        seed=seed,
        device=device,
        dtype=dtype,
        graph=graph,
        landmark_backend=landmark_backend,
        pose=pose,
        shape=shape,
        perceptual_mask=perceptual_mask,
        identity=identity,
        discriminator=discriminator,
        detector=detector,
    )
    return projector._project(inputs, outdir, resume, callback, progress)
