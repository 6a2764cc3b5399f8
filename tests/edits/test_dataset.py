"""P6: pictures with the latents that made them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pyfacelat.edits.dataset import write_dataset
from pyfacelat.edits.sampling import SampleConfig
from pyfacelat.errors import CheckpointError, ConfigError
from pyfacelat.images import load_image, to_uint8

from ..projection.conftest import make_generator

CONFIG = SampleConfig(seed=3, mixing=0.5)


def everything(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def test_p6_row_i_renders_image_i(tmp_path: Path) -> None:
    generator = make_generator()
    done: list[tuple[int, int]] = []
    folder = write_dataset(
        generator, 11, tmp_path / "set", CONFIG, progress=lambda *at: done.append(at)
    )
    assert done == [(8, 11), (11, 11)]
    assert sorted(file.name for file in folder.glob("*.png")) == [f"{i:06d}.png" for i in range(11)]
    wp, w, z = (np.load(folder / f"{name}.npy") for name in ("wp", "w", "z"))
    assert (wp.shape, w.shape, z.shape) == ((11, generator.num_ws, 16), (11, 16), (11, 16))
    for i in (0, 7, 10):
        shown = generator.synthesis(torch.from_numpy(wp[i : i + 1]))
        stored = to_uint8(load_image(folder / f"{i:06d}.png")).int()
        assert int((to_uint8(shown)[0].int() - stored).abs().max()) <= 1
    np.testing.assert_allclose(generator.mapping(torch.from_numpy(z), None)[:, 0], w, atol=1e-5)


def test_an_interrupted_set_goes_on_and_a_longer_one_extends_it(tmp_path: Path) -> None:
    generator = make_generator()
    whole = everything(write_dataset(generator, 19, tmp_path / "whole", CONFIG))

    class Killed(Exception):
        pass

    def kill(done: int, _count: int) -> None:
        if done >= 8:
            raise Killed

    with pytest.raises(Killed):
        write_dataset(generator, 11, tmp_path / "cut", CONFIG, progress=kill)
    assert len(list((tmp_path / "cut").glob("*.png"))) == 8
    before = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "cut").glob("*.png")}
    write_dataset(generator, 11, tmp_path / "cut", CONFIG)
    after = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "cut").glob("*.png")}
    assert {name: after[name] for name in before} == before  # nothing was made twice
    write_dataset(generator, 19, tmp_path / "cut", CONFIG)
    assert everything(tmp_path / "cut") == whole


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="count: expected at least 1"):
        write_dataset(make_generator(), 0, tmp_path)
    write_dataset(make_generator(), 1, tmp_path, CONFIG)
    with pytest.raises(CheckpointError, match="another seed"):
        write_dataset(make_generator(), 1, tmp_path, SampleConfig(seed=4, mixing=0.5))
