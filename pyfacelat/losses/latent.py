"""Latent terms: how far latents may go from the mean, from each other, from where they were.

Most are in whitened coordinates v, where the generator's own w are standard normal; `fidelity` is
in w itself, as published.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_FIDELITY_EPS = 1e-6  # the published code's
_EPS = 1e-8
_SMALLEST_SCALE = 1e-3  # of the largest: directions without spread must not blow up


def prior(v: Tensor) -> Tensor:
    """Distance from the mean face: mean(v^2), the normal's negative log density up to constants.

    Args:
        v: whitened latents [N,L,D].

    Returns:
        [N]; about 1 for a face the generator draws by itself.
    """
    return v.square().mean((1, 2))


def spread(v: Tensor) -> Tensor:
    """Distance of the rows from each other: mean((v - mean over rows of v)^2); zero in space W.

    Penalising it keeps W+ near the W that the generator was trained on (the delta regulariser of
    Tov et al. 2021, "Designing an encoder for StyleGAN image manipulation").

    Args:
        v: whitened latents [N,L,D].

    Returns:
        [N].
    """
    return (v - v.mean(1, keepdim=True)).square().mean((1, 2))


def pull(v: Tensor, pivot: Tensor) -> Tensor:
    """Distance from a pivot: mean((v - pivot)^2). Both [N,L,D]; returns [N]."""
    return (v - pivot).square().mean((1, 2))


def fidelity(ws: Tensor, mean: Tensor) -> Tensor:
    """Distance from the mean latent: sum over rows and channels of sqrt((mean - w)^2 + 1e-6).

    The fidelity term of the published landmark projection for video (2021).

    Args:
        ws: latents as the generator takes them, [N,L,D].
        mean: [D], or any shape that broadcasts to them.

    Returns:
        [N].
    """
    return ((mean - ws).square() + _FIDELITY_EPS).sqrt().sum((1, 2))


def delta(v: Tensor) -> Tensor:
    """Length of the rows' differences from the first: sum over rows i > 0 of |v_i - v_0|.

    The delta regulariser of Tov et al. 2021 ("Designing an encoder for StyleGAN image
    manipulation"), smooth at zero: |d| is sqrt(|d|^2 + 1e-8). Unlike `spread` it lets a few rows go
    far when the others stay. Meant to go with `Stage.delta_opening`, which frees rows coarse to
    fine.

    Args:
        v: latents [N,L,D]; one row gives 0.

    Returns:
        [N].
    """
    differences = (v[:, 1:] - v[:, :1]).square().sum(2)
    lengths: Tensor = (differences + _EPS).sqrt() - _EPS**0.5
    return lengths.sum(1)


@dataclass(frozen=True)
class GaussianisedPrior:
    """The generator's own w before the mapping network's last activation, whitened.

    u = LeakyReLU_5(w) undoes that activation (slope 0.2) up to a gain; over the generator's own w,
    u is close to a Gaussian, which w itself is not (Wulff and Torralba 2020, "Improving inversion
    and generation diversity in StyleGAN using a Gaussianized latent space"; the space P_N of Zhu et
    al. 2020, "Improved StyleGAN embedding: where are the good latents?").

    Attributes:
        mean: of u, [D].
        to_white: [D,D]; (u - mean) @ to_white has unit covariance over the generator's own w.
    """

    mean: Tensor
    to_white: Tensor

    @classmethod
    def fit(cls, w: Tensor) -> GaussianisedPrior:
        """From samples of the generator's own w, [n,D]; computed in float64, in w's dtype."""
        u = _before_activation(w.double())
        mean = u.mean(0)
        centred = u - mean
        variance, basis = torch.linalg.eigh(centred.T @ centred / len(u))
        scale = variance.clamp_min(0).sqrt()
        scale = scale.clamp_min(_SMALLEST_SCALE * float(scale.max()))
        return cls(mean.to(w), (basis / scale).to(w))

    def __call__(self, ws: Tensor) -> Tensor:
        """mean(u whitened ^ 2) of latents [N,L,D]; about 1 for the generator's own. Returns [N]."""
        white = (_before_activation(ws) - self.mean) @ self.to_white
        return white.square().mean((1, 2))


def _before_activation(w: Tensor) -> Tensor:
    return F.leaky_relu(w, negative_slope=5.0)
