"""Which directions of a generator's latents move a face, and which make another face of it.

Learnt from the generator's own samples. To first order, landmarks answer to whitened latents by a
matrix J_p and the embedding of an identity network by a matrix J_e, both by ridge regression. The
directions u that move most and change the identity least maximise

    |J_p u|^2 / (|u|^2 + keep * |J_e u|^2 / m),   m = |J_e|^2 / D,

a generalised eigenvalue problem. With keep = 0 they are what landmarks can tell, the shape of the
face included; hair, skin and light are hardly among them either way. The difference of two faces'
latents along these directions, added to the first one, gives it the pose and the expression of the
second.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from pyfacelat.checkpoints import (
    Checkpoint,
    Source,
    check_shapes,
    config_of,
    expected_tensors,
    read,
    write_safetensors,
)
from pyfacelat.images import shrink_to
from pyfacelat.losses.identity import IdentityDistance
from pyfacelat.losses.landmark import Landmarker
from pyfacelat.nets.stylegan2 import Generator
from pyfacelat.projection.config import ProjectionConfig
from pyfacelat.projection.networks import Networks
from pyfacelat.projection.outdir import fingerprint
from pyfacelat.projection.runtime import progress_bar
from pyfacelat.projection.space import LatentSpace
from pyfacelat.weights import open_known, weights_dirs

__all__ = ["KIND", "MotionConfig", "MotionModel", "MotionSpace", "fit_motion", "motion_model"]

KIND = "motion-model"

_CLIP = 3.0  # rarely used directions have outliers that would rule a regression
_RIDGE = 0.05  # of a whitened latent's variance, 1
_POINT_ERROR = 0.006  # of the landmark network, relative to the image's side
_BATCH = 8
_VERSION = 1  # of the way it is measured, for what is kept on disk


@dataclass(frozen=True)
class MotionConfig:
    """Sizes of a `MotionModel`: of latents, and of identity embeddings (0 without)."""

    w_dim: int
    embedding_dim: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("w_dim", self.w_dim, 1),
            ("embedding_dim", self.embedding_dim, 0),
        ):
            if value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")


@dataclass(frozen=True)
class MotionModel:
    """Second moments of whitened latents v, landmarks p and identity embeddings e; float64.

    Attributes:
        covariance: of v, clipped to 3 standard deviations, [D,D].
        points: covariance of p with v, [136,D]; p are x and y of the 68 landmarks in turn, relative
            to the image's side.
        identity: covariance of e with v, [E,D]; None without an identity network.

    """

    covariance: Tensor
    points: Tensor
    identity: Tensor | None = None

    def directions(self, rank: int, *, keep: float = 0.0) -> Tensor:
        """Orthonormal directions of motion in whitened latents, [D,rank].

        Args:
            rank: how many, from 1 to D.
            keep: how much a change of identity counts against a direction, see above.

        Raises:
            ValueError: rank out of range, or keep above 0 without an identity network.

        """
        size = len(self.covariance)
        if not 1 <= rank <= size:
            raise ValueError(f"rank: expected 1 to {size}, got {rank}")
        if keep <= 0:  # the plain covariance: what the generator does often counts more
            rows: Tensor = torch.linalg.svd(self.points, full_matrices=False)[2][:rank]
            return rows.T
        if self.identity is None:
            raise ValueError(f"keep: expected 0 without an identity network, got {keep}")
        moves, changes = self._answer(self.points), self._answer(self.identity)
        cost = changes.T @ changes
        cost = torch.eye(size).to(cost) + cost * (keep * size / cost.trace())
        value, vector = torch.linalg.eigh(cost)
        root = vector * value.rsqrt() @ vector.T
        best = torch.linalg.eigh(root @ (moves.T @ moves) @ root)[1][:, -rank:]
        directions: Tensor = torch.linalg.qr(root @ best)[0]
        return directions

    def coefficients(self, moved: Tensor, directions: Tensor, weights: Tensor) -> Tensor:
        """How far to go along `directions` for landmarks to move by `moved`: [N,rank].

        The most likely way to first order, for coefficients that are standard normal and landmarks
        known to 0.6 % of the image's side.

        Args:
            moved: [N,68,2], relative to the image's side.
            directions: [D,rank].
            weights: [68] or more, >= 0: how much a landmark counts, relative to the largest.

        """
        response = self.points @ directions
        trust = (weights / weights.max()).to(response).repeat_interleave(2)[:, None]
        normal = response.T @ (trust * response)
        normal = normal + _POINT_ERROR**2 * torch.eye(len(normal)).to(normal)
        wanted = (trust * response).T @ moved.flatten(1).to(response).T
        found: Tensor = torch.linalg.solve(normal, wanted)
        return found.T.to(moved)

    def stillness(self, apart: Tensor, directions: Tensor) -> Tensor:
        """By how much two faces' landmarks differ without motion, to first order: [N,68,2].

        Args:
            apart: difference of their whitened latents, [N,rows,D].
            directions: of motion, [D,rank].

        """
        mean = apart.to(self.points).mean(1).clamp(-_CLIP, _CLIP)
        still = mean - mean @ directions @ directions.T
        return (still @ self.points.T).reshape(-1, 68, 2).to(apart)

    def save(self, path: str | os.PathLike[str], about: dict[str, str]) -> None:
        """Write a safetensors file (float32) with the texts `about`."""
        tensors = {"covariance": self.covariance, "points": self.points}
        embedding = 0
        if self.identity is not None:
            tensors["identity"], embedding = self.identity, len(self.identity)
        config = asdict(MotionConfig(len(self.covariance), embedding))
        write_safetensors(path, KIND, config, tensors, dtype=torch.float32, metadata=about)

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> MotionModel:
        """From what `save` wrote; CheckpointError if it is something else, or of other shapes."""
        config = config_of(checkpoint, KIND, MotionConfig)
        shapes = expected_tensors(KIND, asdict(config))
        found = {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items()}
        check_shapes(Source(checkpoint.file, b""), shapes, found)
        tensors = {name: tensor.double() for name, tensor in checkpoint.tensors.items()}
        return cls(tensors["covariance"], tensors["points"], tensors.get("identity"))

    def _answer(self, moment: Tensor) -> Tensor:
        """The ridge regression on v that belongs to a covariance with v: [K,D]."""
        ridge = _RIDGE * torch.eye(len(self.covariance)).to(self.covariance)
        found: Tensor = torch.linalg.solve(self.covariance + ridge, moment.T)
        return found.T


@torch.no_grad()
def fit_motion(
    generator: Generator,
    space: LatentSpace,
    landmarker: Landmarker,
    identity: IdentityDistance | None,
    *,
    size: int,
    samples: int = 512,
    seed: int = 123,
    report: Callable[[int, int], None] | None = None,
) -> MotionModel:
    """Measure a generator's own faces; costs one synthesis and one look at each of `samples`.

    Args:
        generator: frozen.
        space: its latents.
        landmarker: reads the points.
        identity: embeds faces, or None.
        size: images are shrunk to at most this many pixels before the landmarks are read.
        samples: z drawn by `numpy.random.RandomState(seed)`.
        seed: see there.
        report: called with (done, samples).

    """
    weight = next(generator.mapping.parameters())
    z = np.random.RandomState(seed).randn(samples, generator.z_dim)
    rows: dict[str, list[Tensor]] = {"v": [], "p": [], "e": []}
    for first in range(0, samples, _BATCH):
        part = torch.from_numpy(z[first : first + _BATCH]).to(weight.device, weight.dtype)
        ws = generator.mapping(part, None)
        images = generator.synthesis(ws)
        rows["v"].append(space.whiten(space.from_ws(ws))[:, 0])
        rows["p"].append(landmarker.points(shrink_to(images, size))[0].flatten(1))
        if identity is not None:
            rows["e"].append(identity.embed(images))
        if report is not None:
            report(min(first + _BATCH, samples), samples)
    v, p, *e = (torch.cat(part).double().cpu() for part in rows.values() if part)
    v = v.clamp(-_CLIP, _CLIP)
    v, p, *e = (part - part.mean(0) for part in (v, p, *e))
    return MotionModel(v.T @ v / samples, p.T @ v / samples, e[0].T @ v / samples if e else None)


def motion_model(
    config: ProjectionConfig,
    nets: Networks,
    space: LatentSpace,
    *,
    sample: bool,
    identity: IdentityDistance | None,
    progress: bool = False,
) -> MotionModel:
    """The motion model of some networks: the package's own, one kept from before, or a new one.

    New ones are kept in $PYFACELAT_HOME/motion (default ~/.cache/pyfacelat/motion), by the digest
    of the networks.

    Args:
        config: how many samples, and how images are shrunk.
        nets: generator and landmark network.
        space: of the latents.
        sample: whether all networks are the package's own.
        identity: embeds faces, or None.
        progress: show a bar while samples are drawn, on a terminal.

    """
    if sample:
        return MotionModel.load(open_known("sample-motion"))
    settings = (str(config.motion_samples), str(config.perceptual_size), str(_VERSION))
    digest = fingerprint(nets.generator, nets.landmarker, identity, *settings)
    file = weights_dirs()[0].parent / "motion" / f"{digest[:32]}.safetensors"
    if file.exists():
        return MotionModel.load(read(file))
    with progress_bar(progress, config.motion_samples) as report:
        model = fit_motion(
            nets.generator,
            space,
            nets.landmarker,
            identity,
            size=config.perceptual_size,
            samples=config.motion_samples,
            report=report and (lambda done, of: report("motion", done, of, float("nan"))),
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    model.save(file, {"networks": digest})
    return model


class MotionSpace(LatentSpace):
    """Latents that can only move: v = pivot + c @ directions.T, the same directions in every row.

    Args:
        space: whitened.
        pivot: coordinates of that space [N,rows,D].
        directions: orthonormal, [D,rank].

    """

    def __init__(self, space: LatentSpace, pivot: Tensor, directions: Tensor) -> None:
        if not space.whitened:
            raise ValueError("space: motion is a matter of whitened latents, got raw ones")
        self.statistics, self.num_ws, self.rows = space.statistics, space.num_ws, space.rows
        self.whitened, self.spread = True, space.spread
        self._space, self._pivot = space, pivot
        self._directions = directions.to(pivot)

    def to_ws(self, theta: Tensor) -> Tensor:
        """Coefficients [...,rows,rank] to ws [...,num_ws,D]; differentiable."""
        return self._space.to_ws(self.whiten(theta))

    def from_ws(self, ws: Tensor) -> Tensor:
        """The coefficients [N,rows,rank] that come nearest to ws [N,num_ws,D]."""
        return (self._space.from_ws(ws) - self._pivot) @ self._directions

    def whiten(self, theta: Tensor) -> Tensor:
        """Whitened latents [...,rows,D] of coefficients [...,rows,rank]."""
        return self._pivot + theta @ self._directions.T

    def recorded_parts(self) -> list[object]:
        """What differs from run to run, see `graphs.corresponding`."""
        return [self._space, self._pivot, self._directions]

    def inward(self, change: Tensor) -> Tensor:
        """The part of a change of whitened latents that is motion, [...,rows,rank]."""
        return change @ self._directions

    def outward(self, theta: Tensor) -> Tensor:
        """Whitened latents of coefficients."""
        return self.whiten(theta)
