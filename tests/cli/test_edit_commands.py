"""The editing commands on the sample generator."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from pyfacelat import zoo
from pyfacelat.cli import main
from pyfacelat.edits.boundaries import Boundary
from pyfacelat.edits.directions import GANSpace
from pyfacelat.edits.mix import style_transfer
from pyfacelat.edits.rows import row_indices
from pyfacelat.faces.attributes import ATTRIBUTES
from pyfacelat.images import to_uint8
from pyfacelat.latents import load_latents, save_latents
from pyfacelat.losses.landmark import Landmarker


@pytest.fixture(scope="module")
def generator() -> zoo.Generator:
    return zoo.load_generator("sample")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_same_latents(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Equal up to what the mapping rounds differently in a batch; w spreads over 100 units."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.std()))


def from_seed(generator: zoo.Generator, seed: int) -> torch.Tensor:
    z = np.random.RandomState(seed).randn(1, generator.z_dim)
    ws: torch.Tensor = generator.mapping(torch.from_numpy(z).float())
    return ws


def test_l11_mix_makes_a_table(
    folder: Path, generator: zoo.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    save_latents("a.npz", torch.cat([from_seed(generator, 1), from_seed(generator, 2)]))
    assert main(["mix", "a.npz", "seed:3-5", "--recipe", "style", "--outdir", "m", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == 6 and told["psi"] == 0
    mixed = load_latents("m/mixed_w.npz")
    expected = style_transfer(from_seed(generator, 2), from_seed(generator, 4))
    assert_same_latents(mixed[4:5], expected)
    picture = np.asarray(Image.open("m/001_001.png")).astype(int)
    rendered = to_uint8(generator.synthesis(expected))[0].numpy()
    assert np.abs(picture - rendered).max() <= 1
    columns, rows = 4, 3
    side = max(128, generator.img_resolution)
    assert Image.open("m/sheet.png").size == (columns * (side + 4) - 4, rows * (side + 4) - 4)


def test_mix_takes_images_and_rows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    look = resources.files("pyfacelat") / "assets" / "look.png"
    (folder / "look.png").write_bytes(look.read_bytes())
    command = ["mix", "look.png", "seed:3", "--rows", "0,1", "--psi", "0.5", "--outdir", "m"]
    assert main(command) == 0
    assert "rows 0, 1 of" in capsys.readouterr().out
    assert (folder / "m" / "000_000.png").exists()


def test_morph(folder: Path, generator: zoo.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["morph", "seed:1-2", "seed:3", "--steps", "3", "--method", "spherical"]
    assert main([*command, "--outdir", "m", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"outdir": "m", "frames": 7, "keys": 3}
    path = load_latents("m/morph_w.npz")
    assert_same_latents(path[::3][1:2], from_seed(generator, 2))
    with av.open("m/morph.mp4") as video:
        assert sum(1 for _ in video.decode(video=0)) == 7
    assert Image.open("m/strip.png").width > 7 * 64
    assert main(["morph", "seed:1", "seed:2", "--steps", "2", "--space", "w", "--loop"]) == 0
    assert load_latents("morph-out/morph_w.npz").shape[0] == 4


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["mix", "seed:1", "seed:2"], 2, "rows: give --rows"),
        (["mix", "seed:1", "seed:2", "--recipe", "stile"], 2, "did you mean 'style'"),
        (["mix", "seed:1", "seed:2", "--recipe", "style", "--rows", "1"], 2, "brings its own"),
        (["mix", "seed:1", "seed:2", "--rows", "99"], 2, "rows"),
        (["mix", "seed:9-1", "seed:2", "--rows", "1"], 2, "original: expected 1 to 1000 seeds"),
        (["mix", "seed:1", "nothing", "--rows", "1"], 2, "donor: expected seed:7"),
        (["mix", "seed:1", "gone.npz", "--rows", "1"], 5, "gone.npz"),
        (["mix", "seed:1", "bad.npz", "--rows", "1"], 5, "bad.npz"),
        (["morph", "seed:1"], 2, "K >= 2"),
        (["morph", "seed:1-2", "--space", "v"], 2, "space"),
        (["morph", "seed:1-2", "--method", "round"], 2, "method"),
        (["morph", "seed:1-2", "--fps", "0"], 2, "fps"),
        (["morph", "seed:1-2", "--network", "gone.pkl"], 4, "gone.pkl"),
    ],
)
def test_exit_codes(
    arguments: list[str],
    code: int,
    words: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.savez(folder / "bad.npz", w=np.zeros((1, 3, 5), np.float32))
    assert main(arguments) == code
    assert words in " ".join(capsys.readouterr().err.split())
    assert not list(folder.glob("*-out"))


def test_boundary_fit_and_apply(
    folder: Path, generator: zoo.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """A boundary from landmarks alone turns heads, and the mouth's stays out of it."""
    fit = ["boundary", "fit", "--count", "192", "--truncation", "1", "--json"]
    assert main([*fit, "--attribute", "mouth_open", "--out", "mouth.npz"]) == 0
    parts = {p: p.stat().st_mtime_ns for p in (folder / "samples").glob("part-*")}
    assert len(parts) == 3
    command = [*fit, "--attribute", "yaw", "--out", "yaw.npz", "--condition", "mouth.npz"]
    capsys.readouterr()
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["accuracy"]["train"] > 0.95 and told["conditions"] == ["mouth_open"]
    assert {p: p.stat().st_mtime_ns for p in parts} == parts  # samples are drawn once
    yaw_plane, mouth = Boundary.load("yaw.npz"), Boundary.load("mouth.npz")
    assert abs(float(mouth.normal @ yaw_plane.step)) < 1e-5

    apply = ["boundary", "apply", "yaw.npz", "seed:1-2", "--steps", "3", "--outdir", "b"]
    assert main([*apply, "--start", "-2", "--end", "2", "--save-video"]) == 0
    edited = load_latents("b/edited_w.npz").reshape(2, 3, generator.num_ws, generator.w_dim)
    found = yaw_plane.distance(edited[:, :, 0])
    torch.testing.assert_close(
        found, torch.tensor([-2.0, 0.0, 2.0]).expand(2, -1), rtol=0, atol=1e-3
    )
    points_of = Landmarker(zoo.load_landmarker("sample")).points
    turned = ATTRIBUTES["yaw"](points_of(generator.synthesis(edited.flatten(0, 1)))[0])
    assert (turned.reshape(2, 3).diff(dim=1) > 0).all()
    with av.open("b/edit.mp4") as video:
        assert sum(1 for _ in video.decode(video=0)) == 94
    assert (folder / "b" / "001_002.png").exists()


@pytest.mark.parametrize("space", ["z", "w+"])
def test_boundaries_in_other_spaces(space: str, folder: Path) -> None:
    fit = ["boundary", "fit", "--count", "64", "--share", "0.4", "--space", space]
    assert main([*fit, "--attribute", "yaw", "--out", "yaw.npz"]) == 0
    assert Boundary.load("yaw.npz").space == space
    apply = ["boundary", "apply", "yaw.npz", "seed:1", "--steps", "2", "--outdir", "b"]
    assert main(apply) == 0
    assert load_latents("b/edited_w.npz").shape[0] == 2


def test_edit_along_found_and_shared_directions(
    folder: Path, generator: zoo.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    edit = ["edit", "seed:1-2", "--steps", "3", "--json", "--outdir"]
    command = [*edit, "s", "--direction", "sefa:0", "--rows", "middle"]
    assert main([*command, "--save-direction", "sefa.npy"]) == 0
    shape = (2, 3, generator.num_ws, generator.w_dim)
    base = torch.cat([from_seed(generator, 1), from_seed(generator, 2)])
    edited = load_latents("s/edited_w.npz").reshape(shape)
    assert_same_latents(edited[:, 1], base)
    rows = row_indices("middle", generator.num_ws)
    others = [row for row in range(generator.num_ws) if row not in rows]
    assert_same_latents(edited[:, 0, others], base[:, others])

    shared = ["--direction", "sefa.npy", "--rows", "middle"]
    assert main([*edit, "t", *shared]) == 0
    torch.testing.assert_close(load_latents("t/edited_w.npz").reshape(shape), edited)

    command = [*edit, "g", "--direction", "ganspace:2", "--save-direction", "pca.npz"]
    assert main(command) == 0
    edited = load_latents("g/edited_w.npz").reshape(shape)
    found = GANSpace.load("pca.npz").coordinate(edited, 2)
    torch.testing.assert_close(
        found, torch.tensor([-3.0, 0.0, 3.0]).expand(2, -1), rtol=0, atol=1e-3
    )
    assert main([*edit, "h", "--direction", "pca.npz", "--component", "2"]) == 0
    again = load_latents("h/edited_w.npz").reshape(shape)
    torch.testing.assert_close(again, edited, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["boundary", "fit", "--attribute", "smil", "--out", "b.npz"], 2, "did you mean 'smile'"),
        (["boundary", "fit", "--attribute", "yaw", "--out", "b", "--space", "v"], 2, "space"),
        (
            ["boundary", "fit", "--attribute", "yaw", "--out", "b", "--condition", "gone.npz"],
            5,
            "gone.npz",
        ),
        (["boundary", "apply", "gone.npz", "seed:1"], 5, "gone.npz"),
        (["boundary", "apply", "d.npy", "seed:1"], 2, "width 3"),
        (["boundary", "apply", "d.npy", "seed:1", "--steps", "0"], 2, "steps"),
        (["edit", "seed:1", "--direction", "gone.npy"], 5, "gone.npy"),
        (["edit", "seed:1", "--direction", "d.npy"], 5, "d.npy: a direction of shape [1, 3]"),
        (["edit", "seed:1", "--direction", "d.npy", "--component", "1"], 2, "single"),
        (["edit", "seed:1", "--direction", "sefa:1", "--component", "1"], 2, "names its own"),
        (["edit", "seed:1", "--direction", "sefa:9999"], 2, "count"),
        (["edit", "seed:1", "--direction", "sefa:0", "--rows", "99"], 2, "rows"),
    ],
)
def test_exit_codes_of_boundaries_and_directions(
    arguments: list[str],
    code: int,
    words: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.save(folder / "d.npy", np.ones((1, 3), np.float32))
    assert main(arguments) == code
    assert words in " ".join(capsys.readouterr().err.split())
    assert not list(folder.glob("*-out"))
