"""Files written by torch.save: state dicts, rosinality's StyleGAN2, e4e, whole modules (PTI).

Both containers are read: the zip archive of torch >= 1.6 and the legacy stream before it. The
pickle inside goes through the same opcode machine as NVIDIA's files; torch.load is not involved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .checkpoint import Checkpoint
from .container import read_zip
from .e4e import holds_e4e, read_e4e
from .nvidia import PERSISTENT_GLOBALS, network_in
from .opcodes import Machine
from .records import OPTION_GLOBALS, Global, InertDict, ModuleRecord
from .rosinality import holds_rosinality, read_rosinality
from .source import Source, shown
from .statedicts import identify, take, without_prefix
from .storages import (
    STORAGE_GLOBALS,
    TENSOR_GLOBALS,
    Storage,
    TensorRecord,
    read_legacy,
    same_storage,
    storage_of_pid,
)
from .stylegan1 import read_stylegan1, stylegan1_layout

__all__ = ["read_torch", "read_torch_object"]

_MAX_TENSORS = 20_000
_MAX_NAME_CHARS = 256

_TORCH_GLOBALS: dict[tuple[str, str], Global] = {
    **PERSISTENT_GLOBALS,
    **OPTION_GLOBALS,
    **STORAGE_GLOBALS,
    **TENSOR_GLOBALS,
}

_HINTS = {
    "torch.nn.modules": (
        "is a whole module saved with torch.save, which only its own code can rebuild; save its "
        "state_dict() instead"
    ),
    "__torch__": (
        "is a TorchScript archive, as NVIDIA's vgg16.pt and inception files are: a program, which "
        "is never run here. For LPIPS take torchvision's VGG16 and the weights of the lpips "
        "package; of another network save the state_dict()"
    ),
}


def _read_zip_object(source: Source) -> object:
    members = read_zip(source)
    root = next((n.split("/")[0] for n in members if n.endswith("/data.pkl")), None)
    pickles = [name for name in members if name.split("/")[-1] == "data.pkl"]
    if root is None or pickles != [f"{root}/data.pkl"]:
        source.fail("is a zip archive without exactly one data.pkl: not a file of torch.save")
    if any(name.startswith(f"{root}/code/") or name.endswith("constants.pkl") for name in members):
        source.fail(_HINTS["__torch__"])
    order = members.get(f"{root}/byteorder")
    if order is not None and bytes(order.verified(source)[:16]) != b"little":
        source.fail("is not little-endian", "member byteorder")
    storages: dict[str, Storage] = {}

    def persistent(machine: Machine, pid: object) -> Storage:
        storage = same_storage(machine, storages, storage_of_pid(machine, pid, legacy=False))
        if storage.data is None:
            member = members.get(f"{root}/data/{storage.key}")
            if member is None:
                machine.fail(f"storage {shown(storage.key)} has no data in the archive")
            if len(member.data) != storage.nbytes:
                machine.fail(
                    f"storage {shown(storage.key)} has {len(member.data)} bytes of data, "
                    f"{storage.nbytes} were announced"
                )
            storage.data = member.verified(source) if source.values else member.data
        return storage

    machine = Machine(
        source,
        members[f"{root}/data.pkl"].verified(source),
        names=_TORCH_GLOBALS,
        hints=_HINTS,
        persistent=persistent,
        where="data.pkl",
    )
    value = machine.run()
    if machine.pos != len(machine.data):
        source.fail("bytes after the end of the pickle", "data.pkl")
    return value


def _state_dict(source: Source, value: object) -> dict[str, TensorRecord]:
    """`value` as name -> tensor; the reason why not otherwise."""
    if type(value) not in (dict, InertDict):
        source.fail(f"holds {shown(value)}, not a state dict")
    names: Mapping[Any, Any] = value  # type: ignore[assignment]
    if len(names) > _MAX_TENSORS:
        source.fail(f"has {len(names)} entries, more than {_MAX_TENSORS}")
    out = {}
    for name, item in names.items():
        if type(name) is not str or len(name) > _MAX_NAME_CHARS:
            source.fail(f"an entry called {shown(name)}")
        if type(item) is not TensorRecord:
            source.fail(f"is {shown(item)}, not a tensor", f"entry {shown(name)}")
        out[name] = item
    return without_prefix(out)


def _has_module(value: Any) -> bool:
    return any(type(value.get(name)) is ModuleRecord for name in ("G_ema", "G", "D"))


def read_torch_object(source: Source) -> object:
    """The object in a file of torch.save, as records and plain values; nothing is looked at yet.

    Raises:
        CheckpointError: the file is malformed or hostile.
    """
    if bytes(source.data[:2]) == b"PK":
        return _read_zip_object(source)
    return read_legacy(source, source.data, _TORCH_GLOBALS, hints=_HINTS)


def read_torch(source: Source, part: str = "generator") -> Checkpoint:
    """Read a network, told by its tensor names, or by its class where a whole module was saved.

    Args:
        source: the file.
        part: "generator", "discriminator" or "encoder", where a file holds several.

    Raises:
        CheckpointError: the file is malformed or hostile, or its network is not known here.
    """
    value = read_torch_object(source)
    form = "torch-zip" if bytes(source.data[:2]) == b"PK" else "torch-legacy"
    if type(value) is ModuleRecord or (type(value) in (dict, InertDict) and _has_module(value)):
        return network_in(source, value, part, form)
    if holds_e4e(value):
        return read_e4e(source, value, part, form)  # type: ignore[arg-type]
    if holds_rosinality(value):
        return read_rosinality(source, value, part, form)
    records = _state_dict(source, value)
    if stylegan1_layout(records):
        return read_stylegan1(source, records, part, form)
    layout = identify(source, records)
    tensors = take(source, records, layout)
    return Checkpoint(layout.kind, layout.config, tensors, {"format": form}, source.name)
