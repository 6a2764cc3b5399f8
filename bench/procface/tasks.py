"""What is asked of a method: the cases of tasks T1 to T4 and T6, and the clips of T5.

T1  invert A: look A, landmarks of A.
T2  look of A, landmarks of B's picture; the answer is A with B's pose and expression.
T3  look of A, points of A with one feature moved; the answer is A with B's mouth, brows or eyes.
    (All points move a little with it, as the faces are framed by their landmarks.)
T4  look of A, A's points moved 0 to 150 % of the way to those of A with B's pose and expression.
T5  look of A, a clip of B's points, with and without detector noise.
T6  T2 for a few steps, alone, in a batch, and in a shuffled batch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.procface.metrics import INNER, motion
from bench.procface.pairs import Pair, Points, draw, exact_points
from pyfacelat import procface
from pyfacelat.errors import ConfigError
from pyfacelat.faces.groups import GROUPS
from pyfacelat.projection.config import check_choice

Params = NDArray[np.float64]

TASKS = ("T1", "T2", "T3", "T4", "T5", "T6")
DOSES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
FEATURES = {
    "mouth": ("outer_lip", "inner_lip"),
    "brows": ("left_eyebrow", "right_eyebrow"),
    "eyes": ("left_eye", "right_eye"),
}
"""Groups of landmarks that T3 moves together."""

NOISE = 0.015
"""Standard deviation of T5's detector noise per coordinate, in outer eye corner distances: about
the error of a landmark network on a single frame."""


@dataclass(frozen=True)
class Case:
    """One thing asked of a method.

    Attributes:
        task: name in TASKS.
        pair: the two faces.
        variant: what tells the cases of one task and pair apart; "" when there is one.
        look: parameters of the face to look like, [Z_DIM].
        ideal: parameters of the exact answer; in T4 A with that dose of B's pose and expression,
            whose points are not quite on the straight way.
        target: parameters of the face whose picture gives the landmarks, or None.
        points: exact landmarks asked for, [68, 2], relative. Given to the method when there is no
            picture.
        selected: landmarks that were asked to move; the inner 51 unless one feature is asked for.
        dose: share of the way from A's points that is asked for.

    """

    task: str
    pair: Pair
    variant: str
    look: Params
    ideal: Params
    target: Params | None
    points: Points
    selected: tuple[int, ...] = INNER
    dose: float = 1.0


def share(task: str, pairs: int) -> int:
    """How many of the pairs a task uses: the dear tasks take fewer."""
    least, divisor = {"T1": (1, 2), "T2": (1, 1), "T3": (3, 4), "T4": (3, 8), "T6": (4, 6)}[task]
    return min(pairs, max(least, pairs // divisor))


def cases(task: str, pairs: Sequence[Pair]) -> list[Case]:
    """The cases of T1, T2, T3, T4 or T6 on the first `share(task, len(pairs))` pairs.

    Raises:
        ConfigError: a task that has no such cases.

    """
    check_choice("task", task, ("T1", "T2", "T3", "T4", "T6"))
    return [case for pair in pairs[: share(task, len(pairs))] for case in _of_pair(task, pair)]


def _of_pair(task: str, pair: Pair) -> list[Case]:
    a, b = pair.a, pair.b
    ideal = procface.compose(a, b)[0]
    if task == "T1":
        return [Case(task, pair, "", a, a, a, exact_points(a)[0])]
    if task in ("T2", "T6"):
        return [Case(task, pair, "", a, ideal, b, exact_points(b)[0])]
    if task == "T3":
        found = []
        for feature, groups in FEATURES.items():
            answer = procface.compose(a, b, parameters_of()[feature])[0]
            selected = tuple(i for group in groups for i in GROUPS[group])
            points = exact_points(answer)[0]
            found.append(Case(task, pair, feature, a, answer, None, points, selected))
        return found
    start, end = exact_points(np.stack([a, ideal]))
    return [
        Case(task, pair, f"{dose:.2f}", a, between(a, b, dose), None,
             start + dose * (end - start), dose=dose)
        for dose in DOSES
    ]  # fmt: skip


@functools.cache
def parameters_of() -> dict[str, list[str]]:
    """The expression parameters that move each of FEATURES, found by moving them.

    A parameter belongs to the feature it moves most; one that moves no landmark (the gaze) to none.
    """
    found: dict[str, list[str]] = {feature: [] for feature in FEATURES}
    for name in procface.names("expression"):
        low, high = exact_points(procface.sweep(name, 2))
        moved = {
            feature: float(motion(low, high, [i for g in groups for i in GROUPS[g]]))
            for feature, groups in FEATURES.items()
        }
        most = max(moved, key=lambda feature: moved[feature])
        if moved[most] > 0.01:
            found[most].append(name)
    return found


def between(a: Params, b: Params, dose: float) -> Params:
    """A with `dose` of the way to B's pose and expression, pulled into the renderer's range."""
    towards = procface.compose(a, a + dose * (b - a))[0]
    low = np.array([p.low - 0.24 * (p.high - p.low) for p in procface.PARAMS])
    high = np.array([p.high + 0.24 * (p.high - p.low) for p in procface.PARAMS])
    return np.asarray(np.clip(towards, low, high))


@dataclass(frozen=True)
class Clip:
    """Faces in motion.

    Attributes:
        pair: A, who is to move, and B, who moves.
        noisy: whether the points carry detector noise.
        ideal: A with the motion, parameters [T, Z_DIM].
        points: B's landmarks with the motion, relative, [T, 68, 2]: what a method gets.

    """

    pair: Pair
    noisy: bool
    ideal: Params
    points: Points

    @property
    def variant(self) -> str:
        """`noisy` as a word."""
        return "noisy" if self.noisy else "clean"


def clips(pairs: Sequence[Pair], count: int, frames: int) -> list[Clip]:
    """Clips for the first `count` pairs, each without and with detector noise.

    Pose and expression follow sums of three sinusoids of at most three cycles a clip.

    Raises:
        ConfigError: fewer than 8 frames, which have no lag to measure.

    """
    if frames < 8:
        raise ConfigError(f"frames: expected at least 8, got {frames}")
    found = []
    for pair in pairs[:count]:
        moving = _motion(pair.index, frames)
        ideal = procface.compose(pair.a, moving)
        points = exact_points(procface.compose(pair.b, moving))
        eyes = np.linalg.norm(points[:, 36] - points[:, 45], axis=-1)[:, None, None]
        stream = np.random.RandomState(pair.index)
        noise = stream.standard_normal(points.shape) * NOISE * eyes
        found += [Clip(pair, False, ideal, points), Clip(pair, True, ideal, points + noise)]
    return found


def _motion(index: int, frames: int) -> Params:
    """Parameters [T, Z_DIM] of which pose and expression count."""
    time = np.linspace(0, 1, frames)[:, None]
    latents = np.zeros((frames, procface.Z_DIM))
    names = procface.names()
    for wave in range(3):
        phase = draw([f"{name}/{wave}" for name in names], index + 1, seed=1)[index] * np.pi
        cycles = 0.5 + wave + 0.5 * np.tanh(phase)
        latents += 0.6 * np.sin(2 * np.pi * cycles * time + phase)
    # Normalised rows would couple all motions.
    return np.asarray(procface.from_latent(latents, normalize=False))


@dataclass(frozen=True)
class Batch:
    """Cases with their pictures.

    Attributes:
        cases: N of them.
        look, ideal: [N,3,R,R] in [-1, 1], exact renders.
        target: [N,3,R,R], the pictures that give the landmarks, or None when points are given.
        look_points, ideal_points: exact landmarks, relative, [N,68,2].

    """

    cases: Sequence[Case]
    look: Tensor
    ideal: Tensor
    target: Tensor | None
    look_points: Points
    ideal_points: Points

    @property
    def points(self) -> Points:
        """Exact landmarks asked for, relative, [N,68,2]."""
        return np.stack([case.points for case in self.cases])


def render(params: Params, size: int, threads: int | None = None) -> tuple[Tensor, Points]:
    """Images [N,3,size,size] in [-1, 1] and exact landmarks, relative, of parameters [N,Z_DIM]."""
    out = procface.render(params, size, threads=threads)
    images = torch.from_numpy(out["image"]).permute(0, 3, 1, 2).float() / 127.5 - 1
    return images, out["landmarks"].astype(np.float64) / size


def batch_of(cases: Sequence[Case], size: int, threads: int | None = None) -> Batch:
    """Render what a list of cases of one task needs."""
    look, look_points = render(np.stack([c.look for c in cases]), size, threads)
    ideal, ideal_points = render(np.stack([c.ideal for c in cases]), size, threads)
    targets = [case.target for case in cases if case.target is not None]
    target = render(np.stack(targets), size, threads)[0] if targets else None
    return Batch(cases, look, ideal, target, look_points, ideal_points)
