"""What a projection aims at, computed once from its inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pyfacelat.faces.landmarks import heatmaps_to_points, points_to_heatmaps
from pyfacelat.faces.transfer import keep_pose
from pyfacelat.images import shrink_to
from pyfacelat.losses.landmark import Landmarker
from pyfacelat.projection.config import ProjectionConfig

_UNSURE = 0.2  # peak height below which a landmark of the target does not count


@dataclass(frozen=True)
class Clip:
    """What makes a batch a part of a clip: its items are neighbours in time.

    Attributes:
        before: ws of the frames just before the batch, at most two, [0..2,num_ws,D].
        after: of those just after it.
        pivot: ws of the look by itself, [1,num_ws,D], from where `pull` measures; None for where a
            stage begins.

    """

    before: Tensor
    after: Tensor
    pivot: Tensor | None = None


@dataclass(frozen=True)
class Targets:
    """Targets of N faces.

    Attributes:
        look: images [N,3,R,R] in [-1, 1].
        points: landmarks to have, [N,68,2] relative.
        maps: heat maps to have, [N,68,h,w].
        confidence: [N,68] in [0, 1], what each landmark's weight is multiplied by, or None.
        look_points: landmarks of the look, [N,68,2] relative, or None where nothing needs them.
        person: whose identity to have, images [N,3,R,R] in [-1, 1]; None: the look's.
        clip: what the faces have to do with each other; None: nothing.

    """

    look: Tensor
    points: Tensor
    maps: Tensor
    confidence: Tensor | None
    look_points: Tensor | None
    person: Tensor | None = None
    clip: Clip | None = None


@torch.no_grad()
def make_targets(
    config: ProjectionConfig,
    landmarker: Landmarker,
    look: Tensor,
    *,
    points: Tensor | None,
    maps: Tensor | None,
    image: Tensor | None,
    person: Tensor | None = None,
) -> Targets:
    """Bring one of the three kinds of landmark targets into the form the terms want.

    Args:
        config: its `target_maps`, `target_sigma`, `pose`, `confidence` and `perceptual_mask` count.
        landmarker: reads images.
        look: [N,3,R,R] in [-1, 1].
        points: [N,68,2] relative, or
        maps: heat maps [N,68,h,w] of any size, or
        image: [N,3,R,R] in [-1, 1] that the landmarks are read from.
        person: see `Targets`.

    """
    size = config.perceptual_size
    wants_look = config.pose == "keep" or config.perceptual_mask != "none"
    look_points = None
    if wants_look:
        look_points, _ = landmarker.points(shrink_to(look, size))
    sure = None
    if points is not None:
        points = points.to(look.device)
        cells = _map_size(landmarker, look, size)
    elif maps is not None:
        maps = maps.to(look.device, look.dtype)
        cells = _map_size(landmarker, look, size)
        points, sure = heatmaps_to_points(maps)
        if maps.shape[-2:] != cells:
            maps = F.interpolate(maps, size=cells, mode="bilinear", align_corners=False)
    else:
        assert image is not None
        maps = landmarker(shrink_to(image, size))
        cells = maps.shape[-2:]
        points, sure = heatmaps_to_points(maps)
    if config.pose == "keep" and look_points is not None:
        points = keep_pose(points, look_points.to(points))
        maps = None  # they show where the other head is
    if maps is None or config.target_maps == "points":
        sigma = config.target_sigma or landmarker.sigma
        drawn = points_to_heatmaps(points, (cells[0], cells[1]), sigma=sigma)
        maps = drawn.to(look.dtype)
    confidence = None
    if config.confidence and sure is not None:
        confidence = torch.where(sure < _UNSURE, 0.0, sure.clamp(0, 1)).to(look.dtype)
    return Targets(look, points, maps, confidence, look_points, person)


def _map_size(landmarker: Landmarker, look: Tensor, size: int) -> torch.Size:
    """Height and width of the landmark network's heat maps; an empty image shows them."""
    blank = look.new_zeros(1, *look.shape[1:])
    maps: Tensor = landmarker(shrink_to(blank, size))
    return maps.shape[-2:]
