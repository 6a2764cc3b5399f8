"""e4e and pSp from files as their training scripts write them, against plain formulations."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyfacelat import checkpoints, zoo
from pyfacelat.errors import CheckpointError
from pyfacelat.nets.e4e import E4E, E4EConfig

from ..tolerances import assert_close
from . import plain_rosinality
from .plain_irse import State, body_state, plain_body

BLOCKS, WIDTHS, ROWS, W_DIM, SIZE = (1, 2, 1, 1), (4, 5, 6, 7), 8, 9, 32
# The first row that uses the finest level is 7.
SIDES = [2] * 3 + [4] * 4 + [8]


def encoder_state() -> State:
    out = body_state(BLOCKS, WIDTHS, squeeze=True)
    for row, side in enumerate(SIDES):
        below = WIDTHS[-1]
        for index in range(side.bit_length() - 1):
            out.conv(f"styles.{row}.convs.{2 * index}", below, W_DIM, 3, bias=True)
            below = W_DIM
        # Equalised learning rate: stored with unit variance.
        out.state[f"styles.{row}.linear.weight"] = out.normal(W_DIM, W_DIM)
        out.state[f"styles.{row}.linear.bias"] = out.normal(W_DIM)
    out.conv("latlayer1", WIDTHS[2], WIDTHS[3], 1, bias=True)
    out.conv("latlayer2", WIDTHS[1], WIDTHS[3], 1, bias=True)
    return out.state


def plain_codes(state: State, x: Tensor, relative: bool) -> Tensor:
    """The encoders as section 3 of pSp's and 4.1 of e4e's paper describe them."""
    units = plain_body(state, x, BLOCKS)
    c1, c2, c3 = units[2], units[3], units[4]

    def add(x: Tensor, y: Tensor, name: str) -> Tensor:
        y = F.conv2d(y, state[f"{name}.weight"], state[f"{name}.bias"])
        return F.interpolate(x, size=y.shape[2:], mode="bilinear", align_corners=True) + y

    p2 = add(c3, c2, "latlayer1")
    p1 = add(p2, c1, "latlayer2")
    rows = []
    for row, side in enumerate(SIDES):
        y = {2: c3, 4: p2, 8: p1}[side]
        for index in range(side.bit_length() - 1):
            name = f"styles.{row}.convs.{2 * index}"
            y = F.conv2d(y, state[f"{name}.weight"], state[f"{name}.bias"], stride=2, padding=1)
            y = torch.where(y > 0, y, 0.01 * y)
        weight, bias = (state[f"styles.{row}.linear.{part}"] for part in ("weight", "bias"))
        rows.append(y.flatten(1) @ (weight * W_DIM**-0.5).t() + bias)
    if relative:
        rows = [rows[0], *(rows[0] + delta for delta in rows[1:])]
    return torch.stack(rows, 1)


def content(**changes: Any) -> dict[str, Any]:
    """A checkpoint of e4e's coach for a 32 px generator."""
    decoder = plain_rosinality.generator_state(SIZE, dim=W_DIM)
    state = {f"encoder.{k}": v for k, v in encoder_state().items()}
    state |= {f"decoder.{k}": v for k, v in decoder.items()}
    opts = {
        "encoder_type": "Encoder4Editing",
        "stylegan_size": SIZE,
        "start_from_latent_avg": True,
        "exp_dir": pathlib.PosixPath("runs/one"),
        "device": torch.device("cuda", 0),
        "learning_rate": np.float64(1e-4),
        "keep_optimizer": False,
        "checkpoint_path": None,
        "delta_type": ["a", 1.5],
    }
    average = torch.randn(W_DIM, generator=torch.Generator().manual_seed(5))
    out = {"state_dict": state, "opts": opts, "latent_avg": average.repeat(ROWS, 1)}
    return {k: v for k, v in (out | changes).items() if v is not None}


def with_opts(**changes: Any) -> dict[str, Any]:
    opts = content()["opts"] | changes
    return {k: v for k, v in opts.items() if v != "absent"}


def save(path: Path, value: Any, zipped: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def images() -> Tensor:
    return torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", ["Encoder4Editing", "GradualStyleEncoder"])
def test_encoder(kind: str, zipped: bool, tmp_path: Path) -> None:
    relative = kind == "Encoder4Editing"
    file = content(opts=with_opts(encoder_type=kind))
    net = zoo.load_e4e(save(tmp_path / "e4e.pt", file, zipped))
    assert net.config == E4EConfig(
        blocks=BLOCKS, widths=WIDTHS, reduction=2, num_ws=ROWS, w_dim=W_DIM, input_size=SIZE,
        relative=relative,
    )  # fmt: skip
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    state = encoder_state()
    exact = {k: v.double() if v.is_floating_point() else v for k, v in state.items()}
    x = images()
    truth, same = plain_codes(exact, x.double(), relative), plain_codes(state, x, relative)
    assert truth.shape == (3, ROWS, W_DIM)
    assert_close(net.codes(x), same, truth, kind)
    assert torch.equal(net(x), net.codes(x) + file["latent_avg"])
    assert_close(net.folded().codes(x), same, truth, f"{kind}, folded")
    assert_close(net.codes(x[1:2]), same[1:2], truth[1:2], f"{kind}, alone")


def test_stages_of_training(tmp_path: Path) -> None:
    net = zoo.load_e4e(save(tmp_path / "e4e.pt", content()), dtype=torch.float64)
    x = images().double()
    everything = net.codes(x)
    for stage in range(ROWS + 1):
        codes = net.codes(x, stage)
        torch.testing.assert_close(codes[:, : stage + 1], everything[:, : stage + 1])
        for row in range(stage + 1, ROWS):
            assert torch.equal(codes[:, row], codes[:, 0])
    psp = save(tmp_path / "psp.pt", content(opts=with_opts(encoder_type="GradualStyleEncoder")))
    with pytest.raises(ValueError, match="stage: only e4e"):
        zoo.load_e4e(psp).codes(images(), 0)


def test_decoder(tmp_path: Path) -> None:
    path = save(tmp_path / "e4e.pt", content())
    net = zoo.load_generator(path, dtype=torch.float64)
    assert (net.img_resolution, net.num_ws, net.w_dim) == (SIZE, ROWS, W_DIM)
    assert torch.equal(net.mapping.w_avg, content()["latent_avg"][0].double())
    state = plain_rosinality.generator_state(SIZE, dim=W_DIM)
    ws = torch.randn(1, ROWS, W_DIM, dtype=torch.float64)
    expected = plain_rosinality.synthesize({k: v.double() for k, v in state.items()}, ws)
    torch.testing.assert_close(net.synthesis(ws), expected, rtol=1e-5, atol=1e-5)
    # The encoder's latents render.
    encoder = zoo.load_e4e(path, dtype=torch.float64)
    assert net.synthesis(encoder(images().double())).shape == (3, 3, SIZE, SIZE)


@pytest.mark.parametrize(
    ("average", "expected"),
    [
        (torch.arange(9.0), torch.arange(9.0).repeat(8, 1)),
        (torch.arange(18.0)[None, ::2], (torch.arange(9.0) * 2).repeat(8, 1)),
        (torch.arange(72.0).reshape(8, 9), torch.arange(72.0).reshape(8, 9)),
    ],
)
def test_shapes_of_the_average(average: Tensor, expected: Tensor, tmp_path: Path) -> None:
    path = save(tmp_path / "e4e.pt", content(latent_avg=average))
    assert torch.equal(zoo.load_e4e(path).latent_avg, expected)
    assert torch.equal(zoo.load_generator(path).mapping.w_avg, expected[0])


def test_training_checkpoints_and_other_options(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.randn(3))
    weight.grad = torch.ones(3)
    optimiser = torch.optim.Adam([weight])
    optimiser.step()
    more = {
        "opts": argparse.Namespace(**with_opts(start_from_latent_avg=False)),
        "latent_avg": None,
        "global_step": 10,
        "optimizer": optimiser.state_dict(),
        "best_val_loss": torch.tensor(0.25),
        "discriminator_state_dict": {"fc.weight": torch.ones(2, 2)},
    }
    file = content(**more)
    file["state_dict"] = {f"module.{k}": v for k, v in file["state_dict"].items()}
    net = zoo.load_e4e(save(tmp_path / "e4e.pt", file))
    assert float(net.latent_avg.abs().max()) == 0
    x = images()
    assert torch.equal(net(x), net.codes(x))


def test_native_files(tmp_path: Path) -> None:
    path = save(tmp_path / "e4e.pt", content())
    report = checkpoints.convert(path, tmp_path / "e4e.safetensors", part="encoder")
    assert report.kind == "e4e"
    a, b = zoo.load_e4e(path), zoo.load_e4e(tmp_path / "e4e.safetensors")
    assert a.config == b.config
    assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def changed_state(**changes: Any) -> dict[str, Any]:
    state = content()["state_dict"]
    for name, value in changes.items():
        state[name.replace("__", ".")] = value
    return {k: v for k, v in state.items() if v is not None}


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"

    def refuse(match: str, load: Any = zoo.load_e4e, **changes: Any) -> None:
        save(path, content(**changes))
        with pytest.raises(CheckpointError, match=match):
            load(path)

    refuse("opts.encoder_type: is an encoder of type 'Backbone",
           opts=with_opts(encoder_type="BackboneEncoder"))  # fmt: skip
    refuse("of type None; known are Encoder4Editing", opts=with_opts(encoder_type="absent"))
    refuse("of type a list", opts=with_opts(encoder_type=["Encoder4Editing"]))
    refuse("opts.stylegan_size: is 64, while the encoder has 8 rows",
           opts=with_opts(stylegan_size=64))  # fmt: skip
    refuse("start_from_latent_avg: is 1, not", opts=with_opts(start_from_latent_avg=1))
    refuse("opts: is 5, not a dict", opts=5)
    refuse("latent_avg: is missing, and opts say", latent_avg=None)
    refuse(r"latent_avg: has shape \[8, 8\]", latent_avg=torch.zeros(8, 8))
    refuse("latent_avg: is 'x', not a tensor", latent_avg="x")
    refuse(r"encoder\.styles\.4\.linear\.bias: is missing",
           state_dict=changed_state(encoder__styles__4__linear__bias=None))  # fmt: skip
    refuse(r"encoder\.\'extra\': a tensor that the config does not imply",
           state_dict=changed_state(encoder__extra=torch.ones(1)))  # fmt: skip
    refuse(r"encoder\.latent_avg: is a tensor that no encoder has",
           state_dict=changed_state(encoder__latent_avg=torch.ones(8, 9)))  # fmt: skip
    refuse("neither of the encoder nor", state_dict=changed_state(other__x=torch.ones(1)))
    refuse("is 7, not a tensor", state_dict=changed_state(encoder__latlayer1__bias=7))
    six = torch.ones(4, 6, 3, 3)
    refuse("ReStyle's six channels",
           state_dict=changed_state(encoder__input_layer__0__weight=six))  # fmt: skip
    refuse("ReStyle's encoders", state_dict=changed_state(encoder__latlayer1__weight=None))
    refuse(r"decoder\.style\.1\.bias.*missing", zoo.load_generator,
           state_dict=changed_state(decoder__style__1__bias=None))  # fmt: skip
    only = {k: v for k, v in content()["state_dict"].items() if k.startswith("encoder")}
    refuse("without a generator", zoo.load_generator, state_dict=only)
    refuse("without a discriminator", zoo.load_discriminator)
    save(path, {"g_ema": plain_rosinality.generator_state(8)})
    with pytest.raises(CheckpointError, match="and no encoder"):
        zoo.load_e4e(path)


@pytest.mark.parametrize(("size", "rows", "millions"), [(1024, 18, 267), (256, 14, 209)])
def test_published_sizes(size: int, rows: int, millions: int) -> None:
    with torch.device("meta"):
        net = E4E(E4EConfig(num_ws=rows))
    assert rows == 2 * (size.bit_length() - 1) - 2
    assert round(sum(p.numel() for p in net.parameters()) / 1e6) == millions
    assert [len(head.convs) for head in net.heads] == [4] * 3 + [5] * 4 + [6] * (rows - 7)
    assert net.config.stage_ends == (2, 6, 20, 23)


def test_config_and_images_are_checked() -> None:
    config = E4EConfig(blocks=BLOCKS, widths=WIDTHS, reduction=2, num_ws=4, input_size=32)
    assert E4EConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config
    for field, value in {"num_ws": 0, "w_dim": 0, "input_size": 48, "blocks": (1, 1)}.items():
        with pytest.raises(ValueError, match=field):
            E4EConfig(**{field: value})
    with pytest.raises(ValueError, match=r"images: expected shape \[N, 3, 32, 32\]"):
        E4E(config)(torch.zeros(1, 3, 64, 64))
