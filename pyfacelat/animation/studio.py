"""Frames worked on, in one mode or the other: from a track of points to latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyfacelat.animation.config import AnimationConfig
from pyfacelat.animation.driving import Driving
from pyfacelat.animation.journal import Done, Journal
from pyfacelat.images import from_uint8
from pyfacelat.projection import Projector
from pyfacelat.projection.config import Stage
from pyfacelat.projection.loop import Coordinates, StepInfo
from pyfacelat.projection.runtime import Report
from pyfacelat.projection.space import LatentSpace
from pyfacelat.projection.targets import Clip, Targets, make_targets


@dataclass(frozen=True)
class AnimationStep:
    """What a callback gets.

    Attributes:
        frames: numbers of those that are worked on; none while the look is inverted.
        count: of all frames.
        step, steps: done so far, and in all.
        stage: name of the stage that runs.
        losses: the last step's terms and "total" of each of `frames`, by name.
        image: call it to render them as they are, uint8 [N,H,W,3].

    """

    frames: tuple[int, ...]
    count: int
    step: int
    steps: int
    stage: str
    losses: dict[str, list[float]]
    image: Callable[[], Tensor]


Callback = Callable[[AnimationStep], object]

_PHASES = {"look": "look", "first": "first", "frame": "frames"}


class Studio:
    """Everything the two modes share.

    Args:
        projector: with the animation's stages.
        config: of the animation.
        look: [1,3,R,R] in [-1, 1].
        driving: the track.
        journal: what is done already, and where to note it.
        callback: called every 20 steps; returning False ends the work.
        report: of progress.

    """

    def __init__(
        self,
        projector: Projector,
        config: AnimationConfig,
        look: Tensor,
        driving: Driving,
        journal: Journal,
        *,
        callback: Callback | None,
        report: Report | None,
    ) -> None:
        self.projector = projector
        self.stopped = False
        self.done: dict[str, Done] = {}
        self._config = config
        self._look = look
        self._driving = driving
        self._journal = journal
        self._callback = callback
        self.report = report
        self._step = 0
        self._apart: Tensor | None = None
        self._transfers = projector.transfers(driving.pictures is not None)
        subject = "target" if self._transfers else "look"
        self._first = tuple(s for s in config.first_stages if s.subject == subject)
        self._rest = tuple(s for s in config.frame_stages if s.subject == subject)

    def work(self) -> Tensor:
        """Ws of all frames, [F,num_ws,D]; of fewer where a callback stopped it between frames."""
        start = self.projector.start(self._look)
        pivot = self._run("look", self._config.look_stages, start, ())
        work = self._sequential if self._config.mode == "sequential" else self._joint
        theta = work(pivot)
        if self._transfers:
            directions = self._directions().to(theta)
            self._apart = (theta - pivot).cpu()
            theta = pivot + (theta - pivot) @ directions @ directions.T
        return self._ws(theta)

    @property
    def steps(self) -> int:
        """Steps in all."""
        config, count = self._config, len(self._driving)
        look, first, frame = (
            sum(stage.steps for stage in stages)
            for stages in (config.look_stages, self._first, self._rest)
        )
        if config.mode == "sequential":
            return look + first + frame * (count - 1)
        batches = -(-count // config.batch)
        keys = len(keyframes(count, config.keyframe_every))
        return look + first * -(-keys // config.batch) + frame * batches

    def points(self, frames: Sequence[int]) -> Tensor:
        """The landmarks that frames are to have, [N,68,2] relative, on the CPU.

        After `pose`, and less the shape of the face that drives, where that is not taken over.
        """
        own = self._driving.points[list(frames)]
        if self._apart is not None:
            model = self.projector.motion_model()
            return own - model.stillness(self._apart[list(frames)], self._directions())
        if self.projector.config.pose == "take":
            return own
        found = [self._targets((i,), None).points for i in frames]
        return torch.cat(found).float().cpu()

    def losses(self) -> dict[str, dict[str, Tensor]]:
        """What was recorded of the "look", the "first" frames and the "frames": [steps,N]."""
        found: dict[str, dict[str, Tensor]] = {}
        for key, done in self.done.items():
            phase = _PHASES[key.split(".")[0]]
            merged = found.setdefault(phase, {})
            for name, values in done.losses.items():
                merged[name] = torch.cat([merged[name], values], 1) if name in merged else values
        return found

    def seconds(self) -> dict[str, float]:
        """Wall time by phase."""
        found: dict[str, float] = {}
        for key, done in self.done.items():
            phase = _PHASES[key.split(".")[0]]
            found[phase] = found.get(phase, 0.0) + done.seconds
        return found

    def _sequential(self, pivot: Tensor) -> Tensor:
        """Coordinates of the frames, one after the other."""
        anchor = self._ws(pivot) if self._config.look else None
        empty = self._ws(pivot)[:0]
        clip = Clip(empty, empty, anchor)
        frames = [self._run("first", self._first, self._begin(pivot, (0,)), (0,), clip)]
        for index in range(1, len(self._driving)):
            if self.stopped:
                break
            clip = Clip(self._ws(torch.cat(frames[-2:])), empty, anchor)
            frames.append(self._run(f"frame.{index}", self._rest, frames[-1], (index,), clip))
        return torch.cat(frames)

    def _joint(self, pivot: Tensor) -> Tensor:
        """Coordinates of the frames, from keyframes."""
        config, count = self._config, len(self._driving)
        anchor = self._ws(pivot) if config.look else None
        apart = Clip(self._ws(pivot)[:0], self._ws(pivot)[:0], anchor)
        chosen = keyframes(count, config.keyframe_every) if self._first else [0]
        found = [
            self._run(f"first.{part[0]}", self._first, self._begin(pivot, part), part, apart)
            for part in _parts(chosen, config.batch)
        ]
        theta = interpolate(chosen, torch.cat(found), count)
        for part in _parts(range(count), config.batch):
            begin, end = part[0], part[-1] + 1
            around = (theta[max(0, begin - 2) : begin], theta[end : end + 2])
            clip = Clip(self._ws(around[0]), self._ws(around[1]), anchor)
            moved = self._run(f"frame.{begin}", self._rest, theta[begin:end], part, clip)
            theta = torch.cat([theta[:begin], moved, theta[end:]])
        return theta

    def _begin(self, pivot: Tensor, frames: Sequence[int]) -> Tensor:
        """Where frames start: at the look, or as they are seen where they are inverted."""
        if self._transfers and self._first:
            return self.projector.start(self._pictures(frames), False)
        return pivot.expand(len(frames), -1, -1)

    def _directions(self) -> Tensor:
        """Of motion that leaves the identity, [D,rank]."""
        model = self.projector.motion_model()
        rank = min(self.projector.config.motion_rank, len(model.covariance))
        return model.directions(rank, keep=1.0)

    def _pictures(self, frames: Sequence[int]) -> Tensor:
        """Driving frames [N,3,R,R] in [-1, 1]."""
        pictures = self._driving.pictures
        assert pictures is not None
        return torch.stack([from_uint8(pictures[i]) for i in frames]).to(self._look)

    def _coordinates(self, targets: Targets, first: bool) -> Coordinates:
        """The space of a stage; a first frame's stage of motion leaps to where it may end."""
        plan = self.projector.plan(targets, None, start=lambda images, given: images)

        def chosen(stage: Stage, begun: Tensor) -> tuple[LatentSpace, Tensor]:
            space, theta = plan.coordinates(stage, begun)
            return space, theta if first or stage.reach == "all" else torch.zeros_like(theta)

        return chosen

    def _run(
        self,
        key: str,
        stages: tuple[Stage, ...],
        start: Tensor,
        frames: Sequence[int],
        clip: Clip | None = None,
    ) -> Tensor:
        """Coordinates of some frames at the end of some stages that begin at `start`.

        Without frames it is the look by itself, with its own landmarks. Does nothing once stopped.
        """
        if not stages or self.stopped:
            return start
        done = self._journal.done(key)
        planned = sum(stage.steps for stage in stages)
        if done is None:
            before, total, tell = self._step, self.steps, self.report
            targets = self._targets(frames, clip)
            moves = any(stage.reach == "motion" for stage in stages)
            run = self.projector.prepare(
                stages,
                start,
                targets,
                coordinates=self._coordinates(targets, stages == self._first) if moves else None,
                callback=self._called(frames) if self._callback else None,
                report=tell
                and (lambda stage, step, _, loss: tell(stage, before + step, total, loss)),
                save=self._journal.saver(key, len(stages)),
            )
            run(self._journal.begun(key) or None)
            if run.stopped:
                self.stopped = True
                return run.theta
            done = self._journal.keep(key, run)
        self._step += planned
        self.done[key] = done
        if done.noise:  # frozen from here on
            self.projector = self.projector.with_noise({k: v[0] for k, v in done.noise.items()})
        return done.theta.to(start)

    def _targets(self, frames: Sequence[int], clip: Clip | None) -> Targets:
        """What to aim at; `frames` may be none, for the look with its own landmarks."""
        projector, config = self.projector, self.projector.config
        look = self._look.expand(max(1, len(frames)), -1, -1, -1)
        points, image = None, None
        if not frames:
            image = look
        elif self._transfers:
            look = self._pictures(frames)
            points = self._driving.points[list(frames)]
        elif self._driving.pictures is not None and (
            config.target_maps == "image" or config.confidence
        ):
            image = self._pictures(frames)
        else:
            points = self._driving.points[list(frames)]
        targets = make_targets(
            config, projector.landmarker, look, points=points, maps=None, image=image
        )
        return replace(targets, clip=clip)

    def _called(self, frames: Sequence[int]) -> Callable[[StepInfo], object]:
        callback, before, steps = self._callback, self._step, self.steps
        assert callback is not None
        count = len(self._driving)

        def call(info: StepInfo) -> object:
            return callback(
                AnimationStep(
                    tuple(frames), count, before + info.step, steps, info.stage, info.losses,
                    info.image,
                )
            )  # fmt: skip

        return call

    def _ws(self, theta: Tensor) -> Tensor:
        return self.projector.space.to_ws(theta).detach()


def keyframes(count: int, every: int) -> list[int]:
    """Numbers of frames about `every` apart, the first and the last among them."""
    gaps = -(-(count - 1) // every)
    return [round(i * (count - 1) / gaps) for i in range(gaps + 1)] if gaps else [0]


def interpolate(times: Sequence[int], values: Tensor, count: int) -> Tensor:
    """A natural cubic spline through values [K,...] at times, at 0, 1, ... count - 1.

    Its second derivative M is continuous and 0 at both ends; with gaps h_i and slopes d_i,
    h_{i-1} M_{i-1} + 2 (h_{i-1} + h_i) M_i + h_i M_{i+1} = 6 (d_i - d_{i-1}).

    Args:
        times: ascending whole numbers, [K].
        values: [K,...]; one is repeated.
        count: number of frames.

    Returns:
        [count,...].
    """
    if len(times) == 1:
        return values.expand(count, *values.shape[1:])
    y = values.double().flatten(1)
    t = torch.tensor(times, dtype=torch.float64, device=y.device)
    h = t[1:] - t[:-1]
    slopes = (y[1:] - y[:-1]) / h[:, None]
    bends = torch.zeros_like(y)
    if len(times) > 2:
        system = torch.diag(2 * (h[:-1] + h[1:]))
        system += torch.diag(h[1:-1], 1) + torch.diag(h[1:-1], -1)
        bends[1:-1] = torch.linalg.solve(system, 6 * (slopes[1:] - slopes[:-1]))
    at = torch.arange(count, dtype=torch.float64, device=y.device)
    part = (torch.searchsorted(t, at, right=True) - 1).clamp(0, len(times) - 2)
    gap, left, right = h[part, None], (at - t[part])[:, None], (t[part + 1] - at)[:, None]
    curve = (bends[part] * right**3 + bends[part + 1] * left**3) / (6 * gap)
    curve += (y[part] / gap - bends[part] * gap / 6) * right
    curve += (y[part + 1] / gap - bends[part + 1] * gap / 6) * left
    return curve.to(values).reshape(count, *values.shape[1:])


def _parts(frames: Sequence[int], batch: int) -> list[Sequence[int]]:
    """Runs of frames of nearly equal length, none longer than a batch."""
    parts = -(-len(frames) // batch)
    edges = [round(i * len(frames) / parts) for i in range(parts + 1)]
    return [frames[a:b] for a, b in zip(edges, edges[1:], strict=False)]
