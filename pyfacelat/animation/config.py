"""What an animation does: the stages of a projection, given out to the look and its frames.

`sequential` goes from frame to frame. With the preset "reference" it is the published landmark
projection for video (2021): W+, 1,000 steps for the first frame and for each further one, which
starts where the one before ended, the noise maps frozen after the first, and with

    fidelity   0.05 * sum sqrt((w_mean - w)^2 + 1e-6)
    smoothness 0.05 * sum sqrt((w_before - w)^2 + 1e-6)     from the second frame on

With other presets the look is inverted by itself first and stays the pivot of all frames. What
drives are either pictures: each is inverted, and what moves a face is taken over to the look; or
points: stages of motion make for them (`projection.plan` has both ways). Each frame but the first
takes a few steps, without latent noise, and with a term that asks for the motion of the two frames
before to go on.

`joint` works on all frames at once: it inverts the look, projects every `keyframe_every`-th frame
from there, all of them in one batch, lays a spline through their whitened latents, and moves all
frames together under the same terms and two that ask for steady motion: the second difference in
time of the latents, and of the landmarks' errors. Its optimiser takes a few hundred steps, however
long the clip. With the preset "reference" it is the published batched form: 1,000 steps for the
look alone, and 100 for all frames.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pyfacelat.errors import ConfigError
from pyfacelat.faces.groups import GroupWeights
from pyfacelat.projection.config import (
    TEMPORAL,
    LossWeights,
    ProjectionConfig,
    Stage,
    check_choice,
    make_config,
    with_weights,
)

Mode = Literal["joint", "sequential"]
MODES: tuple[str, ...] = get_args(Mode)

# On 24 frames of a procedural face, whose right answer is known. A frame starts near its end, so
# the rate is below that of a first frame; a tenth of the acceleration trembles more than the
# driving face. The published smoothness is in units of w, which differ between generators: what
# calms one holds another still, so only "reference" has it by itself.
_FRAME_STEPS, _FRAME_RATE, _FRAME_ACCELERATION = 40, 0.1, 5.0
_JOINT_STEPS, _JOINT_RATE, _ACCELERATION, _JITTER = 40, 0.05, 50.0, 1.0
_SEEN = 0.04  # of the acceleration, where terms compare pictures: they are that much smaller


@dataclass(frozen=True)
class AnimationConfig:
    """Everything that decides an animation besides networks and inputs.

    Attributes:
        mode: "joint" or "sequential".
        projection: its settings, and all stages in order: `look` of them are for the look alone,
            `first` for the first frame (joint: for the keyframes), the others for each further
            frame (joint: for all frames together).
        look, first: see there.
        keyframe_every: frames from one keyframe to the next; of joint only.
        batch: most frames that are worked on at once; of joint only.
        midpoints: also give the frame half way between two, at the mean of their latents.
        track_sigma: the driving points are averaged over time by a Gaussian of so many frames.

    """

    mode: Mode
    projection: ProjectionConfig
    look: int
    first: int
    keyframe_every: int = 6
    batch: int = 64
    midpoints: bool = False
    track_sigma: float = 0.0

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, MODES)
        for name, low in (("keyframe_every", 1), ("batch", 1), ("look", 0), ("first", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ConfigError(f"{name}: expected an integer >= {low}, got {value!r}")
        if not 0 <= self.track_sigma < float("inf"):
            raise ConfigError(f"track_sigma: expected frames, >= 0, got {self.track_sigma!r}")
        if self.look + self.first > len(self.projection.stages):
            raise ConfigError("stages: fewer than the look and the first frame are to have")

    @property
    def look_stages(self) -> tuple[Stage, ...]:
        """For the look alone."""
        return self.projection.stages[: self.look]

    @property
    def first_stages(self) -> tuple[Stage, ...]:
        """For the first frame, or for the keyframes."""
        return self.projection.stages[self.look : self.look + self.first]

    @property
    def frame_stages(self) -> tuple[Stage, ...]:
        """For each further frame, or for all of them together."""
        return self.projection.stages[self.look + self.first :]

    def to_json(self) -> str:
        """This configuration as JSON; `from_json` gives an equal one back."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> AnimationConfig:
        """The configuration that `to_json` wrote.

        Raises:
            ConfigError: not JSON, or unknown or missing fields.

        """
        try:
            fields: dict[str, Any] = json.loads(text)
            projection = ProjectionConfig.from_json(json.dumps(fields.pop("projection")))
            return cls(projection=projection, **fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"config: not an animation configuration ({error})") from None


def make_animation(
    mode: str = "joint",
    preset: str | ProjectionConfig = "balanced",
    *,
    space: str | None = None,
    steps: int | None = None,
    frame_steps: int | None = None,
    loss_weights: LossWeights | None = None,
    group_weights: GroupWeights | None = None,
    seed: int | None = None,
    pose: str | None = None,
    shape: str | None = None,
    perceptual_mask: str | None = None,
    landmark_backend: str | None = None,
    keyframe_every: int = 6,
    batch: int = 64,
    midpoints: bool = False,
    track_sigma: float = 0.0,
) -> AnimationConfig:
    """A way to animate, from a preset of projections with overrides.

    Args:
        mode: "joint" or "sequential".
        preset: see `projection.make_config`, as the other arguments that are there as well.
        space: "w" or "w+".
        steps: of the look and the first frame (joint: the keyframes), together.
        frame_steps: of each further frame (joint: of all frames together).
        loss_weights: by term; `smoothness` ties a frame to the one before, `acceleration` and
            `jitter` ask for steady latents and landmarks. They join the stages after the first.
        group_weights: of landmarks.
        seed: of the noise.
        pose: "take" or "keep".
        shape: "keep" or "take".
        perceptual_mask: of the look term.
        landmark_backend: of the landmark term.
        keyframe_every: see `AnimationConfig`, as the next three.
        batch: of frames.
        midpoints: frames in between.
        track_sigma: of the driving points.

    Raises:
        ConfigError: unknown names, or values out of range.
        LandmarkError: bad group weights.

    """
    check_choice("mode", mode, MODES)
    base = make_config(
        preset,
        space=space,
        group_weights=group_weights,
        seed=seed,
        pose=pose,
        shape=shape,
        perceptual_mask=perceptual_mask,
        landmark_backend=landmark_backend,
    )
    if base.preset == "reference":
        look, first, rest = _published(mode, base)
    else:
        look, first, rest = _staged(mode, base)
    early = _shared_out(base, (*look, *first), steps, "steps")
    late = _shared_out(base, rest, frame_steps, "frame_steps")
    given = dict(loss_weights or {})
    between = {term: given.pop(term) for term in TEMPORAL if term in given}
    late = with_weights(late, between)
    whole = dataclasses.replace(base, stages=(*early, *late))
    if given:
        whole = make_config(whole, loss_weights=given)
    # Weights of the terms that move a face decide the way to a target, and drop the other.
    kept = {stage.subject for stage in whole.stages}
    firsts = [stage for stage in first if stage.subject in kept]
    return AnimationConfig(
        mode=mode,  # type: ignore[arg-type]  # checked above
        projection=whole,
        look=len(look),
        first=len(firsts),
        keyframe_every=keyframe_every,
        batch=batch,
        midpoints=midpoints,
        track_sigma=track_sigma,
    )


_Stages = tuple[Stage, ...]


def _published(mode: str, base: ProjectionConfig) -> tuple[_Stages, _Stages, _Stages]:
    (stage,) = base.stages
    frozen = dataclasses.replace(stage, name="frame", optimise_noise=False)
    kept = {name: weight for name, weight in stage.weights.items() if name != "noise"}
    if mode == "sequential":
        first = {**stage.weights, "fidelity": 0.05}
        following = {**kept, "fidelity": 0.05, "smoothness": 0.05}
        return (
            (),
            (dataclasses.replace(stage, name="first", weights=first),),
            (dataclasses.replace(frozen, weights=following),),
        )
    alone = {"perceptual": 2.0, "noise": stage.weights["noise"]}
    together = {**kept, "perceptual": 2.0, "smoothness": 0.005}
    return (
        (dataclasses.replace(stage, name="look", weights=alone),),
        (),
        (dataclasses.replace(frozen, name="joint", steps=100, weights=together),),
    )


def _staged(mode: str, base: ProjectionConfig) -> tuple[_Stages, _Stages, _Stages]:
    """The stages before the first that looks at landmarks, or at the target, are for the look."""
    follows = [
        s.subject == "target" or s.uses("landmark") or s.uses("coordinate") for s in base.stages
    ]
    if not any(follows):
        raise ConfigError(f"preset: {base.preset} has no landmark term, so it follows no track")
    split = follows.index(True)
    look, first = base.stages[:split], base.stages[split:]
    if mode == "joint":
        # One set of noise maps serves a clip: that of the look.
        first = tuple(dataclasses.replace(s, optimise_noise=False) for s in first)
    rest = []
    for subject in ("target", "look"):  # the two ways to a target, see `projection.plan`
        ways = [stage for stage in first if stage.subject == subject]
        if ways:
            rest.append(_next(mode, ways[-1]))
    return look, first, tuple(rest)


def _next(mode: str, stage: Stage) -> Stage:
    """What follows a stage of the first frame: fewer steps, and terms between frames."""
    # A weight that moved over the first frame stays where it arrived.
    weights = {**stage.weights, **stage.weight_ends}
    seen = stage.subject == "target"  # its terms compare pictures, so there are no landmarks
    still = dataclasses.replace(
        stage, latent_noise=0.0, optimise_noise=False, weight_ends={}, delta_opening=()
    )
    if mode == "sequential":
        weights["acceleration"] = _FRAME_ACCELERATION * (_SEEN if seen else 1)
        return dataclasses.replace(
            still, name="frame", steps=_FRAME_STEPS, learning_rate=_FRAME_RATE, weights=weights
        )
    weights["acceleration"] = _ACCELERATION * (_SEEN if seen else 1)
    if not seen:
        weights["jitter"] = _JITTER
    return dataclasses.replace(
        still,
        name="joint",
        steps=_JOINT_STEPS,
        learning_rate=_JOINT_RATE,
        weights=weights,
        keep_best=False,
    )


def _shared_out(
    base: ProjectionConfig, stages: _Stages, steps: int | None, name: str
) -> tuple[Stage, ...]:
    """Stages with another number of steps in all."""
    if steps is None or not stages:
        return stages
    try:
        return make_config(dataclasses.replace(base, stages=stages), steps=steps).stages
    except ConfigError as error:
        raise ConfigError(str(error).replace("steps:", f"{name}:", 1)) from None
