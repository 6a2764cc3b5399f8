"""`inspect` says what the readers would read, and makes no tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyfacelat import checkpoints
from pyfacelat.checkpoints import Source, read_source, write_safetensors
from pyfacelat.checkpoints.inspecting import inspect
from pyfacelat.cli import main
from pyfacelat.errors import CheckpointError
from tests.nets import plain_rosinality

from . import tf_writer as tf
from .conftest import plain, small_discriminator, small_generator
from .nvidia_writer import NvidiaFile


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of every kind that holds a generator."""
    folder = tmp_path_factory.mktemp("inspect")
    net, judge = small_generator(c_dim=3, conv_clamp=256.0, num_fp16_res=2), small_discriminator()
    both = {"G_ema": ("generator", net), "D": ("discriminator", judge)}
    contents: dict[str, Any] = {
        "ada.pkl": NvidiaFile(3).dump(both),
        "sg3.pkl": NvidiaFile(4, era="sg3").dump({"G_ema": ("generator", net)}),
        "pti.pt": NvidiaFile(2).torch_save(("generator", net)),
        "tf.pkl": tf.dump([(tf.SMALL, tf.generator_variables(tf.SMALL))]),
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    state = plain_rosinality.generator_state(16)
    torch.save({"g_ema": state, "latent_avg": torch.zeros(8)}, folder / "rosinality.pt")
    kind = "stylegan2-generator"
    write_safetensors(folder / "own.safetensors", kind, plain(net.config), net.state_dict())
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize(
    "name", ["ada.pkl", "sg3.pkl", "pti.pt", "tf.pkl", "rosinality.pt", "own.safetensors"]
)
def test_it_agrees_with_the_reader(name: str, files: dict[str, Path]) -> None:
    summary, found = inspect(files[name]), checkpoints.read(files[name])
    assert summary.readable and summary.nbytes == files[name].stat().st_size
    part = summary.parts[0]
    assert (part.kind, part.config, part.metadata) == (found.kind, found.config, found.metadata)
    assert part.tensors == len(found.tensors) and part.dtypes == {"float32": part.tensors}
    assert part.values == sum(tensor.numel() for tensor in found.tensors.values())
    assert part.nbytes == 4 * part.values
    assert part.facts["resolution"] == 16 and part.facts["truncation"] is True
    assert part.facts["rows of w+"] == 6
    others = {"discriminator", "encoder"} - {p.part for p in summary.parts}
    if name != "own.safetensors":
        assert summary.refused.keys() == others
    json.dumps(summary.refused)


@pytest.mark.parametrize(
    "name", ["ada.pkl", "pti.pt", "tf.pkl", "rosinality.pt", "own.safetensors"]
)
def test_no_tensor_has_data(name: str, files: dict[str, Path]) -> None:
    whole, bare = (
        read_source(Source.open(files[name], values=values)).tensors for values in (True, False)
    )
    assert {k: (v.shape, v.dtype) for k, v in whole.items()} == {
        k: (v.shape, v.dtype) for k, v in bare.items()
    }
    # Filters are made here, and single numbers are no arrays in the files of TensorFlow's era.
    read = {k: v for k, v in bare.items() if v.ndim and not k.endswith("resample_filter")}
    assert read and all(v.is_meta for v in read.values())


def test_parts_of_a_file(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(files["ada.pkl"])]) == 0
    out = capsys.readouterr().out
    for words in (
        "pickle, protocol 3",
        "stylegan2-generator, by NVIDIA stylegan2-ada-pytorch",
        "stylegan2-discriminator",
        "label classes      3",
        "conv clamp         256.0",
        "truncation         yes",
        "no encoder: holds networks of StyleGAN",
    ):
        assert words in out
    assert main(["inspect", str(files["ada.pkl"]), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["readable"] and content["parts"][0]["config"]["c_dim"] == 3


def test_producers(files: dict[str, Path]) -> None:
    producers = {
        name: inspect(path).parts[0].metadata.get("producer") for name, path in files.items()
    }
    assert producers == {
        "ada.pkl": "NVIDIA stylegan2-ada-pytorch",
        "sg3.pkl": "NVIDIA stylegan3 (StyleGAN2)",
        "pti.pt": "NVIDIA stylegan2-ada-pytorch, saved with torch.save",
        "tf.pkl": "NVIDIA StyleGAN2 for TensorFlow",
        "rosinality.pt": "rosinality stylegan2-pytorch",
        "own.safetensors": None,
    }


def test_latents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "w.npz", w=np.zeros((1, 18, 512), np.float32))
    torch.save({"a.png": torch.zeros(512)}, tmp_path / "w.pt")
    assert main(["inspect", str(tmp_path / "w.npz")]) == 0
    assert "w                  [1, 18, 512]" in capsys.readouterr().out
    summary = inspect(tmp_path / "w.pt")
    assert summary.parts[0].facts == {"a.png": [512]} and not summary.refused


class Foreign:
    """A network in NVIDIA's wrapping with other tensors."""

    def __init__(self, net: Any, rename: dict[str, str]) -> None:
        self.config, self.net, self.rename = net.config, net, rename

    def state_dict(self) -> dict[str, Any]:
        state = {}
        for name, value in self.net.state_dict().items():
            for old, new in self.rename.items():
                name = name.replace(old, new)
            state[name] = value
        return state


@pytest.mark.parametrize(
    ("rename", "reason"),
    [
        ({"synthesis.b4.const": "synthesis.input.weight"}, "StyleGAN3 generator"),
        ({"synthesis.": "backbone.synthesis."}, "EG3D generator"),
        ({"synthesis.b4.const": "synthesis.b4.tensor"}, "class 'Generator' with .* no synthesis"),
    ],
)
def test_networks_that_are_not_run(rename: dict[str, str], reason: str, tmp_path: Path) -> None:
    net: Any = Foreign(small_generator(img_resolution=8), rename)
    path = tmp_path / "x.pkl"
    file = NvidiaFile(4)
    try:
        data = file.dump({"G_ema": ("generator", net)})
    except KeyError:
        pytest.fail("the writer knows these names")
    path.write_bytes(data)
    summary = inspect(path)
    assert not summary.readable
    with pytest.raises(CheckpointError, match=reason):
        checkpoints.read(path)
    assert main(["inspect", str(path)]) == 5


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"\x89PNG\r\n\x1a\n", "is an image (PNG)"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x93NUMPY\x01\x00", "half|bytes|numpy"),
        (b"\0" * 64, "of no known format"),
    ],
)
def test_other_files(
    start: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(start + bytes(600))
    assert main(["inspect", str(path)]) == 5
    out = capsys.readouterr().out
    assert any(word in out for word in words.split("|"))
    assert main(["inspect", str(tmp_path / "gone.pkl")]) == 5


# convert


def test_convert_to_rosinality_and_back(files: dict[str, Path], tmp_path: Path) -> None:
    net = small_generator(z_dim=11)
    own, theirs, back = (tmp_path / n for n in ("a.safetensors", "a.pt", "b.safetensors"))
    write_safetensors(own, "stylegan2-generator", plain(net.config), net.state_dict())
    assert main(["convert", str(own), str(theirs)]) == 0
    assert main(["convert", str(theirs), str(back)]) == 0
    first, last = checkpoints.read(own), checkpoints.read(back)
    assert all(torch.equal(last.tensors[k], v) for k, v in first.tensors.items())
    assert main(["convert", str(files["ada.pkl"]), str(theirs)]) == 5  # conditional
    assert main(["convert", str(own), str(theirs), "--half"]) == 2
    assert main(["convert", str(own), str(back), "--part", "G"]) == 2
    assert main(["convert", str(files["ada.pkl"]), str(back), "--part", "discriminator"]) == 0
    assert checkpoints.read(back).kind == "stylegan2-discriminator"


def test_what_a_conversion_loses_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = small_generator(conv_clamp=256.0)
    own, theirs = tmp_path / "a.safetensors", tmp_path / "a.pt"
    write_safetensors(own, "stylegan2-generator", plain(net.config), net.state_dict())
    assert main(["convert", str(own), str(theirs)]) == 0
    assert "note: the clamp of activations" in capsys.readouterr().out


def test_convert_latents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ws = torch.randn(14, 512)
    many, one, out = tmp_path / "w.pt", tmp_path / "one.pt", tmp_path / "w.npz"
    torch.save({"a": ws, "b": ws + 1}, many)
    torch.save(ws[0], one)
    assert main(["convert", str(many), str(out), "--name", "b"]) == 0
    assert "w [1, 14, 512]" in capsys.readouterr().out
    with np.load(out, allow_pickle=False) as file:
        np.testing.assert_array_equal(file["w"], ws[None] + 1)
    assert main(["convert", str(many), str(out)]) == 5
    assert main(["convert", str(one), str(out)]) == 2
    assert "18 at 1024 px" in capsys.readouterr().err
    assert main(["convert", str(one), str(out), "--rows", "14"]) == 0
    with np.load(out, allow_pickle=False) as file:
        np.testing.assert_array_equal(file["w"], ws[0].expand(1, 14, 512))
    assert main(["convert", str(one), str(tmp_path / "x.safetensors"), "--rows", "14"]) == 2
    assert main(["convert", str(one), str(out), "--rows", "14", "--half"]) == 2
    assert main(["convert", str(many), str(out), "--name", "a", "--rows", "3"]) == 5
