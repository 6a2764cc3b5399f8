"""Paths and blends of latents (F9)."""

from __future__ import annotations

import math

import pytest
import torch

from pyfacelat.edits.morph import blend, morph, slerp
from pyfacelat.errors import ConfigError
from pyfacelat.nets.stylegan2 import Generator, GeneratorConfig
from pyfacelat.projection.space import LatentSpace, measure

ONES = torch.ones(4, 8)


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    config = GeneratorConfig(
        z_dim=8, w_dim=8, img_resolution=16, num_mapping_layers=2, channel_base=128, channel_max=8
    )
    return Generator(config).freeze()


@pytest.fixture(scope="module")
def keys(generator: Generator) -> torch.Tensor:
    z = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    ws: torch.Tensor = generator.mapping(z)
    return ws + 0.1 * torch.randn(ws.shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("method", ["linear", "spherical"])
@pytest.mark.parametrize("space", [None, "whitened"])
@pytest.mark.parametrize("steps", [1, 20])
def test_f9_frame_count_and_endpoints(
    method: str, space: str | None, steps: int, keys: torch.Tensor, generator: Generator
) -> None:
    coordinates = None
    if space:
        coordinates = LatentSpace(measure(generator), "w+", "whitened", generator.num_ws)
    path = morph(keys, steps=steps, method=method, space=coordinates)  # type: ignore[arg-type]
    assert path.shape == ((len(keys) - 1) * steps + 1, *keys.shape[1:])
    assert torch.equal(path[::steps], keys)
    direct = generator.synthesis(keys)
    assert torch.equal(generator.synthesis(path[::steps]), direct)
    round_trip = morph(keys, steps=steps, method=method, space=coordinates, loop=True)  # type: ignore[arg-type]
    assert len(round_trip) == len(keys) * steps
    assert torch.equal(round_trip[: len(path) - 1], path[:-1])


def test_a_straight_path_is_straight_in_any_linear_coordinates(
    keys: torch.Tensor, generator: Generator
) -> None:
    whitened = LatentSpace(measure(generator), "w+", "whitened", generator.num_ws)
    direct = morph(keys, steps=4)
    torch.testing.assert_close(morph(keys, steps=4, space=whitened), direct, rtol=0, atol=1e-5)
    torch.testing.assert_close(direct[2], (keys[0] + keys[1]) / 2)


def test_w_keeps_one_row(keys: torch.Tensor, generator: Generator) -> None:
    path = morph(keys, steps=3, space=LatentSpace(measure(generator), "w", "raw", generator.num_ws))
    assert path.shape == (7, generator.num_ws, 8)
    assert torch.equal(path, path[:, :1].expand_as(path))
    torch.testing.assert_close(path[0, 0], keys[0].mean(0))


def test_slerp_by_hand() -> None:
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    third = slerp(a, b, 1 / 3)
    length = 2 + 2 / 3
    expected = torch.tensor([[math.cos(math.pi / 6), math.sin(math.pi / 6)]]) * length
    torch.testing.assert_close(third, expected)
    torch.testing.assert_close(slerp(a, 3 * a, 0.5), 2 * a)
    for t in (0.0, 1.0):
        torch.testing.assert_close(slerp(a, b, t), (a, b)[int(t)])


def test_great_circles_keep_the_length() -> None:
    a, b = torch.nn.functional.normalize(torch.randn(2, 5, 64), dim=-1)
    path = morph(torch.stack([a, b]), steps=10, method="spherical")
    torch.testing.assert_close(path.norm(dim=-1), torch.ones(11, 5), rtol=0, atol=1e-5)
    assert float(morph(torch.stack([a, b]), steps=10)[5].norm(dim=-1).max()) < 0.9


def test_blend() -> None:
    keys = torch.randn(3, 4, 8)
    torch.testing.assert_close(blend(keys, torch.tensor([2.0, 2.0, 0.0])), (keys[0] + keys[1]) / 2)
    many = blend(keys, torch.eye(3))
    torch.testing.assert_close(many, keys)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"keys": torch.zeros(1, 4, 8)}, "K >= 2"),
        ({"keys": torch.ones(2, 4, 8), "steps": 0}, "steps"),
        ({"keys": torch.ones(2, 4, 8), "method": "cubic"}, "method"),
        ({"keys": torch.zeros(2, 4, 8), "method": "spherical"}, "zeros"),
        (
            {"keys": torch.stack([torch.ones(4, 8), -torch.ones(4, 8)]), "method": "spherical"},
            "opp",
        ),
    ],
)
def test_refusals(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        morph(**arguments)  # type: ignore[arg-type]


def test_blend_refusals() -> None:
    with pytest.raises(ConfigError, match="other than 0"):
        blend(torch.ones(2, 4, 8), torch.tensor([1.0, -1.0]))
    with pytest.raises(ConfigError, match="one for each"):
        blend(torch.ones(2, 4, 8), torch.ones(3))
