"""NVIDIA's network pickles: StyleGAN2-ADA and the StyleGAN2 of the StyleGAN3 repository.

Files of the TensorFlow era come the same way in and go on to `tensorflow`.

A file is one pickle: a dict with G, D, G_ema, augment_pipe and training_set_kwargs. Every module in
it is a call of `torch_utils.persistence._reconstruct_persistent_obj` with the source text of its
class and its attribute dict; the original loader executes that text. Here it stays text, and the
attribute dicts alone are enough to rebuild the network.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

from .checkpoint import Checkpoint, check_floating, check_shapes, materialise
from .names import discriminator_tensors, generator_tensors
from .nvidia_config import discriminator_config, generator_config
from .opcodes import Machine
from .records import COMMON_GLOBALS, Global, InertDict, ModuleRecord
from .source import Source, shown
from .storages import TENSOR_GLOBALS, TensorRecord, load_from_bytes
from .tensorflow import holds_tensorflow, read_tensorflow

__all__ = ["PERSISTENT_GLOBALS", "network_in", "read_nvidia"]

_PERSISTENCE_VERSION = 6
_META_KEYS = {"type", "version", "module_src", "class_name", "state"}
_MAX_DEPTH = 16
_MAX_MODULES = 4096
_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")

# Parts of a file -> the entry that holds it.
_ENTRIES = {"generator": "G_ema", "discriminator": "D"}

# Beginnings of names in networks that come in the same wrapping, and what these are.
_FOREIGN = {
    "synthesis.input.": "a StyleGAN3 generator (configuration T or R, or StyleGAN-XL)",
    "backbone.synthesis.": "an EG3D generator (tri-planes rendered as a volume)",
}


def _persistent_object(machine: Machine, args: tuple[Any, ...]) -> ModuleRecord:
    meta = args[0] if len(args) == 1 else None
    if type(meta) not in (dict, InertDict) or meta.keys() != _META_KEYS:  # type: ignore[union-attr]
        machine.fail("a persistent object without the fields that NVIDIA's code writes")
    kind, version, text = meta["type"], meta["version"], meta["module_src"]  # type: ignore[index]
    class_name, state = meta["class_name"], meta["state"]  # type: ignore[index]
    if type(kind) is not str or kind != "class" or type(text) is not str:
        machine.fail("a persistent object that is no class with source text")
    if type(version) is not int or version != _PERSISTENCE_VERSION:
        machine.fail(
            f"a persistent object of version {shown(version)}; known is {_PERSISTENCE_VERSION}"
        )
    if type(class_name) is not str or not _NAME.fullmatch(class_name):
        machine.fail(f"a persistent object of class {shown(class_name)}")
    if type(state) not in (dict, InertDict):
        machine.fail("a persistent object whose state is no dict")
    return ModuleRecord(class_name, state)


# Modules in files of torch.save (PTI's tuned generators) are described in the same way.
PERSISTENT_GLOBALS = {
    **COMMON_GLOBALS,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): Global(
        "torch_utils.persistence._reconstruct_persistent_obj", call=_persistent_object
    ),
}
_NVIDIA_GLOBALS = {
    **PERSISTENT_GLOBALS,
    **TENSOR_GLOBALS,
    ("torch.storage", "_load_from_bytes"): Global(
        "torch.storage._load_from_bytes", call=load_from_bytes
    ),
}

_ARRAYS = (
    "holds chumpy or scipy objects, as the head model FLAME does; "
    "checkpoints.flame.read_flame reads that"
)
_HINTS = {"chumpy": _ARRAYS, "scipy": _ARRAYS}


def _collect(source: Source, entry: str, root: ModuleRecord) -> dict[str, TensorRecord]:
    """Parameters and buffers of a module tree, dotted names as in its state dict."""
    out: dict[str, TensorRecord] = {}
    todo: list[tuple[str, ModuleRecord, int]] = [("", root, 0)]
    modules = 0
    while todo:
        prefix, module, depth = todo.pop()
        modules += 1
        place = f"{entry}.{prefix}".rstrip(".")
        # A module may be listed in several places, each of which is walked: both limits are needed.
        if depth > _MAX_DEPTH or modules > _MAX_MODULES:
            source.fail("more modules, or deeper nesting, than any network has", place)
        for group, kind in (
            ("_parameters", TensorRecord),
            ("_buffers", TensorRecord),
            ("_modules", ModuleRecord),
        ):
            members: Any = module.state.get(group)
            if type(members) not in (dict, InertDict):
                source.fail(f"{group} is missing or no dict", place)
            if len(members) > _MAX_MODULES:
                source.fail(f"has {len(members)} members", f"{place}.{group}")
            for name, value in members.items():
                if type(name) is not str or not _NAME.fullmatch(name):
                    source.fail(f"a member called {shown(name)}", f"{place}.{group}")
                if value is None:  # e.g. the bias of a layer without one
                    continue
                if type(value) is not kind:
                    source.fail(f"is {shown(value)}", f"{place}.{name}")
                if isinstance(value, ModuleRecord):
                    todo.append((f"{prefix}{name}.", value, depth + 1))
                    continue
                full = prefix + name
                if full in out or len(out) >= _MAX_MODULES:
                    source.fail("is there twice, or one tensor too many", f"{entry}.{full}")
                out[full] = value
    return out


def _entry(source: Source, top: Any, part: str) -> tuple[str, ModuleRecord]:
    """The module of the wanted part in the file's top object."""
    wanted = _ENTRIES[part]
    if type(top) is ModuleRecord:
        return wanted, top
    if type(top) not in (dict, InertDict):
        source.fail(f"holds {shown(top)}, not a dict with {wanted}")
    value = top.get(wanted)
    if type(value) is ModuleRecord:
        return wanted, value
    if value is not None:
        source.fail(f"is {shown(value)}, not a network", wanted)
    names = ", ".join(shown(key, 40) for key, _ in zip(top, range(10), strict=False))
    source.fail(f"has no {wanted}; its entries are: {names or 'none'}")


def _producer(module: ModuleRecord, form: str) -> str:
    kwargs: Any = module.state.get("_init_kwargs")
    flat = "synthesis_kwargs" not in kwargs and "block_kwargs" not in kwargs
    code = "stylegan3 (StyleGAN2)" if flat and "channel_base" in kwargs else "stylegan2-ada-pytorch"
    return f"NVIDIA {code}" + ("" if form == "nvidia-pickle" else ", saved with torch.save")


def _unknown(
    source: Source,
    entry: str,
    module: ModuleRecord,
    records: dict[str, TensorRecord],
    what: str,
    sign: str,
) -> NoReturn:
    first = ", ".join(shown(name, 40) for name in list(records)[:3]) or "none"
    source.fail(
        f"is no StyleGAN2 {what}: a network of class {shown(module.class_name)} with "
        f"{len(records)} tensors and no {sign}; the first are: {first}",
        entry,
    )


def read_nvidia(source: Source, part: str) -> Checkpoint:
    """Read a network out of an NVIDIA pickle.

    Args:
        source: the file.
        part: "generator" (entry G_ema) or "discriminator" (entry D).

    Raises:
        CheckpointError: the file is malformed, refers to anything but what such files contain,
            holds another network (StyleGAN3), or its tensors are not those that its options imply.
    """
    machine = Machine(source, source.data, names=_NVIDIA_GLOBALS, hints=_HINTS)
    return network_in(source, machine.run_alone(), part, "nvidia-pickle")


def network_in(source: Source, top: object, part: str, form: str) -> Checkpoint:
    """The network of the wanted part in a file's top object.

    Args:
        source: the file.
        top: its top object.
        part: as in `read_nvidia`.
        form: the container, for the metadata.

    Raises:
        CheckpointError: as `read_nvidia`.
    """
    if part not in _ENTRIES:
        source.fail(f"holds networks of StyleGAN, and no {part}")
    if holds_tensorflow(top):
        return read_tensorflow(source, top, part)
    entry, module = _entry(source, top, part)
    records = _collect(source, entry, module)
    for sign, what in _FOREIGN.items():
        if any(name.startswith(sign) for name in records):
            source.fail(f"is {what}, which is not run here", entry)
    if part == "generator":
        if "synthesis.b4.const" not in records:
            _unknown(source, entry, module, records, "generator", "synthesis.b4.const")
        config = generator_config(source, entry, module)
        expected = generator_tensors(config)
    else:
        if "b4.out.weight" not in records:
            _unknown(source, entry, module, records, "discriminator", "b4.out.weight")
        config = discriminator_config(source, entry, module)
        expected = discriminator_tensors(config)
    check_shapes(source, expected, {k: r.size for k, r in records.items()}, f"{entry}.")
    for name, record in records.items():
        check_floating(source, f"{entry}.{name}", record.dtype)
    tensors = materialise(source, {name: records[name] for name in expected}, f"{entry}.")
    return Checkpoint(
        f"stylegan2-{part}",
        config,
        tensors,
        {
            "format": form,
            "producer": _producer(module, form),
            "entry": entry,
            "class": module.class_name,
        },
        source.name,
    )
