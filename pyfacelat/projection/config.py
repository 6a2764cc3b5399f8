"""What a projection does, as frozen dataclasses, and the presets.

`reference` is the published landmark projection (2021), number for number, with its faults mended:
the landmark lines are not painted on the target before the landmark network sees it, images are
not stretched to the batch's extremes, the gradient at zero distance is zero instead of NaN, the
landmark network is frozen, and the optimised noise belongs to the result.

`balanced` inverts the look first and then moves as little as it can, in whitened coordinates,
towards heat maps drawn from the target's points, holding the look's colours but not their places:
heat maps taken from an image carry that image's style, and a look term that knows places forbids
what the landmark term asks for.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pyfacelat.errors import ConfigError
from pyfacelat.faces.groups import GROUPS, REFERENCE_WEIGHTS, GroupWeights, expand
from pyfacelat.losses.features import DEFAULT_LAYERS
from pyfacelat.losses.landmark import Normalize, Reduction, Resize
from pyfacelat.losses.pixel import PixelKind

Term = Literal[
    "perceptual",
    "landmark",
    "coordinate",
    "noise",
    "pixel",
    "colour",
    "vgg",
    "ms_ssim",
    "identity",
    "discriminator",
    "prior",
    "gaussianised",
    "spread",
    "delta",
    "pull",
    "fidelity",
    "smoothness",
    "acceleration",
    "jitter",
]
"""Loss terms; each is on where its weight is above 0. `losses` has their formulas and sources."""
LossWeights = Mapping[str, float | tuple[float, float]]
Space = Literal["w", "w+"]
Coordinates = Literal["raw", "whitened"]
TargetMaps = Literal["image", "points"]
LandmarkBackend = Literal["torch", "onnx"]
Mask = Literal["none", "face", "landmarks"]
Pose = Literal["take", "keep"]
Shape = Literal["take", "keep"]
Subject = Literal["look", "target"]
Reach = Literal["all", "motion"]

TERMS: tuple[str, ...] = get_args(Term)
TEMPORAL = ("smoothness", "acceleration", "jitter")
"""Terms that tie the frames of a clip to each other; only `animate` has such frames."""
SPACES: tuple[str, ...] = get_args(Space)


@dataclass(frozen=True)
class Stage:
    """One optimisation: which terms, how long, how fast.

    Attributes:
        name: shown in progress and reports.
        steps: number of Adam steps, >= 1.
        weights: weight of each term that is on; total = sum of weight * term, per image.
        weight_ends: terms whose weight moves linearly over the steps, from `weights` to this one.
            Which step was best is judged under the weights at the end.
        learning_rate: Adam's, before the ramps, in units of the latent coordinates.
        ramp_up, ramp_down: shares of the steps in which the rate rises and falls.
        latent_noise: standard deviation of the noise on the latent at step 0, in units of the
            latent's own spread (raw coordinates: w_std; whitened: 1).
        latent_noise_ramp: share of the steps after which that noise is gone.
        optimise_noise: whether the generator's noise maps are optimised too, from N(0, 1).
        keep_best: end at the step with the smallest total among the start and those without latent
            noise, per image; otherwise at the last step.
        delta_opening: in space "w+", the shares of the steps after which the coarse rows (1 to 3),
            the middle ones (4 to 7) and the fine ones may move by themselves instead of with row 0;
            () for all from the start.
        subject: whose face the look terms hold: the "look"'s, or the "target"'s, the image the
            landmarks come from (see `ProjectionConfig.motion_rank`).
        reach: "all" latents may change, or only along directions of "motion", and the stage starts
            where those bring the landmarks nearest to the target's to first order.

    """

    name: str
    steps: int
    weights: Mapping[str, float]
    learning_rate: float = 0.1
    ramp_up: float = 0.05
    ramp_down: float = 0.25
    latent_noise: float = 0.05
    latent_noise_ramp: float = 0.75
    optimise_noise: bool = False
    keep_best: bool = True
    weight_ends: Mapping[str, float] = field(default_factory=dict)
    delta_opening: tuple[float, ...] = ()
    subject: Subject = "look"
    reach: Reach = "all"

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ConfigError(f"steps: expected an integer >= 1, got {self.steps!r}")
        check_weights(self.weights)
        check_weights(self.weight_ends)
        for term in self.weight_ends:
            if term not in self.weights:
                raise ConfigError(f"weight_ends: {term}: not among the stage's weights")
        check_choice("subject", self.subject, get_args(Subject))
        check_choice("reach", self.reach, get_args(Reach))
        opening = self.delta_opening
        if opening and (len(opening) != 3 or not all(0 <= share <= 1 for share in opening)):
            raise ConfigError(f"delta_opening: expected three shares from 0 to 1, got {opening!r}")
        if opening and self.reach == "motion":
            raise ConfigError("delta_opening: a stage of motion moves all rows from the start")

    def uses(self, term: str) -> bool:
        """Whether the term is on at any step."""
        return max(self.weights.get(term, 0.0), self.weight_ends.get(term, 0.0)) > 0


@dataclass(frozen=True)
class ProjectionConfig:
    """Everything that decides the result of a projection besides networks and inputs.

    Attributes:
        preset: the name it started from.
        space: "w" one latent row for all layers, "w+" one per layer.
        stages: run one after the other, each from the end of the one before.
        coordinates: optimise w itself ("raw") or its whitened form v = (w - mean) / scale in the
            eigenbasis of the generator's own w ("whitened").
        target_maps: landmark targets as the landmark network's maps of the target image ("image"),
            or as Gaussians drawn at its points ("points"; always so when points are given).
        reduction, resize, normalize: see `losses.landmark`. `normalize="minmax"` is the published
            code's contrast stretch, kept as a compatibility switch.
        group_weights: one weight per landmark, 68 numbers.
        target_sigma: standard deviation in cells of the Gaussians drawn; None for the network's.
        pose: "take" the target's points as they are, or "keep" the look's head: its place, size
            and tilt, with the target's expression (`faces.transfer.keep_pose`).
        confidence: weigh each landmark by how sure the landmark network is of it in the target
            image, and leave out those below 0.2.
        perceptual_size: images are area-shrunk to at most this many pixels before the look term.
        perceptual_mask: what the look term does not see: "none", the whole "face", or the
            neighbourhood of the "landmarks", of the look and of the target together.
        pixel_size: side to which the pixel term shrinks images.
        pixel_kind: "mse", "l1" or "log_cosh".
        vgg_layers: torchvision's numbers of the VGG-16 layers of the vgg term.
        motion_rank: how many directions of motion there are (see `projection.motion`); 0 for none.
            With some, a target that is an image is inverted too, by the stages whose subject it is,
            and what moves it is added to the inverted look; then the stages of motion are left out.
            They run for other targets, with pose "keep", with shape "take", and where a group's
            weight is 0.
        motion_samples: faces of the generator's own that the directions are learnt from.
        shape: "keep" the shape of the look's face, which an identity network tells from motion, or
            "take" the target's landmarks with the shape of its face.
        seed: of the noise maps and the latent noise.
        landmark_backend: what computes the landmark term and its gradient: "torch", or "onnx" for
            onnxruntime, which rounds in another order.
        w_samples, w_seed: the generator's own w are measured on this many z from this seed.

    """

    preset: str
    stages: tuple[Stage, ...]
    space: Space = "w+"
    coordinates: Coordinates = "whitened"
    target_maps: TargetMaps = "points"
    reduction: Reduction = "per_landmark"
    resize: Resize = "area"
    normalize: Normalize = "unit"
    group_weights: tuple[float, ...] = (1.0,) * 68
    perceptual_size: int = 256
    seed: int = 303
    w_samples: int = 10_000
    w_seed: int = 123
    landmark_backend: LandmarkBackend = "torch"
    target_sigma: float | None = None
    pose: Pose = "take"
    confidence: bool = False
    perceptual_mask: Mask = "none"
    pixel_size: int = 16
    pixel_kind: PixelKind = "mse"
    vgg_layers: tuple[int, ...] = DEFAULT_LAYERS
    motion_rank: int = 0
    motion_samples: int = 512
    shape: Shape = "take"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("shape", get_args(Shape)),
            ("space", SPACES),
            ("coordinates", get_args(Coordinates)),
            ("target_maps", get_args(TargetMaps)),
            ("reduction", get_args(Reduction)),
            ("resize", get_args(Resize)),
            ("normalize", get_args(Normalize)),
            ("landmark_backend", get_args(LandmarkBackend)),
            ("pose", get_args(Pose)),
            ("perceptual_mask", get_args(Mask)),
            ("pixel_kind", get_args(PixelKind)),
        ):
            check_choice(name, getattr(self, name), allowed)
        if self.target_sigma is not None and not self.target_sigma > 0:
            raise ConfigError(f"target_sigma: expected more than 0 cells, got {self.target_sigma}")
        if isinstance(self.pixel_size, bool) or self.pixel_size < 1:
            raise ConfigError(f"pixel_size: expected at least 1 pixel, got {self.pixel_size!r}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed: expected an integer in [0, 2^63), got {self.seed!r}")
        if not self.stages:
            raise ConfigError("stages: expected at least one, got none")
        if self.motion_rank < 0 or self.motion_samples < 2:
            raise ConfigError(
                "motion_rank, motion_samples: expected at least 0 and 2, got "
                f"{self.motion_rank} and {self.motion_samples}"
            )
        if self.motion_rank and self.coordinates != "whitened":
            raise ConfigError('motion_rank: needs coordinates "whitened"')
        if not self.motion_rank and any(s.reach == "motion" for s in self.stages):
            raise ConfigError("motion_rank: a stage of motion needs directions, got 0")

    def planned(self, *, transfer: bool) -> tuple[Stage, ...]:
        """The stages that run: the target's inversion or the stages of motion, not both.

        Args:
            transfer: whether the motion is taken from the target's inversion.

        """
        left_out = [
            stage.reach == "motion" if transfer else stage.subject == "target"
            for stage in self.stages
        ]
        kept = [stage for stage, out in zip(self.stages, left_out, strict=True) if not out]
        return tuple(kept)

    @property
    def steps(self) -> int:
        """Adam steps of all stages that run, whichever way there is to the target."""
        return max(sum(s.steps for s in self.planned(transfer=way)) for way in (False, True))

    def uses(self, term: str) -> bool:
        """Whether any stage has the term on."""
        return any(stage.uses(term) for stage in self.stages)

    def to_json(self) -> str:
        """This configuration as JSON; `from_json` gives an equal one back."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ProjectionConfig:
        """The configuration that `to_json` wrote.

        Raises:
            ConfigError: not JSON, or unknown or missing fields.

        """
        try:
            fields: dict[str, Any] = json.loads(text)
            fields["stages"] = tuple(
                Stage(**{**stage, "delta_opening": tuple(stage.get("delta_opening", ()))})
                for stage in fields["stages"]
            )
            for name in ("group_weights", "vgg_layers"):
                if name in fields:
                    fields[name] = tuple(fields[name])
            return cls(**fields)
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"config: not a projection configuration ({error})") from None


def _reference() -> ProjectionConfig:
    weights = {"perceptual": 1.0, "landmark": 0.1, "noise": 1e5}
    stage = Stage("project", 1000, weights, optimise_noise=True, keep_best=False)
    return ProjectionConfig(
        preset="reference",
        stages=(stage,),
        space="w",
        coordinates="raw",
        target_maps="image",
        reduction="l2",
        resize="nearest",
        group_weights=tuple(expand(REFERENCE_WEIGHTS).tolist()),
    )


def _balanced() -> ProjectionConfig:
    return _moved("balanced", invert=120, rank=24)


def _fast() -> ProjectionConfig:
    return _moved("fast", invert=40, rank=24)


def _best() -> ProjectionConfig:
    return _moved("best", invert=300, rank=24)


def _moved(preset: str, *, invert: int, rank: int) -> ProjectionConfig:
    """Both inverted, and the motion taken over; or the motion optimised."""
    look = {"perceptual": 1.0, "pixel": 5.0, "prior": 0.02, "spread": 0.05}
    move = {"landmark": 2.0, "pull": 4.0, "spread": 12.0}
    groups = dict.fromkeys(GROUPS, 1.0) | {"left_eye": 2.0, "right_eye": 2.0}
    groups |= {"outer_lip": 2.0, "inner_lip": 2.0, "jaw": 0.5}
    inversion = Stage("invert", invert, look, learning_rate=0.1, latent_noise=0.1)
    return ProjectionConfig(
        preset=preset,
        stages=(
            inversion,
            dataclasses.replace(inversion, name="invert target", subject="target"),
            Stage("move", invert, move, latent_noise=0.0, reach="motion"),
        ),
        group_weights=tuple(expand(groups).tolist()),
        motion_rank=rank,
        shape="keep",
    )


PRESETS = {"reference": _reference, "fast": _fast, "balanced": _balanced, "best": _best}


def make_config(
    preset: str | ProjectionConfig = "balanced",
    *,
    space: str | None = None,
    steps: int | None = None,
    loss_weights: LossWeights | None = None,
    group_weights: GroupWeights | None = None,
    seed: int | None = None,
    landmark_backend: str | None = None,
    pose: str | None = None,
    shape: str | None = None,
    perceptual_mask: str | None = None,
) -> ProjectionConfig:
    """A preset with overrides.

    Args:
        preset: a name, or a whole configuration.
        space: "w" or "w+"; None keeps the preset's.
        steps: total number of steps, shared out among the stages in the preset's proportions.
        loss_weights: weight by term. A weight replaces the preset's in every stage that has the
            term; a term that no stage has joins the last one; 0 switches a term off. A pair is the
            weight at a stage's first step and at its last: {"coordinate": (1, 0.2)}.
        group_weights: see `faces.groups.expand`.
        seed: see `ProjectionConfig`.
        landmark_backend: "torch" or "onnx"; None keeps the preset's.
        pose: "take" or "keep"; None keeps the preset's.
        shape: "keep" or "take"; None keeps the preset's.
        perceptual_mask: "none", "face" or "landmarks"; None keeps the preset's.

    Raises:
        ConfigError: unknown preset, space or term, or a value out of range.
        LandmarkError: bad group weights.

    """
    if isinstance(preset, ProjectionConfig):
        config = preset
    else:
        check_choice("preset", preset, tuple(PRESETS))
        config = PRESETS[preset]()
    changes: dict[str, Any] = {}
    if seed is not None:
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise ConfigError(f"seed: expected an integer, got {seed!r}")
        changes["seed"] = seed
    if group_weights is not None:
        changes["group_weights"] = tuple(expand(group_weights).tolist())
    for name, value in (
        ("space", space),
        ("landmark_backend", landmark_backend),
        ("shape", shape),
        ("pose", pose),
        ("perceptual_mask", perceptual_mask),
    ):
        if value is not None:
            changes[name] = value
    stages = config.stages
    if loss_weights is not None:
        stages = with_weights(stages, loss_weights)
        moving = {term for s in stages if s.reach == "motion" for term in s.weights}
        if moving & set(loss_weights):  # who weighs them wants them: the motion is optimised
            stages = tuple(s for s in stages if s.subject == "look")
    if steps is not None:
        stages = _with_steps(stages, steps)
    return dataclasses.replace(config, stages=stages, **changes)


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise ConfigError, listing the choices and the closest, unless `value` is allowed."""
    if value not in allowed:
        close = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}{hint}")


def check_weights(weights: Mapping[str, float]) -> None:
    """Raise ConfigError unless `weights` maps known terms to finite numbers >= 0."""
    for term, weight in weights.items():
        check_choice("loss_weights", term, TERMS)
        if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise ConfigError(
                f"loss_weights: {term}: expected a finite number >= 0, got {weight!r}"
            )


def with_weights(stages: tuple[Stage, ...], overrides: LossWeights) -> tuple[Stage, ...]:
    """Stages with other weights; see `make_config`. Raises ConfigError as it does."""
    pairs = {term: _pair(term, weight) for term, weight in overrides.items()}
    used = {term for stage in stages for term in stage.weights}
    changed = []
    for stage in stages:
        weights, ends = dict(stage.weights), dict(stage.weight_ends)
        for term, (first, last) in pairs.items():
            if term in weights or (term not in used and stage is stages[-1]):
                weights[term] = first
                ends.pop(term, None)
                if last != first:
                    ends[term] = last
        changed.append(dataclasses.replace(stage, weights=weights, weight_ends=ends))
    if not any(stage.uses(term) for stage in changed for term in stage.weights):
        raise ConfigError("loss_weights: expected at least one term above 0, got only zeros")
    return tuple(changed)


def _pair(term: str, weight: float | tuple[float, float]) -> tuple[float, float]:
    """A weight at the first step and at the last, checked."""
    both = tuple(weight) if isinstance(weight, tuple | list) else (weight, weight)
    if len(both) != 2:
        raise ConfigError(f"loss_weights: {term}: expected a number or two, got {weight!r}")
    for value in both:
        check_weights({term: value})
    return float(both[0]), float(both[1])


def _with_steps(stages: tuple[Stage, ...], steps: int) -> tuple[Stage, ...]:
    """Stages in proportion, `steps` in all whichever of them run (see `planned`)."""
    shared = [s.reach == "all" and s.subject == "look" for s in stages]
    least = 1 + sum(shared) if not all(shared) else len(stages)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < least:
        raise ConfigError(f"steps: expected an integer >= {least}, got {steps!r}")
    new = list(stages)
    for left_out in ("target", "motion"):
        runs = [i for i, s in enumerate(stages) if left_out not in (s.subject, s.reach)]
        total, left = sum(stages[i].steps for i in runs), steps
        for n, i in enumerate(runs):
            share = max(1, min(round(steps * stages[i].steps / total), left - (len(runs) - n - 1)))
            if n == len(runs) - 1:
                share = left
            new[i] = dataclasses.replace(stages[i], steps=share)
            left -= share
    return tuple(new)
