"""I10 and I11: face swap, and every face with every other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pyfacelat.errors import ConfigError
from pyfacelat.images import to_pil, to_uint8
from pyfacelat.swap import RECIPES, Swapper, recipe, swap


def test_i10_published_recipe() -> None:
    """LPIPS 1, MS-SSIM 0.5, identity 1.5; Adam 0.01 in W+, 100 steps."""
    config = recipe("published")
    (stage,) = config.stages
    assert dict(stage.weights) == {"perceptual": 1.0, "ms_ssim": 0.5, "identity": 1.5}
    assert (stage.steps, stage.learning_rate) == (100, 0.01)
    assert (config.space, config.coordinates) == ("w+", "raw")
    assert recipe("default", steps=7).steps == 7
    with pytest.raises(ConfigError, match="recipe: expected one of default, published"):
        recipe("bold")


@pytest.mark.parametrize("name", RECIPES)
def test_i10_identity_rises_and_ends_above_the_run_without(
    nets: dict[str, Any], faces: list[Tensor], name: str
) -> None:
    look, person, _ = faces
    generator, steps = nets["network"], 40
    z = torch.randn(3, 16, generator=torch.Generator().manual_seed(5))
    nets = {**nets, "init": generator.mapping(z[:1], None)}  # as an encoder finds the look
    with_identity = swap(look, person, **nets, recipe=name, steps=steps)
    without = swap(look, person, **nets, recipe=name, steps=steps, loss_weights={"identity": 1e-9})
    cosines = 1 - with_identity.projection.losses["identity"][:, 0]
    quarters = [float(part.mean()) for part in cosines.tensor_split(4)]
    assert quarters[0] < min(quarters[1:]) and cosines[-1] > cosines[0]
    assert float(with_identity.to_person) > float(without.to_person) + 0.02
    assert float(with_identity.to_person) > float(with_identity.to_person_before)
    # The numbers are what they say.
    swapper = Swapper(**nets, recipe=name, steps=1)
    shown = to_uint8(person[None]).numpy()
    expected = (swapper.embed(with_identity.images) * swapper.embed(shown)).sum()
    assert float(with_identity.to_person) == pytest.approx(float(expected), abs=1e-5)


def test_i10_a_batch_is_its_items(nets: dict[str, Any], faces: list[Tensor]) -> None:
    swapper = Swapper(**nets, steps=4)
    both = swapper.swap(faces[:2], [faces[1], faces[2]])
    for index in range(2):
        alone = swapper.swap(faces[index], faces[index + 1])
        torch.testing.assert_close(both.projection.ws[index], alone.projection.ws[0])
        assert both.likeness(index) == pytest.approx(alone.likeness(), abs=1e-3)
    one_person = swapper.swap(faces[:2], faces[2])
    assert one_person.projection.person is not None and len(one_person.projection.person) == 2


def test_i10_back_into_the_photograph(
    nets: dict[str, Any], faces: list[Tensor], tmp_path: Path
) -> None:
    """Cropped by landmarks, swapped, pasted: what is outside the crop does not change."""
    photo = np.full((96, 120, 3), 90, np.uint8)
    photo[16:80, 28:92] = np.asarray(to_pil(faces[0]).resize((64, 64)))
    points = _standard_points() * 64 + (28, 16)
    settings = {**nets, "align": True, "detector": lambda image: points[None]}
    swapper = Swapper(**settings, steps=6)
    result = swapper.swap(photo, photo[:, ::-1].copy(), outdir=tmp_path)
    pasted = result.projection.paste_back()
    crop = result.projection.crops[0]
    assert crop is not None and pasted.shape == photo.shape
    low, high = np.floor(crop.quad.min(0)).astype(int), np.ceil(crop.quad.max(0)).astype(int)
    outside = np.ones(photo.shape[:2], bool)
    outside[max(low[1], 0) : high[1] + 1, max(low[0], 0) : high[0] + 1] = False
    assert outside.any() and (pasted[outside] == photo[outside]).all()
    assert (pasted != photo).any()
    files = {file.name for file in tmp_path.iterdir()}
    assert {"pasted.png", "proj.png", "target_person.png", "projected_w.npz"} <= files


def test_i11_table(nets: dict[str, Any], faces: list[Tensor], tmp_path: Path) -> None:
    swapper = Swapper(**nets, steps=12)
    done: list[tuple[int, int]] = []
    names = ["anna", "bert", "carl <3"]
    table = swapper.table(faces, names=names, progress=lambda *at: done.append(at))
    assert done == [(1, 3), (2, 3), (3, 3)]
    cells = table.cells()
    assert [len(row) for row in cells] == [3, 3, 3]
    for i, face in enumerate(faces):
        assert (cells[i][i] == to_uint8(face[None])[0].numpy()).all()  # the input itself
        alone = swapper.swap(face, faces[(i + 1) % 3])
        assert np.abs(cells[i][(i + 1) % 3].astype(int) - alone.images[0]).max() <= 2
    table.save(tmp_path)
    assert len(list(tmp_path.glob("0*_0*.png"))) == 9
    side = 128
    assert Image.open(tmp_path / "table.png").width >= 4 * side
    assert Image.open(tmp_path / "comparison.png").height >= 3 * side
    told = json.loads((tmp_path / "table.json").read_text())
    assert told["names"] == names and np.shape(told["to_person"]) == (3, 3)
    assert (np.array(told["to_person"]) <= 1.0001).all()
    page = (tmp_path / "table.html").read_text()
    assert page.count("<img") == 9 and page.count("original") == 3 and "carl &lt;3" in page


def test_refusals(nets: dict[str, Any], faces: list[Tensor]) -> None:
    with pytest.raises(ConfigError, match="a swap needs the identity term"):
        Swapper(**nets, loss_weights={"identity": 0.0})
    with pytest.raises(ConfigError, match="at least two"):
        Swapper(**nets, steps=1).table(faces[:1])


def _standard_points() -> np.ndarray[Any, Any]:
    """68 points of an upright face in the unit square, from which FFHQ's crop is about that."""
    from ..training import crude

    return np.asarray(crude._template())
