"""The landmark term in coordinates: where the maps' peaks are, against where they should be.

A distance of heat maps stops pulling when two bumps no longer touch; a distance of points pulls
just as hard from anywhere. Close by it is the other way round: the maps' distance is sharper. So a
run that has far to go starts with this one and ends with that one (`Stage.weight_ends`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyfacelat.faces.groups import NUM_LANDMARKS

_TINY = 1e-12


def local_soft_argmax(maps: Tensor, *, reach: int = 6, power: float = 2.0) -> Tensor:
    """Where heat maps have their peaks, differentiably: a centroid in a window around the highest.

    p = sum over the window of max(h, 0)^power * cell centre / sum of max(h, 0)^power

    The window's place is not differentiated. A centroid over the whole map would be drawn to its
    middle by any floor that the map has.

    Args:
        maps: [N,68,H,W], float.
        reach: the window is 2 * reach + 1 cells wide, cut at the map's edges.
        power: above 1, a floor counts less.

    Returns:
        points [N,68,2], relative: x over the map's width, y over its height; where a window holds
        nothing above zero, the highest cell's centre, with zero gradient.
    """
    height, width = maps.shape[-2:]
    peak = maps.detach().flatten(2).argmax(-1)
    peak_x, peak_y = peak % width, peak // width  # [N,68]
    x = torch.arange(width, device=maps.device)
    y = torch.arange(height, device=maps.device)
    near_x = (x - peak_x[..., None]).abs() <= reach  # [N,68,W]
    near_y = (y - peak_y[..., None]).abs() <= reach  # [N,68,H]
    mass = maps.clamp_min(0).pow(power) * (near_y[..., :, None] & near_x[..., None, :])
    total = mass.sum((-2, -1))
    found = total > _TINY
    total = torch.where(found, total, 1.0)
    centre_x = (mass.sum(-2) @ (x + 0.5).to(maps.dtype)) / total
    centre_y = (mass.sum(-1) @ (y + 0.5).to(maps.dtype)) / total
    centre_x = torch.where(found, centre_x, (peak_x + 0.5).to(maps.dtype))
    centre_y = torch.where(found, centre_y, (peak_y + 0.5).to(maps.dtype))
    return torch.stack([centre_x / width, centre_y / height], dim=-1)


class CoordinateDistance(nn.Module):
    """Weighted distance between heat maps' peaks and target points.

    sum_k(w_k huber(x_k / d) + w_k huber(y_k / d)) / sum(w), where (x_k, y_k) is landmark k's error
    in cells and huber(r) = r^2 / 2 for |r| < 1 and |r| - 1/2 beyond: about the mean error in units
    of d, with a gradient that fades once it is below.

    Args:
        weights: one weight per landmark, [68], float, >= 0.
        reach, power: see `local_soft_argmax`.
        knee: d, in cells.
    """

    weights: Tensor

    def __init__(
        self, weights: Tensor, *, reach: int = 6, power: float = 2.0, knee: float = 1.0
    ) -> None:
        super().__init__()
        if weights.shape != (NUM_LANDMARKS,):
            raise ValueError(f"weights: expected shape [68], got {list(weights.shape)}")
        if not knee > 0:
            raise ValueError(f"knee: expected more than 0 cells, got {knee!r}")
        self.reach, self.power, self.knee = reach, power, knee
        self.register_buffer("weights", weights.clone())

    def forward(self, maps: Tensor, target: Tensor, confidence: Tensor | None = None) -> Tensor:
        """Compare maps [N,68,H,W] with relative points [N,68,2]. Returns [N].

        `confidence` [N,68] multiplies the weights of each image.
        """
        height, width = maps.shape[-2:]
        found = local_soft_argmax(maps, reach=self.reach, power=self.power)
        across, down = (found - target.to(found)).unbind(-1)
        cells = torch.stack([across * width, down * height], dim=-1)
        errors = F.huber_loss(
            cells / self.knee, torch.zeros_like(cells), reduction="none", delta=1.0
        ).sum(-1)
        weights = self.weights.to(maps.dtype).expand(len(maps), -1)
        if confidence is not None:
            weights = weights * confidence.to(maps.dtype)
        return (errors * weights).sum(1) / weights.sum(1).clamp_min(_TINY)
