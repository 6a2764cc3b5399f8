"""Attributes from landmarks, on faces whose parameters are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pyfacelat import procface
from pyfacelat.errors import ConfigError
from pyfacelat.faces.attributes import ATTRIBUTES, LandmarkScores, attribute


@pytest.fixture(scope="module")
def faces() -> tuple[np.ndarray, torch.Tensor]:
    params = procface.from_latent(np.random.default_rng(0).standard_normal((800, procface.Z_DIM)))
    points = procface.render(params, 64, outputs=("landmarks",))["landmarks"]
    return params, torch.from_numpy(points)


@pytest.mark.parametrize(
    ("name", "parameter", "least"),
    # Measured .95, .90, -.66, .94, .89, .997, .95; a negative bound is for a falling score.
    [
        ("mouth_open", "jaw_open", 0.9),
        ("smile", "smile", 0.85),
        ("mouth_width", "pucker", -0.6),
        ("eye_open", "eye_open", 0.9),
        ("brow_raise", "brow_raise", 0.85),
        ("yaw", "yaw", 0.99),
        ("pitch", "pitch", 0.9),
    ],
)
def test_scores_follow_the_parameter(
    name: str, parameter: str, least: float, faces: tuple[np.ndarray, torch.Tensor]
) -> None:
    params, points = faces
    scores = ATTRIBUTES[name](points).numpy()
    found = np.corrcoef(scores, params[:, procface.index(parameter)])[0, 1] * np.sign(least)
    assert found > abs(least)
    others = [p for p in procface.names("expression") + procface.names("pose") if p != parameter]
    strongest = max(abs(np.corrcoef(scores, params[:, procface.index(p)])[0, 1]) for p in others)
    assert strongest < found


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_moving_scaling_and_turning_the_picture(
    name: str, faces: tuple[np.ndarray, torch.Tensor]
) -> None:
    points = faces[1][:50].double()
    angle = math.radians(20)
    turn = torch.tensor(
        [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    ).double()
    scores = ATTRIBUTES[name](3 * points @ turn + torch.tensor([5.0, -7.0]))
    expected = ATTRIBUTES[name](points) + (20 if name == "roll" else 0)
    torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-6)


def test_scores_of_pictures(faces: tuple[np.ndarray, torch.Tensor]) -> None:
    points = faces[1][:3]
    confidence = torch.tensor([1.0, 0.1, 0.5])[:, None].expand(-1, 68)
    score = LandmarkScores(lambda images: (points, confidence), ["yaw", "smile"])
    found = score(torch.zeros(3, 3, 8, 8))
    assert list(found) == ["yaw", "smile"]
    assert torch.isnan(found["yaw"]).tolist() == [False, True, False]
    torch.testing.assert_close(found["smile"][0], ATTRIBUTES["smile"](points)[0])


def test_an_unknown_attribute() -> None:
    with pytest.raises(ConfigError, match="did you mean 'smile'"):
        attribute("smiel")
