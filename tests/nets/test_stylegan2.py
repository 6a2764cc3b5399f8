"""The generator against a plain float64 re-derivation, and the facts of its contract."""

import dataclasses
import json

import pytest
import torch

from pyfacelat.nets.layers import load_strict
from pyfacelat.nets.stylegan2 import Generator, GeneratorConfig

from . import plain_stylegan2 as plain

SMALL = dict(z_dim=12, w_dim=20, img_resolution=32, channel_base=256, channel_max=24)

VARIANTS = {
    "skip": {},
    "resnet": {"architecture": "resnet"},
    "orig": {"architecture": "orig"},
    "conditional": {"c_dim": 5, "embed_features": 7, "mapping_layer_features": 16},
    "label-only": {"z_dim": 0, "c_dim": 3, "num_mapping_layers": 2},
    "clamped": {"conv_clamp": 0.6, "num_fp16_res": 4},
    "clamped-resnet": {"conv_clamp": 0.6, "architecture": "resnet"},
    "no-noise": {"use_noise": False, "img_channels": 4},
    "mapping": {
        "num_mapping_layers": 3,
        "mapping_lr_multiplier": 1.0,
        "mapping_activation": "relu",
    },
    "channels": {"channels": {4: 8, 8: 16, 16: 12, 32: 6}, "img_channels": 1},
    "filter": {"resample_filter": (1, 2, 4, 3, 1, 1), "architecture": "resnet"},
    "swish": {"activation": "swish", "img_resolution": 16},
    "smallest": {"img_resolution": 4},
}


def make(seed=0, **overrides):
    """A generator with every tensor away from its initial value."""
    torch.manual_seed(seed)
    generator = Generator(GeneratorConfig(**{**SMALL, **overrides})).eval()
    with torch.no_grad():
        for name, value in [*generator.named_parameters(), *generator.named_buffers()]:
            if not name.endswith(("resample_filter", "noise_const")):
                value.add_(torch.randn_like(value) * (0.3 if value.ndim != 4 else 0.0))
    return generator.requires_grad_(False)


def state64(generator):
    return {name: value.double() for name, value in generator.state_dict().items()}


def latents(generator, n=2, seed=1):
    gen = torch.Generator().manual_seed(seed)
    z = torch.randn(n, generator.z_dim, generator=gen) * 3
    c = torch.eye(5)[torch.arange(n) % 3, : generator.c_dim] if generator.c_dim else None
    return z if generator.z_dim else None, c


def random_noise(generator, n, seed=2):
    gen = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(n, *size, generator=gen) for name, size in generator.noise_names().items()
    }


def plain_ws(generator, z, c):
    cfg = generator.config
    w = plain.mapping(
        state64(generator),
        "mapping",
        None if z is None else z.double(),
        None if c is None else c.double(),
        cfg.num_mapping_layers,
        cfg.mapping_activation,
        cfg.mapping_lr_multiplier,
    )
    return w[:, None].repeat(1, cfg.num_ws, 1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_plain_formulas(variant):
    generator = make(**VARIANTS[variant])
    z, c = latents(generator)
    truth_ws = plain_ws(generator, z, c)
    ws = generator.mapping(z, c)
    assert ws.shape == (2, generator.num_ws, generator.w_dim)
    assert relative(ws, truth_ws) < 2e-6

    rows = truth_ws + 0.3 * torch.randn_like(truth_ws)  # W+: every row its own
    truth = plain.synthesize(generator.config, state64(generator), rows)
    image = generator.synthesis(rows.float())
    assert image.dtype == torch.float32
    assert (image - truth).abs().max() < 2e-5 * truth.std()
    double = make(**VARIANTS[variant]).double()
    assert (double.synthesis(rows) - truth).abs().max() < 1e-10 * truth.std()
    assert (double.mapping(*latents(generator)) - truth_ws).abs().max() < 1e-10


@pytest.mark.parametrize("variant", ["skip", "resnet", "orig", "clamped-resnet"])
@pytest.mark.parametrize("per_item", [False, True])
def test_gradients_to_w_and_noise_equal_the_plain_formulas(variant, per_item):
    generator = make(**VARIANTS[variant])
    cfg, n = generator.config, 2
    ws = plain_ws(generator, *latents(generator, n)) + 0.1
    noise = random_noise(generator, n if per_item else 1)
    probe = torch.randn(n, 3, 32, 32, dtype=torch.float64)

    ws64 = ws.requires_grad_()
    noise64 = {k: v.double().requires_grad_() for k, v in noise.items()}
    broadcast = {k: v[:, None] for k, v in noise64.items()}
    truth = plain.synthesize(cfg, state64(generator), ws64, broadcast)
    wanted = torch.autograd.grad((truth * probe).sum(), [ws64, *noise64.values()])

    ws32 = ws.detach().float().requires_grad_()
    noise32 = {k: v.clone().requires_grad_() for k, v in noise.items()}
    image = generator.synthesis(ws32, noise=noise32)
    got = torch.autograd.grad((image * probe.float()).sum(), [ws32, *noise32.values()])
    assert (image - truth).abs().max() < 2e-5 * truth.std()
    for name, a, b in zip(["ws", *noise], got, wanted, strict=True):
        assert relative(a, b) < 2e-5, name


@pytest.mark.parametrize("variant", ["skip", "resnet", "conditional"])
def test_an_item_of_a_batch_equals_the_same_item_alone(variant):
    generator = make(**VARIANTS[variant])
    z, c = latents(generator, 3)
    ws = generator.mapping(z, c)
    noise = random_noise(generator, 3)
    batch = generator.synthesis(ws, noise=noise)
    for i in range(3):
        item = slice(i, i + 1)
        alone_ws = generator.mapping(z[item], None if c is None else c[item])
        assert relative(alone_ws, ws[item]) < 1e-6
        alone = generator.synthesis(ws[item], noise={k: v[item] for k, v in noise.items()})
        assert (alone - batch[item]).abs().max() < 1e-5 * batch.std()


def test_noise_modes():
    generator = make()
    ws = generator.mapping(*latents(generator))
    const = generator.synthesis(ws)
    assert torch.equal(const, generator.synthesis(ws, "const"))
    silent = make()
    for name, value in silent.named_parameters():
        if name.endswith("noise_strength"):
            value.zero_()
    none = generator.synthesis(ws, "none")
    assert torch.allclose(none, silent.synthesis(ws), atol=1e-6)
    assert (none - const).abs().max() > 1e-2

    before = torch.get_rng_state()
    draw = [generator.synthesis(ws, "random", generator=rng(3)) for _ in range(2)]
    assert torch.equal(draw[0], draw[1])
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(draw[0], generator.synthesis(ws, "random", generator=rng(4)))
    one_each = generator.synthesis(ws, "random", generator=[rng(3), rng(4)])
    alone = generator.synthesis(ws[1:], "random", generator=[rng(4)])
    assert (one_each[1:] - alone).abs().max() < 1e-5 * alone.std()


def test_given_noise_replaces_the_stored_maps():
    generator = make()
    ws = generator.mapping(*latents(generator))
    name = "synthesis.b16.conv1.noise_const"
    stored = generator.get_buffer(name)
    const = generator.synthesis(ws)
    other = torch.randn(2, 16, 16, generator=rng(5))
    for same in (stored, stored[None], stored.double(), stored.expand(2, 1, 16, 16)):
        assert torch.allclose(generator.synthesis(ws, noise={name: same}), const, atol=1e-6)
    mixed = generator.synthesis(ws, noise={name: torch.stack([stored, other[1]])})
    assert torch.allclose(mixed[0], const[0], atol=1e-6)
    assert (mixed[1] - const[1]).abs().max() > 1e-2
    # "random" for the rest, the given map as it is
    noise = random_noise(generator, 2)
    full = generator.synthesis(ws, noise=noise)
    assert torch.equal(full, generator.synthesis(ws, "random", noise=noise))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise": {"synthesis.b16.conv1.noise_const": torch.zeros(3, 16, 16)}}, r"\[3, 16, 16\]"),
        ({"noise": {"synthesis.b16.conv1.noise_const": torch.zeros(8, 8)}}, r"expected shape"),
        ({"noise": {"synthesis.b99.conv1.noise_const": torch.zeros(8, 8)}}, "b99"),
        ({"noise": {"b16.conv1.noise_const": torch.zeros(16, 16)}}, "noise_names"),
        ({"noise_mode": "fixed"}, "'fixed'"),
        ({"noise_mode": "none", "noise": {"x": torch.zeros(1)}}, "'none'"),
        ({"noise_mode": "random", "generator": []}, "expected 1 or 2"),
    ],
)
def test_wrong_noise_is_refused(arguments, message):
    generator = make()
    with pytest.raises(ValueError, match=message):
        generator.synthesis(torch.zeros(2, generator.num_ws, 20), **arguments)


@pytest.mark.gpu
@pytest.mark.parametrize("variant", ["skip", "resnet", "clamped"])
def test_gpu_equals_the_plain_formulas(variant):
    generator = make(**VARIANTS[variant])
    ws = plain_ws(generator, *latents(generator)) + 0.1
    noise = random_noise(generator, 2)
    truth = plain.synthesize(
        generator.config, state64(generator), ws, {k: v[:, None].double() for k, v in noise.items()}
    )
    generator.cuda().freeze()
    image = generator.synthesis(ws.cuda(), noise={k: v.cuda() for k, v in noise.items()})
    assert (image.cpu() - truth).abs().max() < 2e-5 * truth.std()
    source = [torch.Generator("cuda").manual_seed(i) for i in range(2)]
    assert generator.synthesis(ws.cuda(), "random", generator=source).isfinite().all()


def test_wrong_latents_are_refused():
    generator = make(c_dim=5)
    z, c = latents(generator)
    for bad in ((z[:, :3], c), (None, c), (z, None), (z, c[:1]), (z, c[:, :2]), (z[0], c)):
        with pytest.raises(ValueError, match=r"^[zc]: "):
            generator.mapping(*bad)
    for shape in ((1, 20), (1, generator.num_ws, 3), (1, generator.num_ws + 1, 20)):
        with pytest.raises(ValueError, match="ws: expected shape"):
            generator.synthesis(torch.zeros(shape))


def test_z_is_normalised_and_empty_batches_pass():
    generator = make()
    z, _ = latents(generator)
    assert relative(generator.mapping(z * 7), generator.mapping(z)) < 1e-6
    ws = generator.mapping(z[:0])
    assert ws.shape == (0, generator.num_ws, 20)


def test_truncation():
    generator = make()
    z, _ = latents(generator)
    ws = generator.mapping(z)
    average = generator.mapping.w_avg
    assert torch.equal(generator.mapping(z, None, 1, 3), ws)
    assert torch.allclose(generator.mapping(z, None, 0), average.expand_as(ws))
    half = generator.mapping(z, truncation_psi=0.5)
    assert torch.allclose(half, (ws + average) / 2, atol=1e-6)
    cut = generator.mapping(z, truncation_psi=0.5, truncation_cutoff=3)
    assert torch.equal(cut[:, :3], half[:, :3]) and torch.equal(cut[:, 3:], ws[:, 3:])
    image = generator(z, truncation_psi=0.5, truncation_cutoff=3)
    assert torch.equal(image, generator.synthesis(cut))
    with pytest.raises(ValueError, match="truncation_psi"):
        make(w_avg_beta=None).mapping(z, truncation_psi=0.5)


def test_training_moves_the_average_of_w():
    generator = make(w_avg_beta=0.9)
    z, _ = latents(generator, 4)
    before = generator.mapping.w_avg.clone()
    ws = generator.mapping(z)
    assert torch.equal(generator.mapping.w_avg, before)
    generator.train()
    generator.mapping(z, skip_w_avg_update=True)
    assert torch.equal(generator.mapping.w_avg, before)
    generator.mapping(z)
    assert torch.allclose(generator.mapping.w_avg, 0.9 * before + 0.1 * ws[:, 0].mean(0), atol=1e-6)


def test_clamp_limits_features_but_scales_with_the_gain():
    bound = make(conv_clamp=0.6).synthesis.b8.conv1
    x = torch.randn(1, bound.weight.shape[1], 8, 8) * 50
    w = torch.randn(1, 20)
    assert bound(x, w, None).abs().max() == pytest.approx(0.6)
    assert bound(x, w, None, gain=0.5).abs().max() == pytest.approx(0.3)


def test_published_size():
    generator = Generator(GeneratorConfig())
    assert generator.num_ws == 18
    assert sum(p.numel() for p in generator.parameters()) == 30_370_060
    sizes = list(generator.noise_names().values())
    assert len(sizes) == 17 and sizes[0] == (4, 4) and sizes[-1] == (1024, 1024)
    assert generator.synthesis.b256.conv1.weight.shape == (128, 128, 3, 3)


NAMES_8PX = """
mapping.fc0.bias mapping.fc0.weight mapping.fc1.bias mapping.fc1.weight mapping.w_avg
synthesis.b4.const synthesis.b4.resample_filter
synthesis.b4.conv1.affine.bias synthesis.b4.conv1.affine.weight synthesis.b4.conv1.bias
synthesis.b4.conv1.noise_const synthesis.b4.conv1.noise_strength
synthesis.b4.conv1.resample_filter synthesis.b4.conv1.weight
synthesis.b4.torgb.affine.bias synthesis.b4.torgb.affine.weight
synthesis.b4.torgb.bias synthesis.b4.torgb.weight
synthesis.b8.resample_filter
synthesis.b8.conv0.affine.bias synthesis.b8.conv0.affine.weight synthesis.b8.conv0.bias
synthesis.b8.conv0.noise_const synthesis.b8.conv0.noise_strength
synthesis.b8.conv0.resample_filter synthesis.b8.conv0.weight
synthesis.b8.conv1.affine.bias synthesis.b8.conv1.affine.weight synthesis.b8.conv1.bias
synthesis.b8.conv1.noise_const synthesis.b8.conv1.noise_strength
synthesis.b8.conv1.resample_filter synthesis.b8.conv1.weight
synthesis.b8.torgb.affine.bias synthesis.b8.torgb.affine.weight
synthesis.b8.torgb.bias synthesis.b8.torgb.weight
""".split()


def test_state_dict_names():
    generator = make(img_resolution=8, num_mapping_layers=2)
    assert sorted(generator.state_dict()) == sorted(NAMES_8PX)
    assert sorted(generator.freeze().state_dict()) == sorted(NAMES_8PX)
    resnet = make(img_resolution=8, num_mapping_layers=2, architecture="resnet", c_dim=3)
    assert set(resnet.state_dict()) ^ set(NAMES_8PX) == {
        "mapping.embed.weight",
        "mapping.embed.bias",
        "synthesis.b8.skip.weight",
        "synthesis.b8.skip.resample_filter",
        *(name for name in NAMES_8PX if name.startswith("synthesis.b4.torgb.")),
    }


def test_frozen_network_is_the_same_function():
    free, frozen = make(), make().freeze()
    ws = free.mapping(*latents(free))
    assert relative(frozen.synthesis(ws), free.synthesis(ws)) < 1e-6
    assert frozen.synthesis.b8.conv0.energy is not None
    load_strict(frozen, make(seed=9).state_dict())
    assert frozen.synthesis.b8.conv0.energy is None
    assert torch.equal(frozen.synthesis(ws), make(seed=9).synthesis(ws))
    frozen.freeze().train()
    assert frozen.synthesis.b8.conv0.energy is None
    # Unfreezing weights alone (as tuning a generator does) must not use stale sums either.
    layer = make().freeze().requires_grad_(True).synthesis.b8.conv0
    with torch.no_grad():
        layer.weight.mul_(2)
    x, w = torch.randn(1, layer.weight.shape[1], 4, 4), torch.randn(1, 20)
    assert torch.allclose(layer(x, w, None), make().synthesis.b8.conv0(x, w, None), atol=1e-5)


def test_statistics_of_w_move_with_the_network():
    generator = make()
    generator.w_stats["mean"] = torch.zeros(20)
    assert generator.double().w_stats["mean"].dtype == torch.float64
    assert not any("mean" in name for name in generator.state_dict())


def test_loading_is_strict():
    state = make().state_dict()
    load_strict(make(seed=3), state)
    wrong = {
        "missing tensors.*b4.torgb": (make(), {k: v for k, v in state.items() if "b4.t" not in k}),
        "unexpected tensors.*b4.torgb": (make(architecture="orig"), state),
        "missing tensors.*b8.skip": (make(architecture="resnet"), state),
        r"expected shape \[20, 20\], got \[20, 12\]": (make(z_dim=20), state),
        "more": (make(channel_base=128), state),
        "resample_filter: the filter": (make(resample_filter=(1, 2, 1, 0)), state),
    }
    for message, (generator, tensors) in wrong.items():
        before = {k: v.clone() for k, v in generator.state_dict().items()}
        with pytest.raises(ValueError, match=message):
            load_strict(generator, tensors)
        assert all(torch.equal(v, before[k]) for k, v in generator.state_dict().items())


@pytest.mark.parametrize("variant", VARIANTS)
def test_config_round_trips_through_json(variant):
    config = GeneratorConfig(**{**SMALL, **VARIANTS[variant]})
    assert GeneratorConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("img_resolution", 48),
        ("img_resolution", 8192),
        ("img_resolution", 2),
        ("img_resolution", 32.0),
        ("img_channels", 0),
        ("z_dim", -1),
        ("z_dim", 0),
        ("w_dim", 0),
        ("c_dim", True),
        ("num_mapping_layers", -1),
        ("num_mapping_layers", 0),
        ("mapping_layer_features", 0),
        ("mapping_lr_multiplier", 0.0),
        ("mapping_activation", "gelu"),
        ("activation", "gelu"),
        ("architecture", "stylegan3"),
        ("conv_clamp", -1.0),
        ("conv_clamp", float("nan")),
        ("resample_filter", ()),
        ("resample_filter", (1, -1)),
        ("channels", {4: 8, 8: 8}),
        ("channel_base", 16),
        ("w_avg_beta", 1.5),
    ],
)
def test_wrong_configs_are_refused(field, value):
    with pytest.raises(ValueError, match=field if field != "channel_base" else "channels"):
        Generator(GeneratorConfig(**{**SMALL, field: value}))


def rng(seed):
    return torch.Generator().manual_seed(seed)


def relative(a, b):
    return ((a.double() - b).norm() / b.norm()).item()
