"""Finding faces: detectors of every kind, and which face is meant."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from pyfacelat.errors import LandmarkError, NoFaceError
from pyfacelat.faces.detect import S3FDDetector, as_detections, box_quad, choose_face
from pyfacelat.nets.s3fd import S3FD, S3FDConfig

BOXES = np.array(
    [[10, 10, 50, 60, 0.6], [100, 40, 130, 80, 0.9], [200, 0, 290, 95, 0.7]], np.float64
)
SIZE = (300, 120)


@pytest.mark.parametrize(
    "choice, expected",
    [("largest", 2), ("central", 1), ("confident", 1), (0, 0), (1, 1), (2, 2)],
)
def test_l5_which_of_several(choice: str | int, expected: int) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert choose_face(BOXES, choice, SIZE) == expected
    if isinstance(choice, str):
        assert "3 faces were found; taking the one that is" in str(caught[0].message)
    else:
        assert not caught
    assert choose_face(BOXES[::-1], 1, SIZE) == 1  # from left to right, in any order


def test_l5_none_and_too_many() -> None:
    for choice in ("largest", "only", 0):
        with pytest.raises(NoFaceError, match="clip: no face .* 300 x 120|clip: face 0|no face"):
            choose_face(np.zeros((0, 5)), choice, SIZE, name="clip")
    with pytest.raises(NoFaceError, match="3 faces were found"):
        choose_face(BOXES, "only", SIZE)
    with pytest.raises(NoFaceError, match="face 3 was asked for, and 3 were found"):
        choose_face(BOXES, 3, SIZE)
    assert choose_face(BOXES[:1], "only", SIZE) == 0


@pytest.mark.parametrize("nothing", [None, [], np.zeros((0, 5)), torch.zeros(0, 4)])
def test_nothing_found(nothing: object) -> None:
    boxes, points = as_detections(nothing)
    assert boxes.shape == (0, 5) and points is None


def test_every_form_of_detection() -> None:
    boxes, points = as_detections(BOXES[:, :4].tolist())
    assert np.array_equal(boxes[:, :4], BOXES[:, :4]) and (boxes[:, 4] == 1).all()
    assert points is None
    assert np.array_equal(as_detections(torch.from_numpy(BOXES))[0], BOXES)
    assert np.array_equal(as_detections(BOXES[1])[0], BOXES[1:2])
    face = np.random.default_rng(0).uniform(5, 90, (68, 2))
    for given in (face, face[None], np.stack([face, face + 7])):
        boxes, points = as_detections(given)
        assert points is not None and np.array_equal(points[0], face)
        assert np.array_equal(boxes[0, :4], [*face.min(0), *face.max(0)])


@pytest.mark.parametrize(
    "bad",
    [np.zeros((2, 3)), np.full((1, 4), np.nan), np.zeros((2, 67, 2)), "face", [[1, 2], [3]],
     [[5, 5, 5, 9]]],
)  # fmt: skip
def test_other_things_are_refused(bad: object) -> None:
    with pytest.raises(LandmarkError, match="detector: expected"):
        as_detections(bad)


def test_box_quad_is_the_published_crop() -> None:
    """face_alignment: centre less 0.12 of the height, scale (w + h) / 195, side 200 * scale."""
    quad = box_quad([100.0, 40.0, 160.0, 130.0, 0.9])
    side = 200 * (60 + 90) / 195
    assert np.allclose(quad.mean(0), [130, 85 - 0.12 * 90])
    assert np.allclose(quad[3] - quad[0], [side, 0]) and np.allclose(quad[1] - quad[0], [0, side])


class TestS3FD:
    @pytest.fixture
    def detector(self, monkeypatch: pytest.MonkeyPatch) -> S3FDDetector:
        """The network stands for itself in shape only: it finds one box where the image is red."""
        net = S3FD(S3FDConfig(width=1))

        def detect(images: torch.Tensor, *, min_score: float) -> list[torch.Tensor]:
            assert images.shape[0] == 1 and min_score == 0.5
            self.seen = images
            y, x = (images[0, 0] > 0.9).nonzero(as_tuple=True)
            if len(x) == 0:
                return [torch.zeros(0, 5)]
            corners = [x.min(), y.min(), x.max() + 1, y.max() + 1, 1]
            return [torch.tensor([[float(v) for v in corners]])]

        monkeypatch.setattr(net, "detect", detect)
        return S3FDDetector(net, max_side=100)

    def test_boxes_come_back_in_pixels_of_the_photograph(self, detector: S3FDDetector) -> None:
        photo = np.zeros((240, 400, 3), np.uint8)
        photo[80:160, 120:200, 0] = 255
        (box,) = detector(photo)
        assert self.seen.shape == (1, 3, 60, 100)
        assert self.seen.min() == -1 and self.seen.max() == 1
        assert box.tolist() == [120, 80, 200, 160, 1]

    def test_small_photographs_are_not_shrunk(self, detector: S3FDDetector) -> None:
        photo = np.zeros((40, 60, 3), np.uint8)
        photo[5:9, 20:30, 0] = 255
        assert detector(photo).tolist() == [[20, 5, 30, 9, 1]]
        assert detector(photo * 0).shape == (0, 5)

    def test_a_thin_photograph(self, detector: S3FDDetector) -> None:
        assert detector(np.zeros((4, 900, 3), np.uint8)).shape == (0, 5)
        assert self.seen.shape == (1, 3, 16, 100)


def test_an_untrained_network_runs() -> None:
    torch.manual_seed(0)
    found = S3FDDetector(S3FD(S3FDConfig(width=2)), min_score=0.0)(np.zeros((64, 48, 3), np.uint8))
    assert found.ndim == 2 and found.shape[1] == 5 and np.isfinite(found).all()
