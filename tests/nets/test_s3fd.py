"""S3FD against the face_alignment package: its network, its decoding, its suppression."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from face_alignment.detection.sfd.bbox import nms
from face_alignment.detection.sfd.detect import batch_detect
from face_alignment.detection.sfd.net_s3fd import s3fd as PublishedS3FD
from torch import Tensor, nn

from pyfacelat import weights, zoo
from pyfacelat.errors import CheckpointError
from pyfacelat.nets.s3fd import S3FD, S3FDConfig, decode_boxes, suppress_overlaps

from ..tolerances import max_error


@pytest.fixture(scope="module")
def published() -> nn.Module:
    """Random weights with which some cells are faces and most are not."""
    net = PublishedS3FD()
    random = torch.Generator().manual_seed(0)
    for name, value in net.named_parameters():
        if value.ndim == 4:
            fan_in = value[0].numel()
            # Boxes of a sensible size, and probabilities that are not all 0 or 1.
            large = name.startswith(("fc7_mbox", "conv6_2_mbox", "conv7_2_mbox"))
            scale = 0.02 if "_loc" in name or large else 1.0
            value.data.normal_(std=scale * (2 / fan_in) ** 0.5, generator=random)
        elif name.endswith("norm.weight"):
            value.data.uniform_(5, 10, generator=random)
        else:
            value.data.normal_(std=0.1, generator=random)
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def file(published: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("s3fd") / "detector.pth"
    torch.save(published.state_dict(), path, _use_new_zipfile_serialization=False)
    return path


def pixels(n: int, height: int, width: int) -> Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randint(256, (n, 3, height, width), generator=random).float()


def test_equals_face_alignment(published: nn.Module, file: Path) -> None:
    ours = zoo.load_detector(file)
    images = pixels(1, 80, 56)
    bgr = images.flip(1) - torch.tensor([104.0, 117.0, 123.0])[:, None, None]
    truth = published(bgr)
    maps = ours(images / 127.5 - 1)
    for level, (logits, offsets) in enumerate(maps):
        assert max_error(logits, truth[2 * level]) < 1e-4
        assert max_error(offsets, truth[2 * level + 1]) < 1e-4

    expected = torch.from_numpy(batch_detect(published, images, "cpu")[0]).float()
    found = decode_boxes(maps, 0.05)[0]
    assert found.shape == expected.shape and found.shape[0] > 20
    # A probability within rounding of the threshold could fall on either side; none does here.
    assert max_error(found, expected) < 1e-4
    keep = nms(expected.numpy(), 0.3)
    kept = [row for row in expected[keep] if row[-1] > 0.5]
    assert 0 < len(kept) < len(keep)
    boxes = ours.detect(images / 127.5 - 1)[0]
    torch.testing.assert_close(boxes, torch.stack(kept), rtol=1e-3, atol=1e-2)


def test_published_size() -> None:
    with torch.device("meta"):
        ours, theirs = S3FD(S3FDConfig()), PublishedS3FD()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    assert sum(v.numel() for v in ours.state_dict().values()) == 22_459_110


def test_images_of_a_batch_do_not_mix() -> None:
    torch.manual_seed(0)
    net = S3FD(S3FDConfig(width=4)).eval().requires_grad_(False)
    images = pixels(3, 33, 47) / 127.5 - 1
    together = net.detect(images, min_score=0.4, max_overlap=0.5)
    assert sum(len(boxes) for boxes in together) > 0
    for i, boxes in enumerate(together):
        alone = net.detect(images[i : i + 1], min_score=0.4, max_overlap=0.5)[0]
        assert boxes.shape[1] == 5
        torch.testing.assert_close(alone, boxes, rtol=1e-4, atol=1e-3)
        assert (boxes[:, 4].diff() <= 0).all() and (boxes[:, 4] > 0.4).all()
    assert net.detect(images[:0]) == []
    for shape in ((3, 32, 32), (1, 1, 32, 32), (1, 3, 15, 32)):
        with pytest.raises(ValueError, match="images: expected shape"):
            net(torch.zeros(shape))


def test_one_cell_by_hand() -> None:
    """Stride 8, cell (row 2, column 1): anchor centre (12, 20), side 32."""
    maps = []
    for _ in range(6):
        logits = torch.zeros(1, 2, 3, 3)
        logits[:, 0] = 9
        maps.append((logits, torch.zeros(1, 4, 3, 3)))
    maps[1][0][0, :, 2, 1] = torch.tensor([0.0, 2.0])
    maps[1][1][0, :, 2, 1] = torch.tensor([1.0, -2.0, 0.0, 5.0])
    (boxes,) = decode_boxes(maps)
    half = 16 * np.exp(1.0)
    x, y = 12 + 0.1 * 32, 20 - 0.2 * 32
    score = 1 / (1 + np.exp(-2.0))
    expected = [[x - 16, y - half, x + 16, y + half, score]]
    torch.testing.assert_close(boxes, torch.tensor(expected).float())


def test_suppression_equals_face_alignment() -> None:
    random = torch.Generator().manual_seed(3)
    corners = torch.rand(200, 2, generator=random) * 100
    sides = torch.rand(200, 2, generator=random) * 60
    boxes = torch.cat((corners, corners + sides, torch.rand(200, 1, generator=random)), 1)
    for overlap in (0.0, 0.3, 0.7, 1.0):
        expected = boxes[nms(boxes.numpy(), overlap)]
        assert torch.equal(suppress_overlaps(boxes, overlap), expected)
    assert suppress_overlaps(boxes[:0]).shape == (0, 5)


def test_file_is_looked_for_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = S3FD(S3FDConfig(width=2))
    monkeypatch.setenv("PYFACELAT_HOME", str(tmp_path))
    path = tmp_path / "weights/s3fd-619a316812.pth"
    path.parent.mkdir()
    torch.save(net.state_dict(), path)
    with pytest.raises(CheckpointError, match="619a316812"):
        zoo.load_detector()
    row = weights._DOWNLOADS["s3fd"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(weights._DOWNLOADS, "s3fd", (row[0], digest[:10], *row[2:]))
    loaded = zoo.load_detector()
    assert loaded.config.width == 2
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())

    other = tmp_path / "x.pth"
    state = net.state_dict()
    del state["fc7.bias"]
    torch.save(state, other)
    with pytest.raises(CheckpointError, match=r"fc7\.bias: is missing"):
        zoo.load_detector(other)
    torch.save({**net.state_dict(), "conv1_1.weight": torch.zeros(3)}, other)
    with pytest.raises(CheckpointError, match="which is not S3FD"):
        zoo.load_detector(other)
