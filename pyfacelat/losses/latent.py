"""Latent terms, in whitened coordinates v, where the generator's own w are standard normal."""

from __future__ import annotations

from torch import Tensor


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
