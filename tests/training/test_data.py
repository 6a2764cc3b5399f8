from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from pyfacelat.training import data
from tests.training import crude


def test_a_killed_rendering_continues_and_a_longer_set_starts_with_a_shorter(tmp_path):
    source = crude.source()
    calls = 0

    def dies(z, size):
        nonlocal calls
        calls += 1
        if calls > 9:
            raise KeyboardInterrupt
        return source.render(z, size)

    with pytest.raises(KeyboardInterrupt):
        data.face_set(
            tmp_path / "a", "train", 2560, 16, source=dataclasses.replace(source, render=dies)
        )
    resumed = data.face_set(tmp_path / "a", "train", 2560, 16, source=source)
    whole = data.face_set(tmp_path / "b", "train", 2560, 16, source=source)
    short = data.face_set(tmp_path / "b", "train", 256, 16, source=source)
    assert resumed.sha256 == whole.sha256 != short.sha256
    np.testing.assert_array_equal(whole.images[:256], short.images)
    other = data.face_set(tmp_path / "b", "val", 256, 16, source=source)
    assert not np.array_equal(other.z, short.z)


def test_faces_of_another_renderer_are_refused(tmp_path):
    source = crude.source()
    data.face_set(tmp_path, "train", 10, 16, source=source)

    def darker(z, size):
        images, points = source.render(z, size)
        return images // 2, points

    with pytest.raises(ValueError, match="another renderer"):
        data.face_set(tmp_path, "train", 10, 16, source=dataclasses.replace(source, render=darker))
    with pytest.raises(ValueError, match="split: expected one of train, val, test, got 'best'"):
        data.face_set(tmp_path, "best", 10, 16, source=source)


def test_batches_keep_their_order_and_mirror_everything(tmp_path):
    source = crude.source()
    faces = data.face_set(tmp_path, "train", 256, 32, source=source)
    index = np.array([200, 3, 77])
    z, images, points, masks = faces.batch(index)
    assert torch.equal(z, torch.from_numpy(faces.z[index]))
    pixels = torch.from_numpy(faces.images[index]).permute(0, 3, 1, 2)
    assert torch.equal(images, pixels.float() / 127.5 - 1)
    mz, mimages, mpoints, mmasks = faces.batch(index, np.array([False, True, True]))
    assert torch.equal(mz[0], z[0]) and torch.equal(mimages[0], images[0])
    drawn, landmarks = source.render(mz[1:].numpy(), 32)
    assert np.abs(((mimages[1:] + 1) * 127.5).permute(0, 2, 3, 1).numpy() - drawn).max() < 1.01
    assert torch.equal(mmasks[2], masks[2].flip(-1))
    eyes = torch.from_numpy(landmarks)[:, 36:48].mean(1) / 32
    torch.testing.assert_close(mpoints[1:, 36:48].mean(1), eyes, atol=1e-3, rtol=0)


def test_mask_is_high_on_the_inner_face_and_low_on_the_jaw():
    points = torch.from_numpy(crude.render(np.zeros((1, crude.Z_DIM), np.float32), 64)[1]) / 64
    mask = data.face_mask(points, 64)
    cells = (points[0] * 64).long()
    assert mask[0, cells[17:, 1], cells[17:, 0]].min() > 0.9
    assert mask[0, cells[0, 1], cells[0, 0]] < 0.1 and mask.max() <= 1


def test_augmentation_moves_points_with_the_picture():
    size, rng = 64, torch.Generator().manual_seed(1)
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    points = (torch.rand(32, 68, 2, generator=rng) * 0.3 + 0.35).clone()
    spot = points[:, 0] * size
    distance = (x - spot[:, 0, None, None]) ** 2 + (y - spot[:, 1, None, None]) ** 2
    images = torch.exp(-distance / 18)[:, None].expand(-1, 3, -1, -1).contiguous()
    out, moved = data.augment(images, points, rng)
    assert out.min() >= 0 and out.max() <= 1 and not torch.equal(points, moved)
    off = []
    for i in range(32):
        peak = torch.nn.functional.avg_pool2d(out[i].mean(0)[None, None], 5, 1, 2)[0, 0].argmax()
        found = torch.stack([peak % size, peak // size]) + 0.5
        off.append((found - moved[i, 0] * size).norm().item())
    # Noise or an erased patch may hide the spot in a few; a wrong transform would move them all.
    assert np.median(off) < 1.5
