"""NVIDIA's pickles of the TensorFlow era: StyleGAN, StyleGAN2, and ADA before its torch version.

A file is a tuple (G, D, Gs) of `dnnlib.tflib.network.Network`, each a dict of attributes: version,
static_kwargs, components (networks of their own), variables (pairs of name and value), and source
text, which stays text. Options are read from static_kwargs, tensors become those of NVIDIA's torch
code:

- convolutions are stored HWIO; the upsampling ones of the generator also turned by 180 degrees;
- dense layers are stored [in, out];
- biases of style transforms lack the 1 that the code adds;
- maps of noise are counted through: at resolution r, 2 log2(r) - 5 and 2 log2(r) - 4;
- the widths' base counts from half the resolution.

StyleGAN (2019) comes in the same files; `stylegan1` reads its variables.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .checkpoint import Checkpoint, check_finite, check_floating, check_shapes
from .filters import stored_filters
from .names import expected_tensors
from .ndarrays import array_dtype, array_tensor, as_tensor_record
from .records import ArrayRecord, InertDict, NetworkRecord
from .source import Source, shown
from .stylegan1 import read_stylegan1, stylegan1_layout
from .tensorflow_options import (
    DISCRIMINATOR,
    FIXED,
    GENERATOR,
    STYLEGAN1,
    STYLEGAN1_FIXED,
    taken,
)

__all__ = ["holds_tensorflow", "read_tensorflow"]

_OLDEST_VERSION = 4
_MAX_VARIABLES = 4096
_MAX_NETWORKS = 16
_MAX_NAME_CHARS = 256
_NOISE = re.compile(r"synthesis/noise\d+")


def holds_tensorflow(top: object) -> bool:
    """Whether the top object of a file is a network of this era, or a tuple of some."""
    networks = top if type(top) is tuple else (top,)
    return bool(networks) and all(type(net) is NetworkRecord for net in networks)


def read_tensorflow(source: Source, top: object, part: str) -> Checkpoint:
    """Read a network out of such a file.

    Args:
        source: the file.
        top: its top object, for which `holds_tensorflow` is true.
        part: "generator" (Gs, the third network) or "discriminator" (D, the second).

    Raises:
        CheckpointError: a network other than StyleGAN2 and the generator of StyleGAN (2019), or
            options or variables that are not theirs or contradict each other.
    """
    index = 2 if part == "generator" else 1
    networks: tuple[Any, ...] = top if type(top) is tuple else (top,)
    entry = ("G", "D", "Gs")[index] if len(networks) > 1 else "network"
    if 1 < len(networks) <= index or (len(networks) == 1 and part != "generator"):
        source.fail(f"has no {entry}: it holds {len(networks)} networks of the TensorFlow era")
    network = networks[index] if len(networks) > 1 else networks[0]
    state = _state(source, network, entry)
    variables = _variables(source, network, entry)
    if stylegan1_layout(variables) == "official":
        return _stylegan1(source, state, variables, entry, part)
    _check_version(source, state, entry)
    table = GENERATOR if part == "generator" else DISCRIMINATOR
    config = taken(source, state.get("static_kwargs"), table, FIXED, f"{entry}.static_kwargs")
    config["channel_base"] *= 2
    config["channels"] = None
    layout = _Layout(source, entry, config, variables)
    tensors = layout.generator() if part == "generator" else layout.discriminator()
    return Checkpoint(
        f"stylegan2-{part}",
        config,
        tensors,
        {"format": "nvidia-pickle", "producer": "NVIDIA StyleGAN2 for TensorFlow", "entry": entry},
        source.name,
    )


def _state(source: Source, network: NetworkRecord, place: str) -> dict[str, Any]:
    state = network.state
    if state is None:
        source.fail("a network without content", place)
    return state


def _check_version(source: Source, state: dict[str, Any], place: str) -> None:
    version = state.get("version")
    if type(version) is not int or version < _OLDEST_VERSION:
        source.fail(
            f"a network of version {shown(version)}: Progressive GAN, a discriminator of StyleGAN "
            f"(2019) or an early StyleGAN2. Of the TensorFlow era, StyleGAN's generator and "
            f"StyleGAN2 of version {_OLDEST_VERSION} and later are read",
            place,
        )


def _stylegan1(
    source: Source, state: dict[str, Any], variables: dict[str, Any], entry: str, part: str
) -> Checkpoint:
    options: Any = state.get("static_kwargs")
    taken(source, options, STYLEGAN1, STYLEGAN1_FIXED, f"{entry}.static_kwargs")
    records = {
        name: as_tensor_record(source, value, f"{entry}.{name}")
        for name, value in variables.items()
    }
    out = read_stylegan1(source, records, part, "nvidia-pickle")
    resolution = options.get("resolution", out.config["img_resolution"])
    if resolution != out.config["img_resolution"]:
        reason = f"is {resolution}, the variables say {out.config['img_resolution']}"
        source.fail(reason, f"{entry}.static_kwargs.resolution")
    out.metadata["entry"] = entry
    return out


def _variables(source: Source, network: NetworkRecord, place: str) -> dict[str, Any]:
    """Variables of a network and its components, "component/name" -> array or number."""
    out: dict[str, Any] = {}
    todo: list[tuple[str, NetworkRecord]] = [("", network)]
    networks = 0
    while todo:
        prefix, net = todo.pop()
        networks += 1
        where = f"{place}.{prefix}".rstrip("./")
        if networks > _MAX_NETWORKS:
            source.fail("more components than any network has", where)
        state = _state(source, net, where)
        pairs, components = state.get("variables"), state.get("components", {})
        if type(pairs) is not list or len(pairs) > _MAX_VARIABLES:
            source.fail("its variables are no list, or too many", where)
        for pair in pairs:
            if type(pair) not in (tuple, list) or len(pair) != 2:
                source.fail("a variable that is no pair of name and value", where)
            name, value = pair
            if type(name) is not str or len(name) > _MAX_NAME_CHARS or prefix + name in out:
                source.fail(f"a variable called {shown(name)}, or two of that name", where)
            if type(value) not in (ArrayRecord, float, int):
                source.fail(f"is {shown(value)}", f"{where}/{name}")
            out[prefix + name] = value
        if type(components) not in (dict, InertDict):
            source.fail("its components are no dict", where)
        for name, child in components.items():
            if type(name) is not str or len(name) > _MAX_NAME_CHARS:
                source.fail(f"a component called {shown(name)}", where)
            if type(child) is not NetworkRecord:
                source.fail(f"is {shown(child)}, not a network", f"{where}.{name}")
            todo.append((f"{prefix}{name}/", child))
    return out


class _Rule(NamedTuple):
    """How one of our tensors is made: the variable, its shape there, and the way back."""

    variable: str
    shape: Callable[[tuple[int, ...]], tuple[int, ...]]
    make: Callable[[Tensor], Tensor]


def _same(name: str) -> _Rule:
    return _Rule(name, lambda shape: shape, lambda x: x)


def _leading(name: str, count: int) -> _Rule:
    """Axes of length one at the beginning."""
    return _Rule(name, lambda s: (1,) * count + s, lambda x: x.reshape(x.shape[count:]))


def _dense(name: str) -> _Rule:
    return _Rule(name, lambda s: s[::-1], lambda x: x.t())


def _convolution(name: str, turned: bool = False) -> _Rule:
    def make(x: Tensor) -> Tensor:
        x = x.permute(3, 2, 0, 1)
        return x.flip(2, 3) if turned else x

    return _Rule(name, lambda s: (s[2], s[3], s[1], s[0]), make)


class _Layout:
    """Turns the variables of one network into our tensors."""

    def __init__(
        self, source: Source, entry: str, config: dict[str, Any], variables: dict[str, Any]
    ) -> None:
        self.source = source
        self.entry = entry
        self.config = config
        self.variables = variables
        self.rules: dict[str, _Rule] = {}

    def generator(self) -> dict[str, Tensor]:
        config, variables = self.config, self.variables
        self._architecture()
        if config["c_dim"] > 0:
            self._label("mapping/LabelEmbed", "mapping/LabelConcat")
        if config["w_avg_beta"] is None:
            # The average is there all the same: it follows every batch at once.
            config["w_avg_beta"] = 1.0
        rules = self.rules
        rules["mapping.w_avg"] = _same("dlatent_avg")
        for i in range(config["num_mapping_layers"]):
            self._pair(f"mapping.fc{i}", f"mapping/Dense{i}", _dense)
        rules["synthesis.b4.const"] = _leading("synthesis/4x4/Const/const", 1)
        for log2 in range(2, config["img_resolution"].bit_length()):
            res = 1 << log2
            block, scope = f"synthesis.b{res}", f"synthesis/{res}x{res}"
            layers = [("conv0", "Conv0_up", 5), ("conv1", "Conv1", 4)]
            for ours, theirs, back in layers if log2 > 2 else [("conv1", "Conv", 4)]:
                name, old = f"{block}.{ours}", f"{scope}/{theirs}"
                rules[f"{name}.weight"] = _convolution(f"{old}/weight", turned=ours == "conv0")
                self._styled(name, old)
                if config["use_noise"]:
                    rules[f"{name}.noise_const"] = _leading(f"synthesis/noise{2 * log2 - back}", 2)
                    rules[f"{name}.noise_strength"] = _same(f"{old}/noise_strength")
            rules[f"{block}.torgb.weight"] = _convolution(f"{scope}/ToRGB/weight")
            self._styled(f"{block}.torgb", f"{scope}/ToRGB")
            rules[f"{block}.skip.weight"] = _convolution(f"{scope}/Skip/weight", turned=True)
        # Stored whether they are used or not.
        unused = [] if config["use_noise"] else [n for n in variables if _NOISE.fullmatch(n)]
        return self._tensors("stylegan2-generator", unused)

    def discriminator(self) -> dict[str, Tensor]:
        config, rules = self.config, self.rules
        config["mapping_activation"] = config["activation"]
        config["mapping_layer_features"] = config["embed_features"] = config["cmap_dim"]
        if config["img_resolution"] < 8:
            self.source.fail("needs at least 8", f"{self.entry}.static_kwargs.resolution")
        if config["c_dim"] > 0:
            self._label("LabelEmbed", "")
            for i in range(config["num_mapping_layers"]):
                self._pair(f"mapping.fc{i}", f"Mapping{i}", _dense)
        for log2 in range(2, config["img_resolution"].bit_length()):
            res = 1 << log2
            layers = {"fromrgb": "FromRGB", "conv0": "Conv0", "conv1": "Conv1_down", "conv": "Conv"}
            for ours, theirs in layers.items():
                self._pair(f"b{res}.{ours}", f"{res}x{res}/{theirs}", _convolution)
            rules[f"b{res}.skip.weight"] = _convolution(f"{res}x{res}/Skip/weight")
        self._pair("b4.fc", "4x4/Dense0", _dense)
        self._pair("b4.out", "Output", _dense)
        return self._tensors("stylegan2-discriminator", [])

    def _architecture(self) -> None:
        """Networks of the paper's configurations A to D keep one toRGB for each level of detail."""
        variables, top = self.variables, self.config["img_resolution"]
        if not any(name.startswith("synthesis/ToRGB_lod") for name in variables):
            return
        level = self._number("synthesis/lod", 0.0)
        if level != 0.0:
            self.source.fail(f"is {shown(level)}; the network has not grown to the end", "lod")
        for name in [n for n in variables if n.startswith("synthesis/ToRGB_lod")]:
            scope, _, leaf = name.removeprefix("synthesis/").partition("/")
            value = variables.pop(name)
            if scope == "ToRGB_lod0":
                variables[f"synthesis/{top}x{top}/ToRGB/{leaf}"] = value
        variables.pop("synthesis/lod", None)
        self.config["architecture"] = "orig"

    def _number(self, name: str, default: float) -> float:
        value = self.variables.get(name, default)
        if isinstance(value, ArrayRecord):
            if value.shape != () or array_dtype(value) != torch.float32:
                self.source.fail("is no single number", f"{self.entry}.{name}")
            return torch.frombuffer(bytearray(value.data), dtype=torch.float32).item()
        return float(value)

    def _label(self, embedding: str, older: str) -> None:
        if f"{embedding}/weight" not in self.variables:
            other = f": it has {older}" if f"{older}/weight" in self.variables else ""
            self.source.fail(
                f"is a conditional StyleGAN2 from before ADA{other}; it joins the label to z "
                "before both are normalised, which no network here does",
                self.entry,
            )
        self._pair("mapping.embed", embedding, _dense)

    def _pair(self, ours: str, theirs: str, weight: Callable[[str], _Rule]) -> None:
        self.rules[f"{ours}.weight"] = weight(f"{theirs}/weight")
        self.rules[f"{ours}.bias"] = _same(f"{theirs}/bias")

    def _styled(self, ours: str, theirs: str) -> None:
        self.rules[f"{ours}.bias"] = _same(f"{theirs}/bias")
        self.rules[f"{ours}.affine.weight"] = _dense(f"{theirs}/mod_weight")
        bias = _Rule(f"{theirs}/mod_bias", lambda shape: shape, lambda x: x + 1)
        self.rules[f"{ours}.affine.bias"] = bias

    def _tensors(self, kind: str, unused: list[str]) -> dict[str, Tensor]:
        shapes = expected_tensors(kind, self.config)
        wanted = {name: self.rules[name] for name in shapes if not name.endswith("resample_filter")}
        expected = {rule.variable: rule.shape(shapes[name]) for name, rule in wanted.items()}
        found = {
            name: value.shape or () if isinstance(value, ArrayRecord) else ()
            for name, value in self.variables.items()
            if name not in unused
        }
        prefix = f"{self.entry}."
        check_shapes(self.source, expected, found, prefix)
        made = {n: rule.make(self._read(rule.variable)) for n, rule in wanted.items()}
        return {n: x.contiguous() for n, x in made.items()} | stored_filters(kind, self.config)

    def _read(self, name: str) -> Tensor:
        value, place = self.variables[name], f"{self.entry}.{name}"
        if not isinstance(value, ArrayRecord):
            # A single number: tf.Session.run returns it as one.
            tensor = torch.tensor(float(value), dtype=torch.float32)
        else:
            tensor = array_tensor(self.source, value, place)
            check_floating(self.source, place, tensor.dtype)
        check_finite(self.source, place, tensor)
        return tensor
