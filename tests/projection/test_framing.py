"""`align` in a projection: photographs are cropped, crops pass, and what is neither is said."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

import pyfacelat
from pyfacelat import weights
from pyfacelat.errors import ConfigError, LandmarkError, MissingWeightsError, NoFaceError
from pyfacelat.faces.align import align_face
from pyfacelat.images import to_uint8

from ..faces import scenes
from .conftest import SIZE

TILTED = scenes.similarity(20, 0.6, (190, 60))
STEPS: dict[str, Any] = {"steps": 2}


@pytest.fixture(autouse=True)
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "weights_dirs", lambda: [tmp_path / "weights"])


@pytest.fixture
def photo() -> NDArray[np.uint8]:
    return scenes.photograph(TILTED)[0]


def truth() -> NDArray[np.float64]:
    return scenes.photograph(TILTED)[1]


def crop() -> NDArray[np.uint8]:
    return align_face(*scenes.photograph(TILTED), size=SIZE).image


def shown(result: pyfacelat.ProjectionResult) -> NDArray[np.uint8]:
    return result.look[0]


class Reader(nn.Module):
    """A landmark network that sees FFHQ's landmarks in everything."""

    def __init__(self) -> None:
        super().__init__()
        points = torch.from_numpy(scenes.face(256)[1] / 256)[None]
        from pyfacelat.faces.landmarks import points_to_heatmaps

        self.register_buffer("maps", points_to_heatmaps(points, (32, 32)).float())

    def forward(self, x: Tensor) -> Tensor:
        return self.maps.expand(len(x), -1, -1, -1) + 0.0 * x.mean((1, 2, 3))[:, None, None, None]


def test_true_crops_the_look_and_the_landmark_image(
    nets: dict[str, Any], photo: NDArray[np.uint8]
) -> None:
    detector = lambda _: truth()  # noqa: E731
    result = pyfacelat.project(photo, photo, **nets, **STEPS, align=True, detector=detector)
    assert np.array_equal(shown(result), crop())
    assert result.landmark_image is not None
    assert np.array_equal(result.landmark_image[0], crop())
    tensor = torch.from_numpy(photo).permute(2, 0, 1).float() / 127.5 - 1
    result = pyfacelat.project(tensor, **nets, **STEPS, align=True, detector=detector)
    assert np.array_equal(shown(result), crop())


def test_points_follow_the_look_into_its_crop(
    nets: dict[str, Any], photo: NDArray[np.uint8]
) -> None:
    face = align_face(photo, truth(), size=SIZE)
    wanted = truth() + [1.0, -2.0]
    result = pyfacelat.project(
        photo, wanted, **nets, **STEPS, align=True, detector=lambda _: truth()
    )
    assert np.abs(result.target_landmarks[0].numpy() - face.to_crop(wanted)).max() < 1e-3
    with pytest.raises(LandmarkError, match="far outside the face"):
        pyfacelat.project(
            photo, truth() + [190, 0], **nets, **STEPS, align=True, detector=lambda _: truth()
        )


def test_the_result_goes_back_into_the_photograph(
    nets: dict[str, Any], photo: NDArray[np.uint8], tmp_path: Path
) -> None:
    result = pyfacelat.project(
        photo, **nets, **STEPS, align=True, detector=lambda _: truth(), outdir=tmp_path / "out"
    )
    face = align_face(photo, truth(), size=SIZE)
    pasted = result.paste_back()
    assert np.array_equal(pasted, face.paste_back(result.images[0]))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "pasted.png")), pasted)
    plain = pyfacelat.project(photo, **nets, **STEPS, align=False)
    with pytest.raises(ValueError, match="was not cropped"):
        plain.paste_back()


def test_false_takes_the_centre_square(nets: dict[str, Any], photo: NDArray[np.uint8]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = pyfacelat.project(photo, **nets, **STEPS, align=False)
    expected = to_uint8(pyfacelat.load_image(photo, size=SIZE)).numpy()
    assert np.array_equal(shown(result), expected)


def test_auto_without_a_detector_warns_and_takes_it_as_it_is(
    nets: dict[str, Any], photo: NDArray[np.uint8]
) -> None:
    with pytest.warns(UserWarning, match="look: the landmarks .* not where FFHQ's .* fetch s3fd"):
        result = pyfacelat.project(photo, **nets, **STEPS)
    expected = to_uint8(pyfacelat.load_image(photo, size=SIZE)).numpy()
    assert np.array_equal(shown(result), expected)


def test_auto_with_a_detector_crops_and_says_so(
    nets: dict[str, Any], photo: NDArray[np.uint8]
) -> None:
    with pytest.warns(UserWarning, match="cropped to the face"):
        result = pyfacelat.project(photo, **nets, **STEPS, detector=lambda _: truth())
    assert np.array_equal(shown(result), crop())
    with pytest.raises(NoFaceError, match="no face .*align=False takes it as it is"):
        pyfacelat.project(photo, **nets, **STEPS, detector=lambda _: [])


def test_auto_leaves_crops_and_tensors_alone(
    nets: dict[str, Any], photo: NDArray[np.uint8], look: Tensor
) -> None:
    def never(_: object) -> None:
        raise AssertionError("searched")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        face = scenes.face(64)[0]
        nets["landmarker"] = Reader()
        result = pyfacelat.project(face, **nets, **STEPS, detector=never)
        expected = to_uint8(pyfacelat.load_image(face, size=SIZE)).numpy()
        assert np.array_equal(shown(result), expected)
        pyfacelat.project(look, **nets, **STEPS, detector=never)


def test_errors_come_before_any_step(nets: dict[str, Any], photo: NDArray[np.uint8]) -> None:
    def stop(_: object) -> None:
        raise AssertionError("a step was made")

    settings = {**nets, **STEPS, "callback": stop}
    with pytest.raises(NoFaceError, match="look: no face was found"):
        pyfacelat.project(photo, **settings, align=True, detector=lambda _: None)
    with pytest.raises(NoFaceError, match=r"look\[1\]: no face"):
        pyfacelat.project(
            [photo, photo[:300]], **settings, align=True,
            detector=lambda p: truth() if len(p) == 400 else None,
        )  # fmt: skip
    with pytest.raises(MissingWeightsError, match="pyfacelat fetch s3fd"):
        pyfacelat.project(photo, **settings, align=True)
    for change, words in (
        ({"align": "yes"}, "align: expected True, False"),
        ({"align": 1}, "align: expected True, False"),
        ({"face": "smallest"}, "face: expected one of largest"),
    ):
        with pytest.raises(ConfigError, match=words):
            pyfacelat.project(photo, **settings, **change)
