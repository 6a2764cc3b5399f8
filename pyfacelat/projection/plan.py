"""Which stages a projection has, where each begins, and in which space it is optimised.

There are two ways to a target. Where it is an image, look and target are both inverted, and what
moves a face is taken over from one's latents to the other's: the shape of the target's face, its
hair and its light are not among it. Where it is points, a stage of motion optimises the landmark
terms, free to go only where landmarks go.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from pyfacelat.images import shrink_to
from pyfacelat.losses.landmark import Landmarker
from pyfacelat.losses.objective import TermFunction
from pyfacelat.projection.config import ProjectionConfig, Stage
from pyfacelat.projection.loop import Run
from pyfacelat.projection.motion import MotionModel, MotionSpace
from pyfacelat.projection.space import LatentSpace
from pyfacelat.projection.targets import Targets
from pyfacelat.projection.terms import Terms

__all__ = ["Plan", "transfers"]

_GLIDE = 20
"""Frames of a video in which a face takes over a motion."""


def transfers(config: ProjectionConfig, *, image: bool, identity: bool) -> bool:
    """Whether the motion is taken over from the target's own inversion.

    Args:
        config: what is asked for.
        image: whether the target is an image.
        identity: whether an identity network can tell shape from motion.

    """
    return (
        image
        and identity
        and config.motion_rank > 0
        and config.shape == "keep"
        and config.pose == "take"
        and min(config.group_weights) > 0
        and any(stage.subject == "target" for stage in config.stages)
    )


class Plan:
    """The stages of one projection.

    Args:
        config: its settings; `stages` has those that run.
        space: of the latents.
        terms: of the stages.
        targets: of N faces.
        image: the target's images [N,3,R,R], where the motion is taken over from them; or None.
        start: coordinates to start from, [N,rows,D], for images, and whether they are the look's.
        motion: makes the motion model; called if there is need of one.
        render: images of ws.
        landmarker: reads their points.

    """

    def __init__(
        self,
        config: ProjectionConfig,
        space: LatentSpace,
        terms: Terms,
        targets: Targets,
        *,
        image: Tensor | None,
        start: Callable[[Tensor, bool], Tensor],
        motion: Callable[[], MotionModel],
        render: Callable[[Tensor], Tensor],
        landmarker: Landmarker,
    ) -> None:
        stages = config.planned(transfer=image is not None)
        self.config = dataclasses.replace(config, stages=stages)
        self.start = start(targets.look, True)
        self.targets = targets
        self._space, self._terms, self._render = space, terms, render
        self._landmarker = landmarker
        self._image, self._start_of = image, start
        moves = image is not None or any(stage.reach == "motion" for stage in stages)
        self._motion = motion() if moves else None

    def terms(self, stage: Stage, begun: Tensor) -> dict[str, TermFunction]:
        """The terms of a stage that begins at `begun`."""
        targets = self.targets
        if stage.subject == "target":
            assert self._image is not None
            targets = dataclasses.replace(targets, look=self._image)
        return self._terms(stage, begun, targets)

    def begin(self, stage: Stage, ends: tuple[Tensor, ...]) -> Tensor:
        """Where a stage begins, [N,rows,D]: at the end of the last one of the same face."""
        subjects = [s.subject for s in self.config.stages[: len(ends)]]
        if stage.subject in subjects:
            return ends[len(ends) - 1 - subjects[::-1].index(stage.subject)]
        if stage.subject == "target":
            assert self._image is not None
            return self._start_of(self._image, False)
        return self.start.clone()

    @torch.no_grad()
    def coordinates(self, stage: Stage, begun: Tensor) -> tuple[LatentSpace, Tensor]:
        """The space of a stage, and where in it the stage starts."""
        if stage.reach == "all":
            return self._space, begun
        directions = self._directions(keep=0.0)
        config, goal = self.config, self.targets.points
        assert self._motion is not None
        image = self._render(self._space.to_ws(begun))
        now = self._landmarker.points(shrink_to(image, config.perceptual_size))[0]
        weights = goal.new_tensor(config.group_weights)
        go = self._motion.coefficients((goal - now).cpu(), directions, weights.cpu())
        rows = go.to(begun)[:, None].expand(-1, begun.shape[1], -1)
        return MotionSpace(self._space, begun, directions), rows

    def end(self, run: Run) -> Tensor:
        """The coordinates that a run came to, stopped or not, with the target's motion."""
        look, target = self._ends(run)
        if target is None:
            return look
        directions = self._directions(keep=1.0).to(look)
        return look + (target - look) @ directions @ directions.T

    def history(self, run: Run) -> Tensor:
        """The look's coordinates after each step, [steps,N,rows,D], and its way into the motion."""
        stages = self.config.stages
        parts = [
            part
            for part, stage in zip(run.track.history, stages, strict=False)
            if stage.subject == "look"
        ]
        look, target = self._ends(run)
        if target is not None:
            way = torch.linspace(0, 1, _GLIDE + 1)[1:].reshape(-1, 1, 1, 1)
            parts.append(
                torch.lerp(look.cpu()[None], self.end(run).cpu()[None], way.to(look.cpu()))
            )
        return torch.cat(parts) if parts else run.theta.cpu()[None]

    def points(self, run: Run) -> Tensor:
        """The landmarks asked for, [N,68,2] relative: the target's, less the shape of its face."""
        look, target = self._ends(run)
        if target is None:
            return self.targets.points
        assert self._motion is not None
        shape = self._motion.stillness((target - look).cpu(), self._directions(keep=1.0))
        return self.targets.points - shape.to(self.targets.points)

    def _ends(self, run: Run) -> tuple[Tensor, Tensor | None]:
        """Where look and target have come to; of a stage that was stopped, as far as it came."""
        came: dict[str, Tensor] = {}
        for stage, end in zip(self.config.stages, [*run.ends, run.theta], strict=False):
            came[stage.subject] = end
        return came.get("look", self.start), came.get("target")

    def _directions(self, *, keep: float) -> Tensor:
        assert self._motion is not None
        rank = min(self.config.motion_rank, len(self._motion.covariance))
        return self._motion.directions(rank, keep=keep)
