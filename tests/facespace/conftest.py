"""Four procedural faces, a tiny generator, and a face space fitted to them once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from pyfacelat import procface
from pyfacelat.facespace import FaceData, FaceSpace, FitConfig, fit, load_faces
from pyfacelat.nets.stylegan2 import Generator, GeneratorConfig

SIZE = 16
NAMES = ["anna", "bert", "carl", "dora"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces")
    # Far apart in skin, light and background, as far as 16 pixels show it.
    params = procface.with_values(
        procface.default(4),
        skin_tone=[0.05, 0.95, 0.2, 0.7],
        hair_tone=[0.9, 0.05, 0.1, 0.9],
        background_light=[0.1, 0.9, 0.9, 0.2],
        background_hue=[-0.9, 0.9, -0.9, 0.9],
        yaw=[-30, 0, 30, 10],
    )
    images = procface.render(params, SIZE)["image"]
    # Written out of order; they are read by name.
    for name, image in reversed(list(zip(NAMES, images, strict=True))):
        Image.fromarray(image).save(path / f"{name}.png")
    (path / "notes.txt").write_text("not a picture")
    return path


@pytest.fixture(scope="session")
def generator() -> Generator:
    torch.manual_seed(0)
    config = GeneratorConfig(
        z_dim=8, w_dim=16, img_resolution=SIZE, num_mapping_layers=1, channel_base=256
    )
    return Generator(config).freeze()


@pytest.fixture(scope="session")
def data(folder: Path) -> FaceData:
    return load_faces(folder, SIZE)


def blurred(images: torch.Tensor) -> list[torch.Tensor]:
    """Stand-in for the maps of a perceptual network."""
    return [torch.nn.functional.avg_pool2d(images, 2), torch.nn.functional.avg_pool2d(images, 4)]


@pytest.fixture(scope="session")
def space(data: FaceData, generator: Generator) -> FaceSpace:
    return fit(data, generator, blurred, FitConfig(epochs=60, fine_tune=True))
