"""Points, heat maps, and files of points."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pyfacelat.errors import LandmarkError
from pyfacelat.faces.draw import draw_landmarks
from pyfacelat.faces.landmarks import (
    as_points,
    heatmaps_to_points,
    load_points,
    normalised_error,
    points_to_heatmaps,
)


def some_points(count: int = 2) -> torch.Tensor:
    return 0.1 + 0.8 * torch.rand(count, 68, 2, generator=torch.Generator().manual_seed(0))


def test_l12_gaussians_peak_at_their_points() -> None:
    """L12: within one cell; with the centroid, within a fifth of one."""
    points = some_points()
    maps = points_to_heatmaps(points, (64, 48))
    assert maps.shape == (2, 68, 64, 48)
    peak = maps.flatten(2).argmax(-1)
    cells = torch.stack([peak % 48, peak // 48], -1)
    scale = torch.tensor([48.0, 64.0])
    assert ((cells + 0.5) - points * scale).abs().max() <= 0.5 + 1e-4
    decoded, confidence = heatmaps_to_points(maps)
    assert ((decoded - points) * scale).abs().max() < 0.2
    assert (confidence > 0.75).all()


def test_gaussian_by_hand() -> None:
    point = torch.full((1, 68, 2), 2.5 / 8)
    maps = points_to_heatmaps(point, (8, 8), sigma=2.0)
    assert maps[0, 0, 2, 2] == 1.0
    assert maps[0, 0, 2, 4] == pytest.approx(np.exp(-0.5))


def test_decoding_at_borders_and_of_empty_maps() -> None:
    maps = torch.zeros(1, 68, 8, 8)
    maps[0, 0, 0, 7] = 1.0
    points, confidence = heatmaps_to_points(maps)
    assert points[0, 0].tolist() == pytest.approx([7.5 / 8, 0.5 / 8])
    assert torch.isfinite(points).all()
    assert confidence[0, 1] == 0.0


def test_error_is_a_share_of_the_outer_eye_corners() -> None:
    truth = torch.zeros(1, 68, 2)
    truth[0, 45, 0] = 10.0
    moved = truth + torch.tensor([0.3, 0.4])
    assert normalised_error(moved, truth)[0] == pytest.approx(0.05)
    moved[:, 1:] = truth[:, 1:]
    assert normalised_error(moved, truth)[0] == pytest.approx(0.05 / 68)
    assert normalised_error(moved, truth, [0, 1])[0] == pytest.approx(0.025)


def test_what_counts_as_points() -> None:
    assert as_points("a.png") is None
    assert as_points(torch.zeros(3, 64, 64)) is None
    assert as_points(np.zeros((64, 64, 3), np.uint8)) is None
    assert as_points([np.zeros((64, 64, 3), np.uint8)]) is None
    assert as_points(["a.png", "b.png"]) is None
    for source in (torch.zeros(68, 2), np.zeros((1, 68, 2)), [[0.0, 0.0]] * 68):
        found = as_points(source)
        assert found is not None and found.shape == (1, 68, 2)


@pytest.mark.parametrize("shape", [(67, 2), (98, 2), (68, 3), (0, 68, 2), (68,)])
def test_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(LandmarkError, match=r"\[68,2\]"):
        as_points(torch.zeros(shape))


class TestFiles:
    points = np.arange(136, dtype=np.float64).reshape(68, 2)

    def write(self, folder: Path, name: str) -> Path:
        path = folder / name
        if name.endswith(".json"):
            path.write_text(json.dumps({"points": self.points.tolist(), "size": 256}))
        elif name.endswith(".npy"):
            np.save(path, self.points)
        elif name.endswith(".npz"):
            np.savez(path, landmarks=self.points)
        elif name.endswith(".pts"):
            rows = "\n".join(f"{x} {y}" for x, y in self.points)
            path.write_text(f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n")
        else:
            path.write_text("\n".join(f"{x},{y}" for x, y in self.points))
        return path

    @pytest.mark.parametrize("name", ["a.json", "a.npy", "a.npz", "a.pts", "a.txt"])
    def test_every_format(self, tmp_path: Path, name: str) -> None:
        points, size = load_points(self.write(tmp_path, name))
        assert (points[0].numpy() == self.points).all()
        assert size == (256.0 if name == "a.json" else None)

    @pytest.mark.parametrize(
        "name, content",
        [
            ("a.json", "{"),
            ("b.json", '{"points": [[1, 2]]}'),
            ("c.json", '{"points": null, "size": 5}'),
            ("d.json", "[" * 100_000),
            ("e.json", json.dumps({"points": [[0, 0]] * 68, "size": -1})),
            ("f.json", json.dumps([[0, "x"]] * 68)),
            ("g.npy", "not numpy"),
            ("h.npz", "PK"),
            ("i.txt", "1 2\n3\n"),
            ("j.txt", "nan nan\n" * 68),
        ],
    )
    def test_malformed(self, tmp_path: Path, name: str, content: str) -> None:
        (tmp_path / name).write_text(content)
        with pytest.raises(LandmarkError, match=name):
            load_points(tmp_path / name)

    def test_absent(self, tmp_path: Path) -> None:
        with pytest.raises(LandmarkError, match="No such file"):
            load_points(tmp_path / "absent.npy")

    def test_objects_are_not_unpickled(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.array([object()]), allow_pickle=True)
        with pytest.raises(LandmarkError, match="nothing was imported or run"):
            load_points(tmp_path / "a.npy")


def test_l6_drawing_changes_pixels_only_near_the_lines() -> None:
    """L6."""
    image = np.zeros((128, 128, 3), np.uint8)
    points = np.full((68, 2), 64.0)
    points[:17, 0] = np.linspace(20.5, 100.5, 17)
    drawn = draw_landmarks(image, points)
    changed = drawn.any(-1)
    assert (drawn[changed] == (255, 200, 0)).all()
    rows, columns = np.nonzero(changed)
    assert rows.min() >= 62 and rows.max() <= 66
    assert columns.min() >= 18 and columns.max() <= 103
    assert not image.any()
