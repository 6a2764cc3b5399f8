"""NVIDIA's network pickles: what comes out is what went in, bit for bit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pyfacelat import checkpoints, zoo
from pyfacelat.errors import CheckpointError
from tests.nets import plain_stylegan2

from .conftest import plain, small_discriminator, small_generator
from .nvidia_writer import NvidiaFile

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "conditional": {"c_dim": 5, "embed_features": 7, "mapping_layer_features": 9},
    "no-noise": {"use_noise": False},
    "no-average": {"w_avg_beta": None},
    "fp16": {"num_fp16_res": 2, "conv_clamp": 256.0},
    "resnet": {"architecture": "resnet"},
    "orig": {"architecture": "orig"},
    "rgba-relu": {"img_channels": 4, "activation": "relu", "mapping_activation": "linear"},
    "lr": {"mapping_lr_multiplier": 0.5},
    "filter": {"resample_filter": (1.0, 2.0, 1.0)},
    "four": {"img_resolution": 4},
}


def load(path: Path, net: Any, data: bytes) -> Any:
    path.write_bytes(data)
    checkpoint = checkpoints.read(path)
    expected = net.state_dict()
    assert checkpoint.kind == "stylegan2-generator"
    assert checkpoint.config == plain(net.config)
    assert checkpoint.tensors.keys() == expected.keys()
    for name, value in expected.items():
        found = checkpoint.tensors[name]
        assert found.dtype == value.dtype and found.is_contiguous()
        assert torch.equal(found, value), name
    return zoo.load_generator(path)


@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip(variant: str, tmp_path: Path) -> None:
    net = small_generator(**VARIANTS[variant])
    channels_last = variant == "fp16"
    data = NvidiaFile(3, channels_last=channels_last).dump({"G_ema": ("generator", net)})
    loaded = load(tmp_path / "net.pkl", net, data)

    random = torch.Generator().manual_seed(3)
    z = torch.randn(2, net.z_dim, generator=random)
    c = torch.randn(2, net.c_dim, generator=random) if net.c_dim else None
    with torch.no_grad():
        ws = loaded.mapping(z, c)
        assert torch.equal(ws, net.mapping(z, c))
        # Freezing sums the squared weights beforehand, hence not bit for bit.
        torch.testing.assert_close(
            loaded.synthesis(ws), net.synthesis(ws), rtol=1e-5, atol=1e-5 * float(ws.std())
        )
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("numpy_one", [False, True])
@pytest.mark.parametrize("era", ["ada", "sg3"])
def test_every_protocol(
    protocol: int, numpy_one: bool, era: str, generator: Any, tmp_path: Path
) -> None:
    discriminator = small_discriminator()
    file = NvidiaFile(protocol, era=era, numpy_one=numpy_one, ordered=numpy_one)
    data = file.dump(
        {
            "G": ("generator", small_generator(img_resolution=8)),
            "D": ("discriminator", discriminator),
            "G_ema": ("generator", generator),
            "augment_pipe": None,
            "training_set_kwargs": {"class_name": "training.dataset.X", "path": "a.zip", "n": None},
        }
    )
    before = set(sys.modules)
    load(tmp_path / "net.pkl", generator, data)
    new = {name.split(".")[0] for name in set(sys.modules) - before}
    assert not {"torch_utils", "dnnlib", "training"} & new
    assert not [name for name in new if name.startswith("_imported_module")]
    if numpy_one:
        assert b"numpy.core" in data and b"numpy._core" not in data

    d = checkpoints.read(tmp_path / "net.pkl", part="discriminator")
    assert d.kind == "stylegan2-discriminator" and d.config == plain(discriminator.config)
    assert all(torch.equal(d.tensors[k], v) for k, v in discriminator.state_dict().items())


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "skip"},
        {"architecture": "orig", "activation": "relu"},
        {"c_dim": 3, "num_mapping_layers": 2, "cmap_dim": 6},
        {"mbstd_num_channels": 0},
        {"mbstd_group_size": None, "conv_clamp": 256.0, "num_fp16_res": 4},
    ],
)
def test_discriminators(changes: dict[str, Any], tmp_path: Path) -> None:
    net = small_discriminator(**changes)
    path = tmp_path / "d.pkl"
    path.write_bytes(NvidiaFile(4, channels_last=True).dump({"D": ("discriminator", net)}))
    loaded = zoo.load_discriminator(path)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in net.state_dict().items())
    if changes.get("mbstd_group_size", 4) is not None:
        assert plain(loaded.config) == {**plain(net.config), **(
            {"num_fp16_res": plain(loaded.config)["num_fp16_res"]}
        )}  # fmt: skip
    image = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    c = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)) if net.config.c_dim else None
    with torch.no_grad():
        assert torch.equal(loaded(image, c), net(image, c))


def test_a_bare_module_is_accepted(generator: Any, tmp_path: Path) -> None:
    load(tmp_path / "g.pkl", generator, NvidiaFile(4).dump(("generator", generator)))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_modules_saved_with_torch(
    protocol: int, zipped: bool, generator: Any, tmp_path: Path
) -> None:
    """PTI saves its tuned generator with torch.save(G); others put it into a dict."""
    before = set(sys.modules)
    file = NvidiaFile(protocol, channels_last=True, numpy_one=protocol == 2)
    for entries in (("generator", generator), {"G_ema": ("generator", generator), "D": None}):
        load(tmp_path / "model.pt", generator, file.torch_save(entries, zipped=zipped))
    found = checkpoints.read(tmp_path / "model.pt")
    assert found.metadata["format"] == ("torch-zip" if zipped else "torch-legacy")
    assert not [name for name in set(sys.modules) - before if "persistence" in name]
    with pytest.raises(CheckpointError, match="is a discriminator|has no D|no StyleGAN2 disc"):
        checkpoints.read(tmp_path / "model.pt", part="discriminator")


def plainly(net: Any, z: Any, c: Any) -> Any:
    """What the network computes by the formulas of the paper, in float64."""
    state = {name: value.double() for name, value in net.state_dict().items()}
    cfg = net.config
    layers = (cfg.num_mapping_layers, cfg.mapping_activation, cfg.mapping_lr_multiplier)
    w = plain_stylegan2.mapping(state, "mapping", z, c, *layers)
    ws = w[:, None].repeat(1, net.num_ws, 1)
    return plain_stylegan2.synthesize(cfg, state, ws)


@pytest.mark.parametrize("variant", ["plain", "conditional", "no-noise", "fp16", "resnet", "orig"])
@pytest.mark.parametrize("container", ["pickle", "torch"])
def test_outputs_are_those_of_the_original(variant: str, container: str, tmp_path: Path) -> None:
    net = small_generator(**VARIANTS[variant])
    file = NvidiaFile(3, channels_last=variant == "fp16", era="sg3")
    path = tmp_path / "net.pkl"
    write = file.dump if container == "pickle" else file.torch_save
    path.write_bytes(write(("generator", net)))
    loaded = zoo.load_generator(path, dtype=torch.float64)
    random = torch.Generator().manual_seed(3)
    z = torch.randn(2, net.z_dim, generator=random, dtype=torch.float64)
    c = torch.randn(2, net.c_dim, generator=random, dtype=torch.float64) if net.c_dim else None
    expected = plainly(net, z, c)
    tolerance = 1e-6 * float(expected.std())  # filters are float32 in the file
    torch.testing.assert_close(loaded(z, c), expected, rtol=1e-6, atol=tolerance)


def test_positional_constructor_arguments(generator: Any, tmp_path: Path) -> None:
    c = generator.config
    options = {"channel_base": c.channel_base, "channel_max": c.channel_max}
    args = (c.z_dim, c.c_dim, c.w_dim, c.img_resolution, c.img_channels, {"num_layers": 3}, options)
    data = NvidiaFile(4).dump(
        (
            "generator",
            generator,
        )
    )
    file = NvidiaFile(4)
    original = file._network

    def with_args(kind: str, net: Any) -> Any:
        return original(kind, net, _init_args=args, _init_kwargs={})

    file._network = with_args  # type: ignore[method-assign]
    assert file.dump(("generator", generator)) != data
    load(tmp_path / "g.pkl", generator, file.dump(("generator", generator)))


def test_layer_attributes_outrank_defaults(tmp_path: Path) -> None:
    """A file of the StyleGAN3 repository does not name its default clamp of 256; its layers do."""
    net = small_generator(conv_clamp=256.0, w_avg_beta=0.998)
    file = NvidiaFile(4, era="sg3")
    original = file._network

    def silent(kind: str, net: Any) -> Any:
        c = net.config
        names = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "channel_base")
        kwargs = {name: getattr(c, name) for name in (*names, "channel_max")}
        return original(kind, net, _init_kwargs={**kwargs, "mapping_kwargs": {"num_layers": 3}})

    file._network = silent  # type: ignore[method-assign]
    path = tmp_path / "g.pkl"
    path.write_bytes(file.dump({"G_ema": ("generator", net)}))
    config = checkpoints.read(path).config
    assert config["conv_clamp"] == 256.0 and config["w_avg_beta"] == 0.998


def changed(net: Any, **changes: Any) -> bytes:
    """A file whose root module has other attributes than its tensors."""
    file = NvidiaFile(4)
    original = file._network
    file._network = lambda kind, net: original(kind, net, **changes)  # type: ignore[method-assign]
    return file.dump({"G_ema": ("generator", net)})


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({"img_resolution": 12}, "power of two"),
        ({"img_resolution": 1 << 40}, "power of two"),
        ({"img_resolution": 8}, "constructor was called"),
        ({"z_dim": "512"}, "an integer from"),
        ({"w_dim": 0}, "an integer from"),
        ({"w_dim": True}, "an integer from"),
        ({"c_dim": -1}, "an integer from"),
        ({"img_channels": 1000}, "an integer from"),
        ({"secret_option": 1}, "unknown option"),
        ({"mapping_kwargs": {"num_layers": 10**9}}, "an integer from"),
        ({"mapping_kwargs": {"num_layers": 2}}, "does not imply"),
        ({"mapping_kwargs": {"num_layers": 4}}, "is missing"),
        ({"mapping_kwargs": []}, "expected a dict"),
        ({"mapping_kwargs": {"lr_multiplier": float("nan")}}, "a number from"),
        ({"mapping_kwargs": {"activation": "sin"}}, "one of"),
        ({"synthesis_kwargs": {"channel_max": 13}}, "the config implies"),
        ({"synthesis_kwargs": {"channel_base": 1 << 60}}, "an integer from"),
        ({"synthesis_kwargs": {"conv_clamp": -1}}, "a number from"),
        ({"synthesis_kwargs": {"resample_filter": [1.0] * 100}}, "1 to 7 numbers"),
        ({"synthesis_kwargs": {"resample_filter": [1, -1]}}, "1 to 7 numbers"),
        ({"synthesis_kwargs": {"kernel_size": 5}}, "kernels of 3"),
        ({"synthesis_kwargs": {"magnitude_ema_beta": 0.5}}, "unknown option"),
    ],
)
def test_options_are_checked(
    kwargs: dict[str, Any], reason: str, generator: Any, tmp_path: Path
) -> None:
    c = generator.config
    base: dict[str, Any] = {
        name: getattr(c, name) for name in ("z_dim", "c_dim", "w_dim", "img_channels")
    }
    base["img_resolution"] = c.img_resolution
    base["mapping_kwargs"] = {"num_layers": 3}
    synthesis = {"channel_base": c.channel_base, "channel_max": c.channel_max}
    merged = {**base, "synthesis_kwargs": synthesis, **kwargs}
    if isinstance(kwargs.get("synthesis_kwargs"), dict):
        merged["synthesis_kwargs"] = {**synthesis, **kwargs["synthesis_kwargs"]}
    path = tmp_path / "g.pkl"
    path.write_bytes(changed(generator, _init_kwargs=merged))
    with pytest.raises(CheckpointError, match=reason) as caught:
        checkpoints.read(path)
    assert caught.value.file == str(path)
    assert "G_ema" in caught.value.place


def test_contradicting_layers_are_refused(generator: Any, tmp_path: Path) -> None:
    file = NvidiaFile(4)
    original = file._module

    def one_differs(name: str, members: Any, attributes: Any) -> Any:
        if name == "ToRGBLayer" and members["weight"].shape[1] == 8:
            attributes = {**attributes, "conv_clamp": 7.0}
        return original(name, members, attributes)

    file._module = one_differs  # type: ignore[method-assign]
    path = tmp_path / "g.pkl"
    path.write_bytes(file.dump({"G_ema": ("generator", generator)}))
    with pytest.raises(CheckpointError, match="layers agree"):
        checkpoints.read(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_must_be_finite(value: float, tmp_path: Path) -> None:
    net = small_generator(img_resolution=4)
    net.synthesis.b4.const.data[1, 2, 3] = value
    path = tmp_path / "g.pkl"
    path.write_bytes(NvidiaFile(4).dump({"G_ema": ("generator", net)}))
    with pytest.raises(CheckpointError, match=r"synthesis\.b4\.const: 1 of \d+ values"):
        checkpoints.read(path)


def test_integer_weights_are_refused(tmp_path: Path) -> None:
    net = small_generator(img_resolution=4)
    net.mapping.w_avg = torch.zeros(11, dtype=torch.int64)
    path = tmp_path / "g.pkl"
    path.write_bytes(NvidiaFile(4).dump({"G_ema": ("generator", net)}))
    with pytest.raises(CheckpointError, match="not a floating-point"):
        checkpoints.read(path)


def test_half_precision_storage_is_loaded_as_float32(tmp_path: Path) -> None:
    net = small_generator(img_resolution=8).half()
    path = tmp_path / "g.pkl"
    path.write_bytes(NvidiaFile(4).dump({"G_ema": ("generator", net)}))
    assert checkpoints.read(path).tensors["synthesis.b4.const"].dtype == torch.float16
    loaded = zoo.load_generator(path)
    assert loaded.synthesis.b4.const.dtype == torch.float32
    assert torch.equal(loaded.synthesis.b4.const, net.synthesis.b4.const.float())
    assert zoo.load_generator(path, dtype=torch.float64).synthesis.b4.const.dtype == torch.float64


@pytest.mark.parametrize("key", ["epochs", "mapping_kwargs", "z_dim", "other"])
def test_exponential_options_are_never_walked(key: str, generator: Any, tmp_path: Path) -> None:
    """60 lists that each hold the one below twice: any copy or repr of them would not end."""
    shared: Any = []
    for _ in range(60):
        shared = [shared, shared]
    c = generator.config
    names = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
    synthesis = {"channel_base": c.channel_base, "channel_max": c.channel_max}
    kwargs: dict[str, Any] = {name: getattr(c, name) for name in names}
    kwargs |= {"mapping_kwargs": {"num_layers": 3}, "synthesis_kwargs": synthesis, key: shared}
    path = tmp_path / "g.pkl"
    path.write_bytes(changed(generator, _init_kwargs=kwargs, hidden=shared))
    if key == "epochs":  # known, and of no use here
        assert checkpoints.read(path).config == plain(c)
        return
    with pytest.raises(CheckpointError) as caught:
        checkpoints.read(path)
    assert len(str(caught.value)) < 500
