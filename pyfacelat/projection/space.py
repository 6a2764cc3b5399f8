"""The latent coordinates that are optimised, and the generator's own statistics behind them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyfacelat.errors import ConfigError
from pyfacelat.latents import normalise_latents
from pyfacelat.losses.latent import GaussianisedPrior
from pyfacelat.nets.stylegan2 import Generator
from pyfacelat.projection.config import Coordinates, Space

_SMALLEST_SCALE = 1e-3  # of the largest: directions the mapping hardly uses must not blow up v


@dataclass(frozen=True)
class LatentStatistics:
    """Where a generator's own w lie.

    Attributes:
        mean: [D] float32.
        std: root of the mean squared distance from the mean, over all D together (the published
            projector's w_std).
        basis: [D,D] float32, orthonormal columns: the covariance's eigenvectors.
        scale: [D] float32 > 0: standard deviation along each.

    """

    mean: Tensor
    std: float
    basis: Tensor
    scale: Tensor


@torch.no_grad()
def measure(generator: Generator, *, samples: int = 10_000, seed: int = 123) -> LatentStatistics:
    """Map `samples` normal z drawn by `numpy.random.RandomState(seed)` and take their statistics.

    mean = sum(w) / n and std = sqrt(sum(|w - mean|^2) / n), as StyleGAN2-ADA's projector has them.
    """
    own = _own_latents(generator, samples, seed)
    dtype, w = own.dtype, own.double()
    mean = w.mean(0)
    centred = w - mean
    std = float((centred.square().sum() / samples).sqrt())
    variance, basis = torch.linalg.eigh(centred.T @ centred / samples)
    scale = variance.clamp_min(0).sqrt()
    scale = scale.clamp_min(_SMALLEST_SCALE * float(scale.max()))
    return LatentStatistics(mean.to(dtype), std, basis.to(dtype), scale.to(dtype))


@torch.no_grad()
def gaussianised_prior(
    generator: Generator, *, samples: int = 10_000, seed: int = 123
) -> GaussianisedPrior:
    """The prior before the mapping's last activation, fitted to the latents of `measure`."""
    return GaussianisedPrior.fit(_own_latents(generator, samples, seed))


def _own_latents(generator: Generator, samples: int, seed: int) -> Tensor:
    """W of normal z drawn by `numpy.random.RandomState(seed)`, [samples,D]."""
    weight = next(generator.mapping.parameters())
    z = np.random.RandomState(seed).randn(samples, generator.z_dim)
    w: Tensor = generator.mapping(torch.from_numpy(z).to(weight.device, weight.dtype), None)
    return w[:, 0]


class LatentSpace:
    """Between the optimised coordinates and the generator's ws.

    Args:
        statistics: of the generator.
        space: "w" optimises one row, repeated for all layers; "w+" one row per layer.
        coordinates: "raw" is w itself; "whitened" is v with w = mean + basis @ (scale * v).
        num_ws: L, rows the generator takes.

    """

    def __init__(
        self, statistics: LatentStatistics, space: Space, coordinates: Coordinates, num_ws: int
    ) -> None:
        self.statistics = statistics
        self.num_ws = num_ws
        self.rows = 1 if space == "w" else num_ws
        self.whitened = coordinates == "whitened"
        self.spread = 1.0 if self.whitened else statistics.std
        self._to_w = (
            statistics.basis * statistics.scale
        ).T.contiguous()  # [D,D], w = mean + v @ this
        self._to_v = (statistics.basis / statistics.scale).contiguous()

    def to_ws(self, theta: Tensor) -> Tensor:
        """Coordinates [...,rows,D] to ws [...,num_ws,D]; differentiable."""
        w = self.statistics.mean + theta @ self._to_w if self.whitened else theta
        return w.expand(*w.shape[:-2], self.num_ws, -1)

    def from_ws(self, ws: Tensor) -> Tensor:
        """Ws [N,num_ws,D] to coordinates [N,rows,D]; in space "w" the mean of the rows is taken."""
        w = ws.mean(1, keepdim=True) if self.rows == 1 else ws
        return (w - self.statistics.mean) @ self._to_v if self.whitened else w.clone()

    def whiten(self, theta: Tensor) -> Tensor:
        """Whitened form of coordinates [N,rows,D], whatever they are; for the latent terms."""
        return theta if self.whitened else (theta - self.statistics.mean) @ self._to_v

    def inward(self, change: Tensor) -> Tensor:
        """A change of the whole space's coordinates [...,rows,D], in these coordinates."""
        return change

    def outward(self, theta: Tensor) -> Tensor:
        """These coordinates as those of the whole space, [...,rows,D]."""
        return theta


def check_ws(ws: Tensor, generator: Generator, *, name: str = "init") -> Tensor:
    """Latents in any usual layout as [N,num_ws,w_dim] float32; ConfigError if they do not fit."""
    try:
        return normalise_latents(ws, num_ws=generator.num_ws, w_dim=generator.w_dim)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None
