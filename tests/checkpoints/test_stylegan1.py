"""StyleGAN in two layouts: the same pictures as a second writing of its maths."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import pyfacelat
from pyfacelat import checkpoints, zoo
from pyfacelat.checkpoints import expected_tensors
from pyfacelat.checkpoints.inspecting import inspect
from pyfacelat.errors import CheckpointError
from pyfacelat.nets.stylegan1 import StyleGAN1, StyleGAN1Config
from pyfacelat.nets.stylegan2 import Generator
from tests.nets import plain_stylegan1 as plain

from . import tf_writer

WIDTHS = {4: 8, 8: 7, 16: 6, 32: 5, 64: 4, 128: 3, 256: 2}


def save(path: Path, state: dict[str, Any], zipped: bool = True) -> Path:
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    return path


def random_ws(net: Any, count: int = 2) -> torch.Tensor:
    random = torch.Generator().manual_seed(4)
    return torch.randn(count, net.num_ws, net.w_dim, dtype=torch.float64, generator=random)


OFFICIAL: dict[str, Any] = {
    "num_channels": 3,
    "label_size": 0,
    "mapping_layers": 3,
    "style_mixing_prob": 0.9,
    "truncation_psi": 0.7,
    "blur_filter": [1, 2, 1],
    "structure": "auto",
}


def official(s: dict[str, Any], size: int, protocol: int = 3, **options: Any) -> bytes:
    """(G, D, Gs) as in NVIDIA's own pickles of 2019."""
    parts: dict[str, dict[str, Any]] = {"": {}, "mapping": {}, "synthesis": {}}
    for name, value in s.items():
        part = "" if name == "dlatent_avg" else "mapping" if name[:5] == "Dense" else "synthesis"
        parts[part][name] = value.numpy() if value.ndim else value.numpy()[()]
    network = ({**OFFICIAL, "resolution": size, **options}, parts)
    d: tuple[Any, Any] = ({"resolution": size}, {"": {"lod": 0.0}})
    return tf_writer.dump([network, d, network], version=3, protocol=protocol)


@pytest.mark.parametrize("size", [4, 16, 256])
@pytest.mark.parametrize("layout", ["lernapparat", "genforce", "official"])
def test_outputs_are_those_of_the_original(size: int, layout: str, tmp_path: Path) -> None:
    s = plain.weights(size, WIDTHS)
    state = plain.lernapparat(s, size, average=True)
    if layout == "genforce":
        state = plain.genforce(s, size)
    path = save(tmp_path / "stylegan.pt", state, zipped=layout == "genforce")
    if layout == "official":
        path.write_bytes(official(s, size))
    net = zoo.load_generator(path, dtype=torch.float64)
    assert isinstance(net, StyleGAN1) and isinstance(net, Generator)
    assert (net.img_resolution, net.z_dim, net.w_dim) == (size, 6, 7)
    assert net.num_ws == 2 * len(plain.resolutions(size)) and not net.training
    assert torch.equal(net.mapping.w_avg, s["dlatent_avg"].double())

    z = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    w = plain.mapping(plain.double(s), z)
    # The bias of the mapping is divided in float32.
    torch.testing.assert_close(net.mapping(z)[:, 0], w, rtol=1e-6, atol=1e-6)
    psi = net.mapping(z, truncation_psi=0.7, truncation_cutoff=1)
    average = s["dlatent_avg"].double()
    torch.testing.assert_close(psi[:, 0], average + 0.7 * (w - average), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(psi[:, 1], w, rtol=1e-6, atol=1e-6)

    ws = random_ws(net)
    for noise in (True, False) if layout != "lernapparat" else (False,):
        mode = "const" if noise else "none"
        expected = plain.synthesize(plain.double(s), size, ws, noise)
        found = net.synthesis(ws, noise_mode=mode)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_both_layouts_give_the_same_picture(tmp_path: Path) -> None:
    s = plain.weights(128, WIDTHS)
    first = zoo.load_generator(save(tmp_path / "a.pt", plain.lernapparat(s, 128)))
    second = zoo.load_generator(save(tmp_path / "b.pth", plain.genforce(s, 128)))
    maps = {
        name: s[f"noise{i}"][0, 0] for i, name in enumerate(first.noise_names())
    }  # the first layout has none
    ws = random_ws(first).float()
    image = first.synthesis(ws, noise=maps)
    assert torch.equal(image, second.synthesis(ws))
    assert first.noise_names() == second.noise_names() and len(maps) == first.num_ws


def test_noise_that_is_not_in_the_file(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", plain.lernapparat(plain.weights(16, WIDTHS), 16))
    first, second = checkpoints.read(path), checkpoints.read(path)
    name = "synthesis.b16.conv0.noise_const"
    assert torch.equal(first.tensors[name], second.tensors[name])
    assert "drawn with seed 0" in first.metadata["noise"]
    assert first.config["w_avg_beta"] is None
    net = zoo.load_generator(path)
    with pytest.raises(ValueError, match="truncation_psi"):
        net.mapping(torch.zeros(1, 6), truncation_psi=0.5)


def test_gradients_reach_latents_and_noise(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", plain.genforce(plain.weights(8, WIDTHS), 8))
    net = zoo.load_generator(path, dtype=torch.float64)
    ws = random_ws(net, 1).requires_grad_()
    name, (height, width) = next(iter(net.noise_names().items()))
    noise = torch.randn(height, width, dtype=torch.float64, requires_grad=True)
    inputs = (ws, noise)
    assert torch.autograd.gradcheck(lambda w, n: net.synthesis(w, noise={name: n}), inputs)


def test_a_batch_is_its_items(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", plain.genforce(plain.weights(16, WIDTHS), 16))
    net = zoo.load_generator(path, dtype=torch.float64)
    ws = random_ws(net, 3)
    together = net.synthesis(ws)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], net.synthesis(ws[i : i + 1]))


def test_native_round_trip_and_inspection(tmp_path: Path) -> None:
    source = save(tmp_path / "a.pth", plain.genforce(plain.weights(16, WIDTHS), 16))
    checkpoints.convert(source, tmp_path / "a.safetensors")
    first, second = zoo.load_generator(source), zoo.load_generator(tmp_path / "a.safetensors")
    assert first.config == second.config
    states = first.state_dict(), second.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[1][name], value) for name, value in states[0].items())
    with pytest.raises(CheckpointError, match="only generators can be written|stylegan1"):
        checkpoints.convert(source, tmp_path / "b.pt")
    part = inspect(source).parts[0]
    assert part.kind == "stylegan1-generator" and part.facts["resolution"] == 16
    assert part.facts["rows of w+"] == 6 and part.facts["truncation"] is True


@pytest.mark.parametrize("changes", [{}, {"use_noise": False}, {"w_avg_beta": None}])
def test_the_table_of_names_is_the_network(changes: dict[str, Any]) -> None:
    options: dict[str, Any] = {"img_resolution": 16, "channel_max": 6, "z_dim": 5, "w_dim": 4}
    config = StyleGAN1Config(**options, num_mapping_layers=2, **changes)
    found = {name: tuple(value.shape) for name, value in StyleGAN1(config).state_dict().items()}
    assert expected_tensors("stylegan1-generator", dataclasses.asdict(config)) == found


@pytest.mark.parametrize(
    "changes",
    [
        {"c_dim": 1},
        {"architecture": "skip"},
        {"conv_clamp": 1.0},
        {"resample_filter": (1, 3, 3, 1)},
    ],
)
def test_what_stylegan_has_no_choice_in(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(changes))}: expected"):
        StyleGAN1Config(**changes)


@pytest.mark.parametrize(
    ("layout", "change", "reason"),
    [
        ("lernapparat", {"g_synthesis.torgb.bias": None}, r"torgb\.bias: is missing"),
        ("lernapparat", {"stray": torch.zeros(1)}, "does not imply"),
        ("lernapparat", {"g_mapping.dense0.weight": torch.zeros(9)}, "expected 2 axes"),
        ("lernapparat", {"g_synthesis.blocks.4x4.conv.weight": None}, "every StyleGAN of this"),
        (
            "lernapparat",
            {"g_synthesis.blocks.8x8.conv0_up.intermediate.kernel": torch.ones(1, 1, 3, 3)},
            "not the blur",
        ),
        ("genforce", {"synthesis.lod": torch.tensor(2.0)}, "has not grown"),
        ("genforce", {"synthesis.layer1.epilogue.apply_noise.noise": None}, "is missing"),
        ("genforce", {"synthesis.layer2.blur.kernel": torch.zeros(1, 1, 3, 3)}, "expected \\[7"),
        ("genforce", {"synthesis.output1.bias": torch.full((3,), torch.nan)}, "not finite"),
        ("genforce", {"synthesis.output1.bias": torch.zeros(3, dtype=torch.int64)}, "dtype"),
    ],
)
def test_refusals(layout: str, change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    s = plain.weights(8, WIDTHS)
    state = plain.lernapparat(s, 8) if layout == "lernapparat" else plain.genforce(s, 8)
    state = {k: v for k, v in {**state, **change}.items() if v is not None}
    with pytest.raises(CheckpointError, match=reason):
        checkpoints.read(save(tmp_path / "a.pt", state))


@pytest.mark.parametrize("average", [True, False])
def test_it_can_be_projected_into(average: bool, tmp_path: Path) -> None:
    widths = {4: 8, 8: 8, 16: 6, 32: 4}
    s = plain.weights(32, widths)
    path = save(tmp_path / "a.pt", plain.lernapparat(s, 32, average=average))
    target = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    result = pyfacelat.project(
        target,
        torch.rand(68, 2, generator=torch.Generator().manual_seed(2)) * 32,
        network=str(path),
        preset="reference",
        perceptual="sample",
        landmarker="sample",
        steps=3,
    )
    assert result.ws.shape == (1, 8, 7) and len(result.noise) == 8
    assert bool(torch.isfinite(result.ws).all())
    result.save(tmp_path / "out")
    assert (tmp_path / "out/projected_w.npz").exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_official_pickles(protocol: int, tmp_path: Path) -> None:
    s = plain.weights(128, WIDTHS)
    path = tmp_path / "karras2019stylegan-ffhq.pkl"
    path.write_bytes(official(s, 128, protocol))
    found = checkpoints.read(path)
    other = checkpoints.read(save(tmp_path / "a.pth", plain.genforce(s, 128)))
    assert found.config == other.config and found.metadata["producer"] == "NVIDIA StyleGAN"
    assert all(torch.equal(found.tensors[name], value) for name, value in other.tensors.items())
    assert inspect(path).parts[0].facts["resolution"] == 128
    with pytest.raises(CheckpointError, match="a discriminator of StyleGAN"):
        checkpoints.read(path, part="discriminator")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"resolution": 16}, r"resolution: is 16, the variables say 8"),
        ({"label_size": 3}, "label_size: is 3; only 0"),
        ({"fused_scale": True}, "fused_scale: is True; only auto"),
        ({"blur_filter": None}, "blur_filter"),
        ({"secret": 1}, "unknown option"),
    ],
)
def test_official_options(options: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "g.pkl"
    path.write_bytes(official(plain.weights(8, WIDTHS), 8, **options))
    with pytest.raises(CheckpointError, match=reason):
        checkpoints.read(path)


def test_a_number_beyond_float32(tmp_path: Path) -> None:
    state = {**plain.weights(8, WIDTHS), "lod": torch.tensor(1e300, dtype=torch.float64)}
    path = tmp_path / "g.pkl"
    path.write_bytes(official(state, 8))
    with pytest.raises(CheckpointError, match=r"lod: is .* beyond the range of float32"):
        checkpoints.read(path)


def test_other_parts_are_not_there(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", plain.genforce(plain.weights(8, WIDTHS), 8))
    with pytest.raises(CheckpointError, match="and no discriminator"):
        checkpoints.read(path, part="discriminator")
