"""Hand-made hostile files of the torch.save, safetensors and numpy formats."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .assembler import (
    EMPTY_DICT,
    MARK,
    NONE,
    ORDERED,
    P2,
    PERSID,
    SETITEMS,
    STOP,
    call,
    many,
    mapping,
    module,
    number,
    raw,
    ref,
    state,
    storage_pid,
    stream,
    tensor,
    text,
)

LINS = [64, 128, 256, 512, 512]


def _pid(key: str, numel: int, kind: str = "FloatStorage") -> bytes:
    return many(text("storage"), ref("torch", kind), text(key), text("cpu"), number(numel)) + PERSID


def state_dict(pid: Any = _pid, scale: int = 1) -> bytes:
    """A state dict of LPIPS weights, the smallest network that is known."""
    body = b""
    for i, c in enumerate(LINS):
        size = many(number(1), number(c), number(1), number(1))
        held = pid(str(i), c * scale)
        body += text(f"lin{i}.model.1.weight")
        body += tensor(held, number(0), size, many(number(c), *[number(1)] * 3))
    return EMPTY_DICT + MARK + body + SETITEMS


def zipped(
    pickle: bytes | None = None,
    extra: dict[str, bytes] | None = None,
    *,
    root: str = "archive",
    skip: tuple[str, ...] = (),
    method: int = zipfile.ZIP_STORED,
) -> bytes:
    """A torch.save archive; valid without arguments."""
    members = {f"{root}/data.pkl": P2 + state_dict() + STOP if pickle is None else pickle}
    members |= {f"{root}/data/{i}": bytes(4 * c) for i, c in enumerate(LINS)}
    members |= {f"{root}/byteorder": b"little", f"{root}/version": b"3\n", **(extra or {})}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            if name not in skip and data is not None:
                archive.writestr(name, data)
    return out.getvalue()


def legacy() -> bytes:
    """The same as a legacy stream; valid."""
    info = mapping(protocol_version=number(1001), little_endian=b"\x88", type_sizes=EMPTY_DICT)

    def pid(key: str, numel: int) -> bytes:
        return storage_pid(numel, key=key)

    keys = b"]" + MARK + b"".join(text(str(i)) for i in range(5)) + b"e"
    parts = [number(0x1950A86A20F9469CFC6C), number(1001), info, state_dict(pid), keys]
    out = b"".join(P2 + part + STOP for part in parts)
    return out + b"".join(struct.pack("<q", c) + bytes(4 * c) for c in LINS)


def _patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def torch_files(canary: Path) -> dict[str, bytes]:
    """Files in the formats of torch.save; every one must be refused."""
    good, old = zipped(), legacy()
    end, first = good.rfind(b"PK\x05\x06"), good.find(b"PK\x01\x02")
    shell = call(ref("posix", "system"), text(f"touch {canary}"))
    inner = P2 + shell + STOP
    two = io.BytesIO(good)
    with zipfile.ZipFile(two, "a") as archive:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive.writestr("archive/data.pkl", inner)
    tar = io.BytesIO()
    import tarfile

    with tarfile.open(fileobj=tar, mode="w") as t:
        for name in ("storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.size = len(inner)
            t.addfile(member, io.BytesIO(inner))
    sparse = call(ref("torch._utils", "_rebuild_sparse_tensor"), NONE, NONE)
    persistence = call(ref("torch_utils.persistence", "_reconstruct_persistent_obj"), EMPTY_DICT)

    def dict_with(value: bytes) -> bytes:
        return zipped(P2 + mapping(a=value) + STOP)

    def with_pid(pid: bytes) -> bytes:
        return dict_with(tensor(pid))

    def central(field: int, value: bytes) -> bytes:
        return _patched(good, first + field, value)

    return {
        "zip_system": zipped(inner),
        "zip_system_in_dict": dict_with(shell),
        "zip_load_from_bytes": dict_with(
            call(ref("torch.storage", "_load_from_bytes"), b"C" + bytes([len(inner)]) + inner)
        ),
        "zip_system_as_pid": dict_with(shell + PERSID),
        "zip_no_pickle": zipped(skip=("archive/data.pkl",)),
        "zip_two_pickles": two.getvalue(),
        "zip_two_roots": zipped(extra={"other/data.pkl": inner}),
        "zip_torchscript": zipped(extra={"archive/code/__torch__.py": b"x"}),
        "zip_constants": zipped(extra={"archive/constants.pkl": inner}),
        "zip_deflated": zipped(method=zipfile.ZIP_DEFLATED),
        "zip_bomb": zipped(extra={"archive/x": bytes(50_000_000)}, method=zipfile.ZIP_DEFLATED),
        "zip_missing_storage": zipped(skip=("archive/data/3",)),
        "zip_short_storage": zipped(extra={"archive/data/3": bytes(4)}),
        "zip_long_storage": zipped(extra={"archive/data/3": bytes(4 * 513)}),
        "zip_big_endian": zipped(extra={"archive/byteorder": b"big"}),
        "zip_parent_name": zipped(extra={"archive/../../x": b""}),
        "zip_absolute_name": zipped(extra={"/etc/x": b""}),
        "zip_backslash_name": zipped(extra={"archive\\x": b""}),
        "zip_nul_name": _patched(good, good.find(b"archive/byteorder"), b"archive/byteo\0de"),
        "zip_comment": good[:-2] + b"\x05\x00hello",
        "zip_prefix": b"PK junk" + good,
        "zip_trailing": good + b"\0",
        "zip_no_directory": good[:end],
        "zip_half": good[: len(good) // 2],
        "zip_flipped_data": _patched(good, good.find(bytes(64)) + 20, b"\x01"),
        "zip_flipped_pickle": _patched(good, good.find(b"lin0"), b"lin9"),
        "zip_encrypted": central(8, b"\x01\x00"),
        "zip_method": central(10, b"\x63\x00"),
        "zip_crc": central(16, b"\0\0\0\0"),
        "zip_size_huge": central(20, b"\xfe\xff\xff\x7f\xfe\xff\xff\x7f"),
        "zip_size_zip64": central(20, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        "zip_name_size": central(28, b"\xff\xff"),
        "zip_extra_size": central(30, b"\xff\xff"),
        "zip_offset": central(42, b"\xff\xff\xff\x7f"),
        "zip_overlap": central(42, struct.pack("<I", good.find(b"PK\x03\x04", 4))),
        "zip_count_more": _patched(good, end + 8, b"\xff\x00\xff\x00"),
        "zip_count_fewer": _patched(good, end + 8, b"\x01\x00\x01\x00"),
        "zip_disks": _patched(good, end + 4, b"\x01\x00"),
        "zip_directory_offset": _patched(good, end + 16, b"\0\0\0\0"),
        "zip_directory_size": _patched(good, end + 12, b"\xff\xff\xff\x7f"),
        "zip_only_end": good[end:],
        "zip_empty": b"PK\x05\x06" + bytes(18),
        "zip_local_name": _patched(good, good.find(b"archive/data.pkl"), b"archive/data.pk_"),
        "pid_text": with_pid(text("0") + PERSID),
        "pid_short": with_pid(many(text("storage"), ref("torch", "FloatStorage")) + PERSID),
        "pid_traversal": with_pid(_pid("../data.pkl", 4)),
        "pid_numel_negative": with_pid(_pid("0", -1)),
        "pid_numel_huge": with_pid(_pid("0", 1 << 39)),
        "pid_two_ways": dict_with(tensor(_pid("0", 64)) + text("b") + tensor(_pid("0", 32))),
        "pid_unknown_type": with_pid(_pid("0", 64, "QUInt8Storage")),
        "pid_list": with_pid(b"]" + PERSID),
        "tensor_alone": zipped(P2 + tensor(_pid("0", 64)) + STOP),
        "nothing": zipped(P2 + NONE + STOP),
        "empty_dict": zipped(P2 + EMPTY_DICT + STOP),
        "dict_of_numbers": dict_with(number(5)),
        "dict_of_dicts": dict_with(EMPTY_DICT),
        "unknown_network": dict_with(tensor(_pid("0", 64))),
        "sparse": dict_with(sparse),
        "whole_module": dict_with(call(ref("torch.nn.modules.linear", "Linear"))),
        "rosinality": zipped(P2 + mapping(g_ema=ORDERED, latent_avg=NONE) + STOP),
        "rosinality_training": zipped(
            P2 + mapping(g=ORDERED, args=ref("argparse", "Namespace") + b")\x81") + STOP
        ),
        "e4e": zipped(P2 + mapping(state_dict=ORDERED, opts=EMPTY_DICT) + STOP),
        "pti": zipped(P2 + persistence + STOP),
        "lins_small": zipped(P2 + mapping(**{"lin0.model.1.weight": tensor(_pid("0", 64))}) + STOP),
        "lins_transposed": zipped(
            (P2 + state_dict() + STOP).replace(
                many(number(1), number(128), number(1), number(1)),
                many(number(128), number(1), number(1), number(1)),
            )
        ),
        "vgg_half": zipped(P2 + mapping(**{"features.0.weight": tensor(_pid("0", 64))}) + STOP),
        "fan_half": zipped(
            P2
            + mapping(
                **{
                    name: tensor(_pid("0", 64))
                    for name in ("conv1.weight", "l0.weight", "m0.b1_1.bn1.weight")
                }
            )
            + STOP
        ),
        "integers": zipped(P2 + state_dict(lambda k, n: _pid(k, n, "IntStorage")) + STOP),
        "not_finite": zipped(extra={"archive/data/0": b"\xff" * 256}),
        "pickle_trailing": zipped(P2 + state_dict() + STOP + b"N."),
        "pickle_truncated": zipped((P2 + state_dict() + STOP)[:-10]),
        "legacy_system": stream(shell, b"", numel=0),
        "legacy_half": old[: len(old) // 2],
        "legacy_trailing": old + b"\0",
        "legacy_no_data": old[: old.find(bytes(200))],
        "legacy_version": old.replace(b"J\xe9\x03\0\0", b"J\xea\x03\0\0", 1),
        "legacy_fewer_keys": old.replace(text("4") + b"e", b"e"),
        "legacy_numel": old.replace(struct.pack("<q", 64), struct.pack("<q", 63)),
        "tar": tar.getvalue(),
        "bare_pickle_of_state_dict": P2 + mapping(a=number(1)) + STOP,
    }


def torch_disguises(canary: Path, exhausting: dict[str, bytes]) -> dict[str, bytes]:
    """The attacks on network pickles once more, inside of torch's containers; all to be refused.

    Args:
        canary: what an attack that works leaves behind.
        exhausting: pickles that cost more than they weigh, by name.
    """
    shell = call(ref("posix", "system"), text(f"touch {canary}"))
    source = f"open({str(canary)!r}, 'w')"
    inner = P2 + shell + STOP
    good, old = zipped(), legacy()
    held = _pid("0", 64)
    zero, one = number(0), number(1)
    load_bytes = call(ref("torch.storage", "_load_from_bytes"), raw(inner))
    first, end = good.find(b"PK\x01\x02"), good.rfind(b"PK\x05\x06")

    def archive(value: bytes) -> bytes:
        return zipped(P2 + value + STOP)

    def view(*args: bytes) -> bytes:
        return archive(mapping(**{"lin0.model.1.weight": tensor(held, *args)}))

    def old_view(*args: bytes) -> bytes:
        return stream(mapping(a=tensor(storage_pid(4), *args)), bytes(16), numel=4)

    wide = many(number(1 << 20), number(1 << 20))
    network = module(state(parameters=mapping(w=tensor(held))), source=source)
    out = {
        "zip_stride_zero": view(zero, wide, many(zero, zero)),
        "zip_stride_negative": view(number(63), many(number(64)), many(number(-1))),
        "zip_offset_beyond": view(one, many(number(64)), many(one)),
        "zip_offset_negative": view(number(-1), many(number(64)), many(one)),
        "zip_size_wraps": view(zero, many(number(1 << 32), number(1 << 32)), many(one, one)),
        "zip_size_text": view(zero, many(text("64")), many(one)),
        "legacy_stride_zero": old_view(zero, wide, many(zero, zero)),
        "legacy_offset_beyond": old_view(one, many(number(4)), many(one)),
        "legacy_load_from_bytes": stream(load_bytes, b"", numel=0),
        "legacy_keys_system": stream(storage_pid(4), bytes(16), numel=4, keys=shell),
        "legacy_pid_system": stream(shell + PERSID, bytes(16), numel=4),
        "legacy_magic_system": P2 + shell + STOP + old,
        "legacy_big_endian": old.replace(b"\x88", b"\x89", 1),
        "pti_source": archive(network),
        "pti_source_in_dict": archive(mapping(G_ema=network)),
        "pti_system_in_state": archive(module(mapping(_parameters=shell), source=source)),
        "pti_load_from_bytes": archive(module(state(parameters=mapping(w=tensor(load_bytes))))),
        "pti_version": archive(module(state(), version=7, source=source)),
        "rosinality_system_in_args": archive(mapping(g=ORDERED, g_ema=ORDERED, args=shell)),
        "rosinality_system_in_state": archive(mapping(g_ema=mapping(a=shell))),
        "rosinality_no_tensors": archive(mapping(g_ema=ORDERED, latent_avg=tensor(held))),
        "rosinality_namespace_call": archive(
            mapping(g_ema=ORDERED, args=call(ref("argparse", "Namespace"), shell))
        ),
        "rosinality_argument_parser": archive(
            mapping(g_ema=ORDERED, args=call(ref("argparse", "ArgumentParser"), text("x")))
        ),
        "e4e_system_in_opts": archive(mapping(state_dict=ORDERED, opts=mapping(a=shell))),
        "e4e_path_in_opts": archive(
            mapping(state_dict=ORDERED, opts=mapping(a=call(ref("pathlib", "PosixPath"))))
        ),
        "zip_root_above": zipped(root=".."),
        "zip_root_absolute": zipped(root="/tmp"),
        "zip_name_colon_dots": zipped(extra={"archive/data/../../../x": b""}),
        "zip_local_extra": _patched(good, 28, b"\xff\xff"),
        "zip_local_method": _patched(good, 8, b"\x08\x00"),
        "zip_local_magic": _patched(good, 0, b"PK\x03\x05"),
        "zip_directory_magic": _patched(good, first, b"PK\x01\x03"),
        "zip_comment_beyond": _patched(good, end + 20, b"\xff\xff"),
        "zip_count_zero": _patched(good, end + 8, b"\0\0\0\0"),
        "zip_directory_twice": good[:end] + good[first:],
        "polyglot_pickle_zip": inner + good,
        "polyglot_legacy_zip": old + good,
        "polyglot_zip_pickle": good + inner,
        "polyglot_png_zip": b"\x89PNG\r\n\x1a\n" + good,
        "polyglot_zip_in_zip": zipped(good),
    }
    for name in (
        "memo_array", "hash_shared_tuple", "hash_collisions", "shared_lists", "deep_tuples",
        "huge_bytes", "huge_text", "huge_frame", "huge_integer", "long_integer", "long_name",
        "set_again", "dict_in_itself",
    ):  # fmt: skip
        out[f"zip_{name}"] = zipped(exhausting[name])
    return out


def safe(
    header: dict[str, Any] | bytes | None = None,
    body: bytes | None = None,
    *,
    config: Any = None,
    kind: Any = "stylegan2-generator",
    version: Any = 1,
    size: int | None = None,
) -> bytes:
    """A safetensors file, hostile or not, from its parts."""
    about = json.dumps({"version": version, "kind": kind, "config": config or {}})
    if header is None:
        header = {}
    if isinstance(header, dict):
        header = json.dumps({"__metadata__": {"pyfacelat": about}, **header}).encode()
    return struct.pack("<Q", len(header) if size is None else size) + header + (body or b"")


def _entry(
    dtype: Any = "F32", shape: Any = None, offsets: Any = None, **more: Any
) -> dict[str, Any]:
    shape = [1] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets or [0, 4], **more}


def safetensors_files(config: dict[str, Any], valid: bytes) -> dict[str, bytes]:
    """Files in the native format; every one must be refused.

    Args:
        config: of a small generator.
        valid: such a generator's file.
    """
    (length,) = struct.unpack_from("<Q", valid)
    header, body = valid[8 : 8 + length], valid[8 + length :]
    content = json.loads(header)
    about = json.loads(content["__metadata__"]["pyfacelat"])
    names = [name for name in content if name != "__metadata__"]

    def changed(**changes: Any) -> bytes:
        new = {**about, "config": {**about["config"], **changes}}
        text = json.dumps({**content, "__metadata__": {"pyfacelat": json.dumps(new)}}).encode()
        return struct.pack("<Q", len(text)) + text + body

    def entry(name: str, **changes: Any) -> bytes:
        text = json.dumps({**content, name: {**content[name], **changes}}).encode()
        return struct.pack("<Q", len(text)) + text + body

    four = bytes(4)
    deep = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    duplicate = b'{"a":' + json.dumps(_entry()).encode() + b',"a":' + json.dumps(_entry()).encode()
    last = names[-1]
    return {
        "short": b"\x02\0\0\0\0",
        "header_zero": struct.pack("<Q", 0) + b"{}" + four,
        "header_beyond": safe(size=1 << 20),
        "header_huge": safe(size=(1 << 63) + 5),
        "header_all_ones": b"\xff" * 8 + b"{}",
        "header_no_json": safe(b"{not json}"),
        "header_list": safe(b"{} []"),
        "header_deep": safe(deep),
        "header_deep_lists": safe(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        "header_duplicate": safe(duplicate + b"}", four),
        "header_nan": safe(b'{"a": NaN}'),
        "header_long_number": safe(b'{"a": ' + b"9" * 50_000 + b"}"),
        "header_utf16": safe('{"a": 1}'.encode("utf-16")),
        "header_whole_in_utf16": safe(header.decode().encode("utf-16-le"), body),
        "header_whole_in_utf32": safe(header.decode().encode("utf-32-le"), body),
        "header_not_utf8": safe(b'{"\xff\xfe": 1}'),
        "header_five_mb": safe(b"{" + b" " * (5 << 20) + b"}"),
        "header_many_lists": safe(b'{"a": [' + b"[]," * 1_000_000 + b"[]]}"),
        "no_metadata": safe(json.dumps({"a": _entry()}).encode(), four),
        "metadata_number": safe(b'{"__metadata__": 5}'),
        "metadata_values": safe(b'{"__metadata__": {"pyfacelat": 5}}'),
        "foreign_metadata": safe(b'{"__metadata__": {"format": "pt"}}'),
        "about_no_json": safe(b'{"__metadata__": {"pyfacelat": "{"}}'),
        "about_list": safe(b'{"__metadata__": {"pyfacelat": "[]"}}'),
        "about_version": safe(version=2),
        "about_version_boolean": safe(version=True),
        "about_kind": safe(kind="os.system"),
        "about_kind_list": safe(kind=["fan"]),
        "about_config_list": safe(config=[1]),
        "about_config_deep": safe(config={"a": [[[[[[[[[[1]]]]]]]]]]}),
        "about_config_wide": safe(config={"a": list(range(3000))}),
        "other_kind": safe(kind="lpips-lins"),
        "config_unknown": changed(exec="import os"),
        "config_resolution": changed(img_resolution=48),
        "config_resolution_huge": changed(img_resolution=1 << 60),
        "config_resolution_float": changed(img_resolution=16.0),
        "config_resolution_other": changed(img_resolution=32),
        "config_boolean": changed(w_dim=True),
        "config_text": changed(z_dim="10"),
        "config_null": changed(w_dim=None),
        "config_layers": changed(num_mapping_layers=10**12),
        "config_width": changed(channel_max=1 << 40, channel_base=1 << 23),
        "config_base": changed(channel_base=1 << 60),
        "config_channels": changed(channels={"4": 10**15}),
        "config_channels_keys": changed(channels={"../x": 4}),
        "config_activation": changed(activation="eval"),
        "config_filter": changed(resample_filter=[]),
        "config_filter_other": changed(resample_filter=[1, 2, 2, 1]),
        "config_filter_long": changed(resample_filter=[1.0] * 1900),
        "config_clamp": changed(conv_clamp=-1),
        "config_clamp_infinite": changed(conv_clamp=1e999),
        "config_more_layers": changed(num_mapping_layers=5),
        "entry_missing": safe({"a": {"dtype": "F32", "shape": [1]}}, four),
        "entry_more": safe({"a": _entry(more=1)}, four),
        "entry_text": safe({"a": "F32"}, four),
        "entry_dtype": safe({"a": _entry("F128")}, four),
        "entry_dtype_list": safe({"a": _entry(["F32"])}, four),
        "entry_shape_text": safe({"a": _entry(shape="1")}, four),
        "entry_shape_float": safe({"a": _entry(shape=[1.0])}, four),
        "entry_shape_boolean": safe({"a": _entry(shape=[True])}, four),
        "entry_shape_negative": safe({"a": _entry(shape=[-1, -1])}, four),
        "entry_shape_wraps": safe({"a": _entry(shape=[1 << 32, 1 << 32])}, four),
        "entry_shape_wraps_to_one": safe({"a": _entry(shape=[(1 << 63) + 1, 2])}, four),
        "entry_dimensions": safe({"a": _entry(shape=[1] * 1000)}, four),
        "entry_offsets_reversed": safe({"a": _entry(offsets=[4, 0])}, four),
        "entry_offsets_beyond": safe({"a": _entry(shape=[2], offsets=[0, 8])}, four),
        "entry_offsets_negative": safe({"a": _entry(offsets=[-4, 0])}, four),
        "entry_offsets_float": safe({"a": _entry(offsets=[0.0, 4.0])}, four),
        "entry_offsets_three": safe({"a": _entry(offsets=[0, 4, 4])}, four),
        "entries_overlap": safe({"a": _entry(), "b": _entry()}, four),
        "entries_gap": safe({"a": _entry(offsets=[4, 8])}, four * 2),
        "entries_too_few": safe({"a": _entry()}, four * 2),
        "entries_hide_pickle": valid + b"\x80\x02cposix\nsystem\nX\x04\0\0\0true\x85R.",
        "zero_size_inside": safe(
            {"a": _entry(shape=[2], offsets=[0, 8]), "b": _entry(shape=[0], offsets=[4, 4])},
            four * 2,
        ),
        "truncated": valid[:-1],
        "half": valid[: len(valid) // 2],
        "tensor_renamed": valid.replace(names[0].encode(), names[0].encode()[:-1] + b"X", 1),
        "tensor_shape": entry(last, shape=[*content[last]["shape"], 1]),
        "tensor_integers": entry(last, dtype="I32"),
        "tensor_nan": valid[:-4] + b"\xff\xff\xff\xff",
        "stats_unknown": safe(
            {**{k: v for k, v in content.items() if k != "__metadata__"}}, body, config=config,
            kind="stylegan2-discriminator",
        ),
    }  # fmt: skip


def npy(header: str | bytes, body: bytes, version: bytes = b"\x01\x00") -> bytes:
    raw = header.encode() if isinstance(header, str) else header
    length = struct.pack("<H" if version[0] == 1 else "<I", len(raw))
    return b"\x93NUMPY" + version + length + raw + body


def npz(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def numpy_files(canary: Path) -> dict[str, bytes]:
    """Files of latents; every one must be refused."""
    form = "{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}\n"
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((1, 2, 3), np.float32))
    good = buffer.getvalue()
    archive = npz({"w.npy": good})
    objects = io.BytesIO()
    np.save(objects, np.array([{}], object), allow_pickle=True)
    code = f"{{'descr': __import__('os').system('touch {canary}'), 'shape': (1,)}}\n"
    end, first = archive.rfind(b"PK\x05\x06"), archive.find(b"PK\x01\x02")
    big = io.BytesIO()
    np.save(big, np.zeros((1, 4000, 8000), np.float32))
    duplicate = io.BytesIO()
    import warnings

    with warnings.catch_warnings(), zipfile.ZipFile(duplicate, "w") as z:
        warnings.simplefilter("ignore")
        z.writestr("w.npy", good)
        z.writestr("w.npy", good)
    flipped = bytearray(npz({"w.npy": good}, zipfile.ZIP_DEFLATED))
    flipped[60] ^= 0xFF
    return {
        "objects.npy": objects.getvalue(),
        "objects.npz": npz({"w.npy": objects.getvalue()}),
        "code.npy": npy(code, bytes(4)),
        "code.npz": npz({"w.npy": npy(code, bytes(4))}),
        "backtracking.npy": npy(form.format("<f4", "(" + "1" * 4000), bytes(4)),
        "huge_shape.npy": npy(form.format("<f4", f"({1 << 39}, {1 << 39})"), bytes(4)),
        "wraps.npy": npy(form.format("<f4", "(4294967296, 4294967297)"), bytes(4)),
        "negative.npy": npy(form.format("<f4", "(-1,)"), bytes(4)),
        "short.npy": good[:-1],
        "long.npy": good + b"\0",
        "half_header.npy": good[:20],
        "magic_only.npy": b"\x93NUMPY",
        "version.npy": npy(form.format("<f4", "(1,)"), bytes(4), b"\x09\x00"),
        "header_huge.npy": npy(b" " * 60_000, b""),
        "header_beyond.npy": b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
        "structured.npy": npy(
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }\n", bytes(4)
        ),
        "integers.npy": npy(form.format("<i4", "(1,)"), bytes(4)),
        "big_endian.npy": npy(form.format(">f4", "(1,)"), bytes(4)),
        "text.npy": npy(form.format("<U1", "(1,)"), bytes(4)),
        "nan.npy": npy(form.format("<f4", "(1,)"), b"\xff\xff\xff\xff"),
        "overflow.npy": npy(form.format("<f8", "(1,)"), struct.pack("<d", 1e300)),
        "scalar.npy": npy(form.format("<f4", "()"), bytes(4)),
        "empty.npy": npy(form.format("<f4", "(0, 512)"), b""),
        "nine.npy": npy(form.format("<f4", "(1, 1, 1, 1, 1, 1, 1, 1, 1)"), bytes(4)),
        "bomb.npz": npz({"w.npy": big.getvalue()}, zipfile.ZIP_DEFLATED),
        "lying_size.npz": _patched(archive, first + 24, b"\xff\xff\xff\x00"),
        "lying_small.npz": _patched(archive, first + 24, b"\x10\x00\x00\x00"),
        "encrypted.npz": _patched(archive, first + 8, b"\x01\x00"),
        "method.npz": _patched(archive, first + 10, b"\x0c\x00"),
        "offset.npz": _patched(archive, first + 42, b"\xff\xff\xff\x7f"),
        "version.npz": _patched(archive, first + 6, b"\xff\x00"),
        "crc.npz": _patched(archive, first + 16, b"\0\0\0\0"),
        "flipped.npz": bytes(flipped),
        "traversal.npz": npz({"../w.npy": good}),
        "absolute.npz": npz({"/tmp/w.npy": good}),
        "duplicate.npz": duplicate.getvalue(),
        "no_array.npz": npz({"w.txt": b"hello"}),
        "not_npy.npz": npz({"w.npy": b"hello"}),
        "empty.npz": npz({}),
        "two_names.npz": npz({"a.npy": good, "b.npy": good}),
        "many.npz": npz({f"a{i}.npy": b"" for i in range(2000)}),
        "half.npz": archive[: len(archive) // 2],
        "only_end.npz": archive[end:],
        "no_numpy.npz": b"hello",
        "pickle.npz": P2 + call(ref("posix", "system"), text(f"touch {canary}")) + STOP,
        "noise_flat.npz": npz({"a.npy": npy(form.format("<f4", "(1,)"), bytes(4))}),
        "noise_four.npz": npz({"a.npy": npy(form.format("<f4", "(1, 1, 1, 1)"), bytes(4))}),
        "noise_array.npy": good,
        "deflate_garbage.npz": _garbage(good),
        **_numpy_headers(),
        **_numpy_archives(canary, good),
    }


def _numpy_headers() -> dict[str, bytes]:
    """Headers that say something else than numpy does about an array of numbers."""

    def array(text: str, size: int = 4, version: bytes = b"\x01\x00") -> bytes:
        return npy(text + "\n", bytes(size), version)

    def typed(descr: str, size: int = 4) -> bytes:
        return array(f"{{'descr': {descr}, 'fortran_order': False, 'shape': (1,), }}", size)

    def shaped(shape: str, size: int = 4) -> bytes:
        return array(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}", size)

    return {
        "header_object.npy": typed("'|O'", 8),
        "header_object_pickle.npy": npy(
            "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n",
            P2 + call(ref("posix", "system"), text("true")) + STOP,
        ),
        "header_datetime.npy": typed("'<M8[ns]'", 8),
        "header_complex.npy": typed("'<c8'", 8),
        "header_void.npy": typed("'|V4'"),
        "header_long_double.npy": typed("'<f16'", 16),
        "header_boolean.npy": typed("'|b1'", 1),
        "header_nested.npy": typed("[('a', [('b', '<f4')])]"),
        "header_subarray.npy": typed("('<f4', (2,))", 8),
        "header_expression.npy": shaped("(2**60,)"),
        "header_list.npy": shaped("[1]"),
        "header_long.npy": shaped("(1L,)"),
        "header_float.npy": shaped("(1.0,)"),
        "header_true.npy": shaped("(True,)"),
        "header_hexadecimal.npy": shaped("(0x1,)"),
        "header_digits.npy": shaped(f"({'9' * 3000},)"),
        "header_brackets.npy": shaped("(" * 1500 + ")" * 1500),
        "header_superscript.npy": shaped("(\xb9,)".encode("latin1").decode("latin1")),
        "header_order_number.npy": array("{'descr': '<f4', 'fortran_order': 1, 'shape': (1,), }"),
        "header_more_keys.npy": array(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1, }"
        ),
        "header_no_shape.npy": array("{'descr': '<f4', 'fortran_order': False, }"),
        "header_code_behind.npy": array(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), } or exit()"
        ),
        "header_two.npy": array("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }" * 2),
        "header_not_ascii.npy": array(
            "{'descr': '<f4\u0661', 'fortran_order': False, 'shape': (1,), }", 4, b"\x03\x00"
        ),
        "header_empty.npy": array(""),
        "header_zero_times_huge.npy": shaped(f"(0, {1 << 39})", 0),
        "minor_version.npy": array("{'descr': '<f4', 'fortran_order': False, }", 4, b"\x01\x01"),
        "half_nan.npy": npy(
            "{'descr': '<f2', 'fortran_order': False, 'shape': (1,), }\n", b"\x00\x7e"
        ),
        "infinity.npy": npy(
            "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }\n",
            struct.pack("<d", float("inf")),
        ),
    }


def _numpy_archives(canary: Path, good: bytes) -> dict[str, bytes]:
    """Archives that are no collection of arrays, or lie about what is in them."""
    archive, packed = npz({"w.npy": good}), npz({"w.npy": good}, zipfile.ZIP_DEFLATED)
    first, end = archive.find(b"PK\x01\x02"), archive.rfind(b"PK\x05\x06")
    packed_first = packed.find(b"PK\x01\x02")
    shell = P2 + call(ref("posix", "system"), text(f"touch {canary}")) + STOP
    link = io.BytesIO()
    with zipfile.ZipFile(link, "w") as z:
        info = zipfile.ZipInfo("w.npy")
        info.external_attr = 0o120777 << 16
        z.writestr(info, "/etc/passwd")
    bomb = npy(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 16000, 2000), }\n",
        bytes(128_000_000),
    )
    return {
        "pickle_inside.npz": npz({"w.npy": shell}),
        "pickle_member.npz": npz({"w.pkl": shell}),
        "pickle_in_front.npz": shell + archive,
        "archive_inside.npz": npz({"w.npy": archive}),
        "torch_inside.npz": zipped(),
        "safetensors_inside.npz": npz({"w.npy": safe()}),
        "link.npz": link.getvalue(),
        "folder.npz": npz({"w.npy/": b""}),
        "no_name.npz": npz({".npy": good}),
        "windows_name.npz": npz({"C:\\w.npy": good}),
        "newline_name.npz": npz({"w\n.npy": good}),
        "unicode_name.npz": npz({"\u202ew.npy": good}),
        "long_name.npz": npz({"w" * 5000 + ".npy": good}),
        "nul_name.npz": archive.replace(b"w.npy", b"w\0npy"),
        "bzip2.npz": npz({"w.npy": good}, zipfile.ZIP_BZIP2),
        "lzma.npz": npz({"w.npy": good}, zipfile.ZIP_LZMA),
        "bomb_of_two.npz": npz({"a.npy": bomb, "b.npy": bomb}, zipfile.ZIP_DEFLATED),
        "bomb_says_little.npz": _patched(
            npz({"w.npy": bomb}, zipfile.ZIP_DEFLATED),
            npz({"w.npy": bomb}, zipfile.ZIP_DEFLATED).find(b"PK\x01\x02") + 24,
            struct.pack("<I", 100),
        ),
        "packed_size.npz": _patched(packed, packed_first + 20, b"\x01\0\0\0"),
        "packed_crc.npz": _patched(packed, packed_first + 16, b"\0\0\0\0"),
        "zip64_sizes.npz": _patched(archive, first + 20, b"\xff" * 8),
        "local_name.npz": _patched(archive, 30, b"v.npy"),
        "local_magic.npz": _patched(archive, 0, b"PK\x03\x05"),
        "local_extra.npz": _patched(archive, 28, b"\xff\xff"),
        "directory_magic.npz": _patched(archive, first, b"PK\x01\x03"),
        "directory_size.npz": _patched(archive, end + 12, b"\xff\xff\xff\x7f"),
        "directory_offset.npz": _patched(archive, end + 16, b"\xff\xff\xff\x7f"),
        "noise_packed_text.npz": npz({"noise.npy": b"\x93NUMPY" * 10}, zipfile.ZIP_DEFLATED),
    }


def _garbage(good: bytes) -> bytes:
    data = npz({"w.npy": good}, zipfile.ZIP_DEFLATED)
    start = data.find(b"w.npy") + 5
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    size = len(packed.compress(good) + packed.flush())
    return _patched(data, start, b"\xff" * min(size, 16))
