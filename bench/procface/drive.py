"""Moving a face by a track of landmarks: what task T5 runs.

A plain sequence of projections. The first frame is projected in full; each further one starts where
the one before ended and takes a few steps of those stages that look at landmarks, without latent
noise. No frame sees a later one. A better way to animate replaces `drive` and nothing else.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bench.procface.methods import Projection, following, pictures
from bench.procface.networks import Networks
from bench.procface.pairs import Points
from pyfacelat.errors import ConfigError
from pyfacelat.projection import ProjectionConfig, make_config


def drive(
    method: Projection,
    nets: Networks,
    look: Tensor,
    track: Points,
    *,
    frame_steps: int,
    seed: int,
) -> tuple[Tensor, float]:
    """Give N faces the landmarks of N tracks, frame by frame.

    Args:
        method: how to project.
        nets: with what.
        look: [N,3,R,R] in [-1, 1].
        track: [N,T,68,2], relative.
        frame_steps: steps of each frame but the first.
        seed: of every projection.

    Returns:
        frames [N,T,3,R,R] in [-1, 1], rounded to 8 bits, and wall seconds for one frame of one
        face, without those for making projectors.

    """
    points = torch.from_numpy(np.ascontiguousarray(track * nets.size)).float()
    result = nets.projector(method.config, seed, nets.start(look, method.config)).project(
        look, points[:, 0]
    )
    frames, seconds = [pictures(result.images)], result.timings["total"]
    config = follow(method.config, frame_steps)
    for t in range(1, points.shape[1]):
        result = nets.projector(config, seed, result.ws).project(look, points[:, t])
        frames.append(pictures(result.images))
        seconds += result.timings["total"]
    return torch.stack(frames, dim=1), seconds / (points.shape[0] * points.shape[1])


def follow(config: ProjectionConfig, frame_steps: int) -> ProjectionConfig:
    """How a frame is projected that starts from the one before.

    Raises:
        ConfigError: nothing in the configuration looks at landmarks.

    """
    stages = tuple(replace(stage, latent_noise=0.0) for stage in following(config))
    if not stages:
        raise ConfigError(f"method: {config.preset} has no landmark term, so it follows no track")
    return make_config(replace(config, stages=stages), steps=frame_steps)
