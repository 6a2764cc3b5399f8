"""Writes network pickles in NVIDIA's layout from our own networks.

The modules are rebuilt as stand-ins whose `__reduce__` gives what NVIDIA's persistence code gives,
and Python's own pickle and torch's own tensor reduction write the rest: tensors, storages, numpy
scalars, sets and framing are the real thing in every protocol.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

SOURCE_TEXT = "raise RuntimeError('the source text of a network file was executed')\n" * 40
BUFFERS = ("resample_filter", "noise_const", "w_avg")


class _ByName:
    """Pickles as a call of a function that is found under a made-up module path."""

    def __init__(self, function: Any, args: tuple[Any, ...]) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.args


@contextlib.contextmanager
def named(*paths: str) -> Iterator[list[Any]]:
    """Functions that pickle under the given dotted paths while the context lasts."""
    created, out = [], []
    for path in paths:
        module, _, name = path.rpartition(".")
        parts = module.split(".")
        for i in range(1, len(parts) + 1):
            full = ".".join(parts[:i])
            if full not in sys.modules:
                sys.modules[full] = types.ModuleType(full)
                created.append(full)
        if "EasyDict" in name:
            made: Any = type(name, (dict,), {"__module__": module})
        elif name == "Network":
            made = type(name, (), {"__module__": module})
        else:
            made = types.FunctionType((lambda *args: None).__code__, {}, name)
            made.__module__ = module
        made.__qualname__ = name
        previous = getattr(sys.modules[module], name, None)
        setattr(sys.modules[module], name, made)
        created.append((module, name, previous))
        out.append(made)
    try:
        yield out
    finally:
        for item in reversed(created):
            if isinstance(item, str):
                del sys.modules[item]
            elif item[2] is None:
                if item[0] in sys.modules:
                    delattr(sys.modules[item[0]], item[1])
            else:
                setattr(sys.modules[item[0]], item[1], item[2])


class NvidiaFile:
    """Builds one file.

    Args:
        protocol: of the pickle, 2 to 5.
        era: "ada" nests synthesis options, "sg3" (the StyleGAN3 repository) does not.
        numpy_one: numpy scalars under the module name of numpy 1.
        channels_last: strides of convolution weights as fp16 networks have them.
        ordered: members in OrderedDicts, as torch wrote them before 2.0.
    """

    def __init__(
        self,
        protocol: int = 4,
        *,
        era: str = "ada",
        numpy_one: bool = False,
        channels_last: bool = False,
        ordered: bool = False,
    ) -> None:
        self.protocol = protocol
        self.era = era
        self.numpy_one = numpy_one
        self.channels_last = channels_last
        self.ordered = ordered

    def dump(self, entries: dict[str, Any] | Any) -> bytes:
        """Pickle a dict of entries; a value (kind, net) becomes a persistent module."""
        return self._written(entries, lambda top: pickle.dumps(top, protocol=self.protocol))

    def torch_save(self, entries: dict[str, Any] | Any, *, zipped: bool = True) -> bytes:
        """The same with torch.save, as PTI writes its tuned generators."""

        def write(top: Any) -> bytes:
            buffer = io.BytesIO()
            torch.save(
                top,
                buffer,
                pickle_protocol=self.protocol,
                _use_new_zipfile_serialization=zipped,
            )
            return buffer.getvalue()

        return self._written(entries, write)

    def _written(self, entries: dict[str, Any] | Any, write: Callable[[Any], bytes]) -> bytes:
        scalar = ("numpy.core.multiarray.scalar",) if self.numpy_one else ()
        with named(
            "torch_utils.persistence._reconstruct_persistent_obj", "dnnlib.util.EasyDict", *scalar
        ) as found:
            self.persistent, self.easy_dict, *self.scalar = found
            if isinstance(entries, dict):
                top = {name: self._entry(value) for name, value in entries.items()}
            else:
                top = self._entry(entries)
            return write(top)

    def _entry(self, value: Any) -> Any:
        if isinstance(value, tuple) and value and value[0] in ("generator", "discriminator"):
            return self._network(*value)
        if isinstance(value, dict):
            return self._easy(value)
        return value

    def _easy(self, values: dict[str, Any]) -> Any:
        out = self.easy_dict()
        for key, value in values.items():
            out[key] = self._easy(value) if isinstance(value, dict) else value
        return out

    def _number(self, value: float) -> Any:
        number = np.float64(value)
        if not self.numpy_one:
            return number
        return _ByName(self.scalar[0], (np.dtype("f8"), number.tobytes()))

    def _module(
        self, name: str, members: dict[str, Any], attributes: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        group = OrderedDict if self.ordered else dict
        parameters, buffers, modules = group(), group(), group()
        for key, value in members.items():
            if not isinstance(value, Tensor) and value is not None:
                modules[key] = value
            elif key in BUFFERS:
                buffers[key] = value
            else:
                parameters[key] = None if value is None else self._parameter(value)
        state = {
            "training": False,
            "_parameters": parameters,
            "_buffers": buffers,
            "_non_persistent_buffers_set": set(),
            "_backward_hooks": OrderedDict(),
            "_is_full_backward_hook": None,
            "_forward_hooks": OrderedDict(),
            "_state_dict_hooks": OrderedDict(),
            "_modules": modules,
            **attributes,
        }
        meta = {
            "type": "class",
            "version": 6,
            "module_src": SOURCE_TEXT,
            "class_name": name,
            "state": state,
        }
        return _ByName(self.persistent, (meta,)), state

    def _parameter(self, value: Tensor) -> torch.nn.Parameter:
        value = value.detach().clone()
        if self.channels_last and value.ndim == 4:
            value = value.contiguous(memory_format=torch.channels_last)
        return torch.nn.Parameter(value)

    def _network(self, kind: str, net: torch.nn.Module, **changes: Any) -> Any:
        tree: dict[str, Any] = {}
        for full, value in net.state_dict().items():
            *path, leaf = full.split(".")
            node = tree
            for part in path:
                node = node.setdefault(part, {})
            node[leaf] = value
        attributes = _Attributes(kind, net.config, self._number, self._easy, self.era)

        def convert(path: tuple[str, ...], node: dict[str, Any]) -> Any:
            members = {
                name: convert((*path, name), value) if isinstance(value, dict) else value
                for name, value in node.items()
            }
            if path and path[-1] == "skip":
                members["bias"] = None
            class_name, values = attributes.of(path)
            if not path:
                values = {**values, **changes}
            return self._module(class_name, members, values)[0]

        return convert((), tree)


class _Attributes:
    """Class name and plain attributes of each module, as NVIDIA's constructors set them."""

    def __init__(self, kind: str, config: Any, number: Any, easy: Any, era: str) -> None:
        self.kind, self.config, self.number, self.easy, self.era = kind, config, number, easy, era

    def of(self, path: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
        c, last = self.config, path[-1] if path else ""
        if not path:
            return self.root()
        if last == "mapping":
            return "MappingNetwork", {
                "c_dim": c.c_dim,
                "num_layers": c.num_mapping_layers,
                "w_avg_beta": getattr(c, "w_avg_beta", None),
            }
        if last == "synthesis":
            return "SynthesisNetwork", {
                "w_dim": c.w_dim,
                "num_ws": c.num_ws,
                "block_resolutions": list(c.resolutions),
            }
        if last in ("affine", "fc", "out", "embed") or last.startswith("fc"):
            mapped = path[0] == "mapping" and last != "embed"
            gain = c.mapping_lr_multiplier if mapped else 1
            act = {"affine": "linear", "out": "linear", "embed": "linear", "fc": c.activation}
            return "FullyConnectedLayer", {
                "activation": c.mapping_activation if mapped else act[last],
                "weight_gain": self.number(gain / 8),
                "bias_gain": gain,
            }
        if last.startswith("b") and last[1:].isdigit():
            res = int(last[1:])
            fp16 = res > c.img_resolution >> c.num_fp16_res and res > 4
            common = {"resolution": res, "architecture": c.architecture, "use_fp16": fp16}
            if self.kind == "generator":
                return "SynthesisBlock", {**common, "is_last": res == c.img_resolution}
            return ("DiscriminatorEpilogue" if res == 4 else "DiscriminatorBlock"), common
        clamp = {"conv_clamp": c.conv_clamp}
        if last == "torgb":
            return "ToRGBLayer", {**clamp, "weight_gain": self.number(0.5)}
        if last == "skip" or (path[0] == "b4" and last == "fromrgb"):
            clamp = {"conv_clamp": None}
        if self.kind == "generator" and last in ("conv0", "conv1"):
            return "SynthesisLayer", {
                **clamp,
                "use_noise": c.use_noise,
                "activation": c.activation,
                "act_gain": self.number(2**0.5),
            }
        activation = "linear" if last == "skip" else c.activation
        return "Conv2dLayer", {**clamp, "activation": activation, "padding": 1}

    def root(self) -> tuple[str, dict[str, Any]]:
        c = self.config
        mapping = {
            "num_layers": c.num_mapping_layers,
            "embed_features": c.embed_features,
            "layer_features": c.mapping_layer_features,
            "activation": c.mapping_activation,
            "lr_multiplier": c.mapping_lr_multiplier,
        }
        width = {
            "channel_base": c.channel_base,
            "channel_max": c.channel_max,
            "num_fp16_res": c.num_fp16_res,
            "conv_clamp": c.conv_clamp,
        }
        block = {"activation": c.activation, "resample_filter": list(c.resample_filter)}
        sizes = {
            "c_dim": c.c_dim,
            "img_resolution": c.img_resolution,
            "img_channels": c.img_channels,
        }
        if self.kind == "generator":
            sizes = {"z_dim": c.z_dim, "w_dim": c.w_dim, **sizes}
            mapping["w_avg_beta"] = c.w_avg_beta
            synthesis = {
                **width, **block, "architecture": c.architecture, "use_noise": c.use_noise
            }  # fmt: skip
            kwargs = {**sizes, "mapping_kwargs": mapping}
            if self.era == "ada":
                kwargs["synthesis_kwargs"] = synthesis
            else:
                kwargs |= {**synthesis, "fused_modconv_default": "inference_only"}
            name = "Generator"
        else:
            kwargs = {
                **sizes,
                **width,
                "architecture": c.architecture,
                "cmap_dim": c.cmap_dim,
                "block_kwargs": {**block, "freeze_layers": 0},
                "mapping_kwargs": mapping,
                "epilogue_kwargs": {
                    "mbstd_group_size": c.mbstd_group_size,
                    "mbstd_num_channels": c.mbstd_num_channels,
                },
            }
            name = "Discriminator"
        init = {
            key: self.easy(value) if isinstance(value, dict) else value
            for key, value in kwargs.items()
        }
        return name, {**sizes, "_init_args": (), "_init_kwargs": init}
