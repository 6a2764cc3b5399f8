"""Latent editing consistency: whether an encoder takes edited faces back to where they came from.

    LEC = mean over images of || E(x) - undo(E(G(edit(E(x))))) ||_2

(Tov et al. 2021, arXiv:2102.02766, after Zhu et al. 2020.) An encoder whose latents lie where the
generator was trained comes back to them; one that only reconstructs does not.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyfacelat.errors import ConfigError

__all__ = ["editing_consistency", "round_trips"]

Transform = Callable[[Tensor], Tensor]


@torch.no_grad()
def round_trips(
    images: Tensor, encode: Transform, render: Transform, edit: Transform, undo: Transform
) -> Tensor:
    """Distance of each image's latents from what a round through the edited face makes of them.

    Args:
        images: [N,3,R,R] in [-1, 1].
        encode: images to latents [N,...].
        render: latents to images in about [-1, 1], as `encode` takes them.
        edit: latents to latents.
        undo: its inverse.

    Returns:
        [N] float64.
    """
    ws = encode(images)
    back = undo(encode(render(edit(ws))))
    distances: Tensor = (ws.double() - back.double()).flatten(1).norm(dim=1)
    return distances


def editing_consistency(
    images: Tensor,
    encode: Transform,
    render: Transform,
    edit: Transform,
    undo: Transform,
    *,
    percentiles: tuple[float, float] = (1.0, 99.0),
) -> float:
    """LEC: the mean of `round_trips` between two percentiles, both included; 0 is best.

    Args:
        images: as in `round_trips`, like the next four.
        encode: images to latents.
        render: latents to images.
        edit: latents to latents.
        undo: its inverse.
        percentiles: of the distances, in [0, 100]; what lies beyond them is left out.

    Raises:
        ConfigError: percentiles that are not 0 <= low < high <= 100, or no image.
    """
    low, high = percentiles
    if not 0 <= low < high <= 100:
        raise ConfigError(f"percentiles: expected 0 <= low < high <= 100, got {low}, {high}")
    if not len(images):
        raise ConfigError("images: expected at least one, got none")
    found = round_trips(images, encode, render, edit, undo)
    ends = torch.quantile(found, torch.tensor([low / 100, high / 100], dtype=found.dtype))
    kept = found[(found >= ends[0]) & (found <= ends[1])]
    # Of two images neither lies between the percentiles.
    return float((kept if len(kept) else found).mean())
