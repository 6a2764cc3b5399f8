"""Names and shapes of the tensors of known networks.

The tables are computed from a config, so that a file's tensors can be compared with what its config
implies before anything is allocated. Names of StyleGAN2 are those of NVIDIA's network files, names
of FAN those of face_alignment, names of VGG16 torchvision's; this package uses them as its own.
"""

from __future__ import annotations

from .irse import arcface_tensors, e4e_tensors
from .layout import Config, Shapes, batch_norm, conv, dense
from .vision import (
    image_to_latent_tensors,
    lins_tensors,
    resnet_tensors,
    s3fd_tensors,
    vgg16_tensors,
    vgg19_tensors,
)

__all__ = [
    "discriminator_tensors",
    "encoder_tensors",
    "expected_tensors",
    "facespace_tensors",
    "fan_tensors",
    "generator_tensors",
    "identity_tensors",
    "motion_tensors",
    "stylegan1_tensors",
]

# Taps that a layer gets when the published code does not pass the config's filter on to it.
_DEFAULT_TAPS = 4

# Where the sample encoder looks closely.
_ENCODER_WINDOWS = ("left_eye", "right_eye", "mouth")


def _resolutions(img_resolution: int) -> list[int]:
    """[4, 8, ..., img_resolution]."""
    return [2**i for i in range(2, img_resolution.bit_length())]


def _channels(config: Config, resolution: int) -> int:
    if config.get("channels"):
        return int(config["channels"][resolution])
    return int(min(config["channel_base"] // resolution, config["channel_max"]))


def _filter_shape(taps: int) -> tuple[int, ...]:
    return taps, taps


def _mapping(out: Shapes, config: Config, z_dim: int, w_dim: int, *, average: bool) -> None:
    c_dim = config["c_dim"]
    embed = 0
    if c_dim > 0:
        embed = config["embed_features"] or w_dim
        dense(out, "mapping.embed", c_dim, embed)
    hidden = config["mapping_layer_features"] or w_dim
    count = config["num_mapping_layers"]
    widths = [z_dim + embed, *[hidden] * (count - 1), w_dim]
    for i in range(count):
        dense(out, f"mapping.fc{i}", widths[i], widths[i + 1])
    if average:
        out["mapping.w_avg"] = (w_dim,)


def generator_tensors(config: Config) -> Shapes:
    """Name -> shape for a StyleGAN2 generator, from the fields of `GeneratorConfig`."""
    out: Shapes = {}
    w_dim, colours = config["w_dim"], config["img_channels"]
    taps = len(config["resample_filter"])
    _mapping(out, config, config["z_dim"], w_dim, average=config["w_avg_beta"] is not None)
    previous = 0
    for res in _resolutions(config["img_resolution"]):
        width = _channels(config, res)
        block = f"synthesis.b{res}"
        out[f"{block}.resample_filter"] = _filter_shape(taps)
        if not previous:
            out[f"{block}.const"] = (width, res, res)
        # Only the layer that resamples is given the config's filter.
        layers = [("conv0", previous, taps)] if previous else []
        for layer, fan_in, layer_taps in [*layers, ("conv1", width, _DEFAULT_TAPS)]:
            name = f"{block}.{layer}"
            out[f"{name}.resample_filter"] = _filter_shape(layer_taps)
            dense(out, f"{name}.affine", w_dim, fan_in)
            out[f"{name}.weight"] = (width, fan_in, 3, 3)
            out[f"{name}.bias"] = (width,)
            if config["use_noise"]:
                out[f"{name}.noise_const"] = (res, res)
                out[f"{name}.noise_strength"] = ()
        if res == config["img_resolution"] or config["architecture"] == "skip":
            dense(out, f"{block}.torgb.affine", w_dim, width)
            out[f"{block}.torgb.weight"] = (colours, width, 1, 1)
            out[f"{block}.torgb.bias"] = (colours,)
        if previous and config["architecture"] == "resnet":
            out[f"{block}.skip.weight"] = (width, previous, 1, 1)
            out[f"{block}.skip.resample_filter"] = _filter_shape(taps)
        previous = width
    return out


def stylegan1_tensors(config: Config) -> Shapes:
    """Name -> shape for a StyleGAN generator of 2019, from the fields of `StyleGAN1Config`."""
    out: Shapes = {}
    w_dim = config["w_dim"]
    _mapping(out, config, config["z_dim"], w_dim, average=config["w_avg_beta"] is not None)
    below = 0
    for res in _resolutions(config["img_resolution"]):
        width = _channels(config, res)
        block = f"synthesis.b{res}"
        if not below:
            out[f"{block}.const"] = (width, 4, 4)
        else:
            out[f"{block}.resample_filter"] = _filter_shape(len(config["resample_filter"]))
        for layer, fan_in in (("conv0", below), ("conv1", width)):
            name = f"{block}.{layer}"
            if fan_in:
                out[f"{name}.weight"] = (width, fan_in, 3, 3)
            if config["use_noise"]:
                out[f"{name}.noise_const"] = (res, res)
                out[f"{name}.noise_strength"] = (width,)
            out[f"{name}.bias"] = (width,)
            dense(out, f"{name}.affine", w_dim, 2 * width)
        below = width
    conv(out, "synthesis.torgb", below, config["img_channels"], 1)
    return out


def discriminator_tensors(config: Config) -> Shapes:
    """Name -> shape for a StyleGAN2 discriminator, from the fields of `DiscriminatorConfig`."""
    out: Shapes = {}
    colours, architecture = config["img_channels"], config["architecture"]
    taps = len(config["resample_filter"])

    def layer(
        name: str,
        fan_in: int,
        fan_out: int,
        size: int,
        taps: int = _DEFAULT_TAPS,
        bias: bool = True,
    ) -> None:
        out[f"{name}.resample_filter"] = _filter_shape(taps)
        conv(out, name, fan_in, fan_out, size, bias)

    for res in reversed(_resolutions(config["img_resolution"])[1:]):
        width, after = _channels(config, res), _channels(config, res // 2)
        block = f"b{res}"
        out[f"{block}.resample_filter"] = _filter_shape(taps)
        if res == config["img_resolution"] or architecture == "skip":
            layer(f"{block}.fromrgb", colours, width, 1)
        layer(f"{block}.conv0", width, width, 3)
        layer(f"{block}.conv1", width, after, 3, taps)
        if architecture == "resnet":
            layer(f"{block}.skip", width, after, 1, taps, bias=False)
    width = _channels(config, 4)
    label = (config["cmap_dim"] or width) if config["c_dim"] > 0 else 0
    if label:
        _mapping(out, config, 0, label, average=False)
    if architecture == "skip":
        layer("b4.fromrgb", colours, width, 1)
    layer("b4.conv", width + config["mbstd_num_channels"], width, 3)
    dense(out, "b4.fc", width * 16, width)
    dense(out, "b4.out", width, label or 1)
    return out


def fan_tensors(config: Config) -> Shapes:
    """Name -> shape for the Face Alignment Network, from the fields of `FANConfig`."""
    out: Shapes = {}
    width, depth, points = config["width"], config["depth"], config["num_landmarks"]

    def block(name: str, fan_in: int, fan_out: int) -> None:
        widths = [fan_in, fan_out // 2, fan_out // 4, fan_out // 4]
        for i in range(3):
            batch_norm(out, f"{name}.bn{i + 1}", widths[i])
            conv(out, f"{name}.conv{i + 1}", widths[i], widths[i + 1], 3, bias=False)
        if fan_in != fan_out:
            batch_norm(out, f"{name}.downsample.0", fan_in)
            conv(out, f"{name}.downsample.2", fan_in, fan_out, 1, bias=False)

    conv(out, "conv1", 3, width // 4, 7)
    batch_norm(out, "bn1", width // 4)
    block("conv2", width // 4, width // 2)
    block("conv3", width // 2, width // 2)
    block("conv4", width // 2, width)
    for i in range(config["num_stacks"]):
        levels = [f"b{branch}_{level + 1}" for branch in (1, 2, 3) for level in range(depth)]
        for part in (*levels, "b2_plus_1"):
            block(f"m{i}.{part}", width, width)
        block(f"top_m_{i}", width, width)
        conv(out, f"conv_last{i}", width, width, 1)
        batch_norm(out, f"bn_end{i}", width)
        conv(out, f"l{i}", width, points, 1)
        if i + 1 < config["num_stacks"]:
            conv(out, f"bl{i}", width, width, 1)
            conv(out, f"al{i}", points, width, 1)
    return out


def encoder_tensors(config: Config) -> Shapes:
    """Name -> shape for the sample encoder, from the fields of `SampleEncoderConfig`."""
    out: Shapes = {}
    below = 3

    def unit(name: str, fan_in: int, fan_out: int, stride: int = 1) -> None:
        conv(out, f"{name}.conv", fan_in, fan_out, stride + 2, bias=False)
        batch_norm(out, f"{name}.norm", fan_out)

    for i, width in enumerate(config["widths"]):
        unit(f"stages.{i}.0", below, width, 1 if i else config["stride"])
        unit(f"stages.{i}.1", width, width)
        below = width
    hidden, close = config["hidden"], config["window_width"]
    compared = [*config["widths"], *[close] * (3 * len(_ENCODER_WINDOWS) if close else 0)]
    out.update({f"lin{k}": (width,) for k, width in enumerate(compared)})
    out["hidden.weight"] = (hidden, below * 16)
    batch_norm(out, "hidden_norm", hidden)
    if config["num_landmarks"]:
        dense(out, "landmark_head", hidden, 2 * config["num_landmarks"])
    if close:
        for window in _ENCODER_WINDOWS:
            unit(f"windows.looks.{window}.0", sum(config["widths"][:2]), close)
            unit(f"windows.looks.{window}.1", close, close, 2)
            unit(f"windows.looks.{window}.2", close, close, 2)
        out["windows.hidden.weight"] = (hidden, len(_ENCODER_WINDOWS) * close * 16)
        batch_norm(out, "windows.hidden_norm", hidden)
    dense(out, "latent_head", 2 * hidden if close else hidden, config["z_dim"])
    return out


def facespace_tensors(config: Config) -> Shapes:
    """Name -> shape for a `FaceSpaceEncoder`, from the fields of `FaceSpaceConfig`."""
    rows, width = config["num_ws"], config["w_dim"]
    out: Shapes = {
        "mean": (width,),
        "spread": (1,),
        "z": (config["faces"], config["inputs"]),
        "targets": (config["faces"], rows, width),
    }
    widths = (config["inputs"], *config["hidden"], rows * width)
    for number, (a, b) in enumerate(zip(widths, widths[1:], strict=False)):
        dense(out, f"layers.{number}", a, b)
    return out


def identity_tensors(config: Config) -> Shapes:
    """Name -> shape for the identity net, from the fields of `IdentityConfig`."""
    body = {**config, "z_dim": config["embedding_dim"], "num_landmarks": 68}
    return {f"body.{name}": shape for name, shape in encoder_tensors(body).items()}


def motion_tensors(config: Config) -> Shapes:
    """Name -> shape for a `MotionModel`, from the fields of `MotionConfig`."""
    size, embedding = config["w_dim"], config["embedding_dim"]
    out: Shapes = {"covariance": (size, size), "points": (2 * 68, size)}
    if embedding:
        out["identity"] = (embedding, size)
    return out


_TABLES = {
    "stylegan2-generator": generator_tensors,
    "stylegan2-discriminator": discriminator_tensors,
    "stylegan1-generator": stylegan1_tensors,
    "fan": fan_tensors,
    "vgg16": vgg16_tensors,
    "vgg19": vgg19_tensors,
    "resnet": resnet_tensors,
    "image-to-latent": image_to_latent_tensors,
    "lpips-lins": lins_tensors,
    "sample-encoder": encoder_tensors,
    "sample-identity": identity_tensors,
    "arcface": arcface_tensors,
    "s3fd": s3fd_tensors,
    "e4e": e4e_tensors,
    "face-space": facespace_tensors,
    "motion-model": motion_tensors,
}


def expected_tensors(kind: str, config: Config) -> Shapes:
    """Name -> shape for a checkpoint of `kind`; `config` has every field, checked for its range."""
    return _TABLES[kind](config)
