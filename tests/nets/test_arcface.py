"""ArcFace's three variants against their plain formulation, in the names of the published files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from pyfacelat import checkpoints, zoo
from pyfacelat.errors import CheckpointError
from pyfacelat.nets.arcface import ArcFace, ArcFaceConfig

from ..tolerances import assert_close, l2_error
from .plain_irse import Random, State, body_state, norm, plain_body

SMALL = {"blocks": (2, 1, 2), "widths": (6, 8, 10), "input_size": 32, "embed_dim": 12}


def arcface_state(squeeze: bool) -> State:
    out = body_state(SMALL["blocks"], SMALL["widths"], squeeze)
    out.norm("output_layer.0", 10)
    out.dense("output_layer.3", 10 * 4 * 4, 12)
    out.norm("output_layer.4", 12)
    return out.state


def iresnet_state() -> State:
    out = Random()
    out.conv("conv1", 3, 6, 3)
    out.norm("bn1", 6)
    out.slopes("prelu", 6)
    below = 6
    for stage, (count, width) in enumerate(zip((2, 1, 2), (6, 8, 10), strict=True)):
        for index in range(count):
            unit = f"layer{stage + 1}.{index}"
            out.norm(f"{unit}.bn1", below)
            out.conv(f"{unit}.conv1", below, width, 3)
            out.norm(f"{unit}.bn2", width)
            out.slopes(f"{unit}.prelu", width)
            out.conv(f"{unit}.conv2", width, width, 3)
            out.norm(f"{unit}.bn3", width)
            if index == 0:
                out.conv(f"{unit}.downsample.0", below, width, 1)
                out.norm(f"{unit}.downsample.1", width)
            below = width
    out.norm("bn2", 10)
    out.dense("fc", 10 * 4 * 4, 12)
    out.norm("features", 12)
    return out.state


def plain_arcface(state: State, x: Tensor) -> Tensor:
    x = norm(state, "output_layer.0", plain_body(state, x, SMALL["blocks"])[-1])
    x = F.linear(x.flatten(1), state["output_layer.3.weight"], state["output_layer.3.bias"])
    x = norm(state, "output_layer.4", x)
    return x / x.norm(dim=1, keepdim=True)


def plain_iresnet(state: State, x: Tensor) -> Tensor:
    x = norm(state, "bn1", F.conv2d(x, state["conv1.weight"], padding=1))
    x = F.prelu(x, state["prelu.weight"])
    for stage, count in enumerate((2, 1, 2)):
        for index in range(count):
            unit, stride = f"layer{stage + 1}.{index}", 1 if index else 2
            y = norm(state, f"{unit}.bn1", x)
            y = norm(state, f"{unit}.bn2", F.conv2d(y, state[f"{unit}.conv1.weight"], padding=1))
            y = F.prelu(y, state[f"{unit}.prelu.weight"])
            y = F.conv2d(y, state[f"{unit}.conv2.weight"], padding=1, stride=stride)
            y = norm(state, f"{unit}.bn3", y)
            if index == 0:
                x = F.conv2d(x, state[f"{unit}.downsample.0.weight"], stride=stride)
                x = norm(state, f"{unit}.downsample.1", x)
            x = x + y
    x = norm(state, "bn2", x).flatten(1)
    x = norm(state, "features", F.linear(x, state["fc.weight"], state["fc.bias"]))
    return x / x.norm(dim=1, keepdim=True)


VARIANTS: dict[str, Any] = {
    "ir": (arcface_state(False), plain_arcface),
    "ir-se": (arcface_state(True), plain_arcface),
    "iresnet": (iresnet_state(), plain_iresnet),
}


def write(path: Path, state: State, container: str) -> Path:
    if container == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=container == "zip")
    return path


@pytest.mark.parametrize("container", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_files_become_networks(variant: str, container: str, tmp_path: Path) -> None:
    state, plain = VARIANTS[variant]
    net = zoo.load_identity(write(tmp_path / "x.pth", state, container))
    reduction = 2 if variant == "ir-se" else 16
    assert net.config == ArcFaceConfig(**SMALL, variant=variant, reduction=reduction)
    assert (net.input_size, net.embed_dim) == (32, 12)
    assert not any(p.requires_grad for p in net.parameters()) and not net.training
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    exact = {k: v.double() if v.is_floating_point() else v for k, v in state.items()}
    truth, same = plain(exact, x.double()), plain(state, x)
    found = net(x)
    assert_close(found, same, truth, variant)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    assert_close(net.folded()(x), same, truth, f"{variant}, folded")
    # Batches do not mix.
    assert_close(net(x[1:2]), same[1:2], truth[1:2], f"{variant}, alone")


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_to_the_image(variant: str, tmp_path: Path) -> None:
    state, plain = VARIANTS[variant]
    net = zoo.load_identity(write(tmp_path / "x.pth", state, "zip"), dtype=torch.float64)
    exact = {k: v.double() if v.is_floating_point() else v for k, v in state.items()}
    grads = []
    for function in (net, net.folded(), lambda x: plain(exact, x)):
        x = torch.linspace(-1, 1, 2 * 3 * 32 * 32, dtype=torch.float64).sin()
        x = x.reshape(2, 3, 32, 32).requires_grad_()
        (function(x) * torch.linspace(-1, 1, 12)).sum().backward()
        grads.append(x.grad)
    for grad in grads[:2]:
        assert l2_error(grad, grads[2]) < 1e-11


@pytest.mark.parametrize(
    ("variant", "numbers"), [("ir", 43_574_976), ("ir-se", 43_797_696), ("iresnet", 43_590_848)]
)
def test_published_sizes(variant: str, numbers: int) -> None:
    """The 50-layer networks; squeezing adds 2 C^2 / 16 a unit, a second norm 2 C."""
    with torch.device("meta"):
        net = ArcFace(ArcFaceConfig(variant=variant))
    assert sum(p.numel() for p in net.parameters()) == numbers
    assert net.config.stage_ends == (2, 6, 20, 23)
    assert (net.input_size, net.embed_dim, net.config.final_size) == (112, 512, 7)


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state, _ = VARIANTS["ir-se"]
    path = tmp_path / "x.pth"

    def refuse(changed: State, match: str) -> None:
        torch.save(changed, path)
        with pytest.raises(CheckpointError, match=match):
            zoo.load_identity(path)

    refuse({k: v for k, v in state.items() if k != "body.3.res_layer.4.bias"},
           r"body\.3\.res_layer\.4\.bias: is missing")  # fmt: skip
    refuse({**state, "body.9.res_layer.0.weight": torch.ones(3)}, r"body\.9\.res_layer.*not imply")
    refuse({**state, "output_layer.3.weight": torch.ones(12, 80)}, "no square map of 10 channels")
    refuse({**state, "output_layer.3.weight": torch.ones(12)}, "is not ArcFace's")
    refuse({**state, "body.0.res_layer.5.fc1.weight": torch.ones(9, 6, 1, 1)}, "squeezes 6")
    refuse({**state, "input_layer.2.weight": torch.ones(5)}, r"input_layer\.2\.weight: has shape")
    bad = state["body.0.res_layer.1.weight"].clone()
    bad[0, 0, 0, 0] = float("nan")
    refuse({**state, "body.0.res_layer.1.weight": bad}, "1 of 324 values are not finite")
    missing = {k: v for k, v in VARIANTS["iresnet"][0].items() if k != "layer2.0.prelu.weight"}
    refuse(missing, r"layer2\.0\.prelu\.weight: is missing")
    torch.save(nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(CheckpointError, match="not known here"):
        zoo.load_identity(path)


def test_native_files_and_names_of_data_parallel(tmp_path: Path) -> None:
    state, _ = VARIANTS["ir-se"]
    torch.save({f"module.{k}": v for k, v in state.items()}, tmp_path / "x.pth")
    checkpoints.convert(tmp_path / "x.pth", tmp_path / "x.safetensors")
    a, b = (zoo.load_identity(tmp_path / name) for name in ("x.pth", "x.safetensors"))
    assert a.config == b.config
    assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_config_and_images_are_checked() -> None:
    config = ArcFaceConfig(**SMALL)
    assert ArcFaceConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config
    for field, value in {
        "variant": "ir-152",
        "blocks": (3, 4),
        "widths": (0, 1, 2),
        "reduction": 0,
        "input_size": 36,
        "embed_dim": 0,
    }.items():
        with pytest.raises(ValueError, match=field):
            ArcFaceConfig(**{**SMALL, field: value})
    with pytest.raises(ValueError, match="reduction: expected at most"):
        ArcFaceConfig(**SMALL, variant="ir-se")
    net = ArcFace(config).eval()
    for shape in ((3, 32, 32), (1, 3, 32, 31), (1, 1, 32, 32)):
        with pytest.raises(ValueError, match=r"images: expected shape \[N, 3, 32, 32\]"):
            net(torch.zeros(shape))
