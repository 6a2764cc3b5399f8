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
    number,
    ref,
    storage_pid,
    stream,
    tensor,
    text,
)

LINS = [64, 128, 256, 512, 512]


def _pid(key: str, numel: int, kind: str = "FloatStorage") -> bytes:
    return many(text("storage"), ref("torch", kind), text(key), text("cpu"), number(numel)) + PERSID


def _lins(pid: Any = _pid, scale: int = 1) -> bytes:
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
    members = {f"{root}/data.pkl": P2 + _lins() + STOP if pickle is None else pickle}
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
    parts = [number(0x1950A86A20F9469CFC6C), number(1001), info, _lins(pid), keys]
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
            (P2 + _lins() + STOP).replace(
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
        "integers": zipped(P2 + _lins(lambda k, n: _pid(k, n, "IntStorage")) + STOP),
        "not_finite": zipped(extra={"archive/data/0": b"\xff" * 256}),
        "pickle_trailing": zipped(P2 + _lins() + STOP + b"N."),
        "pickle_truncated": zipped((P2 + _lins() + STOP)[:-10]),
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
    }


def _garbage(good: bytes) -> bytes:
    data = npz({"w.npy": good}, zipfile.ZIP_DEFLATED)
    start = data.find(b"w.npy") + 5
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    size = len(packed.compress(good) + packed.flush())
    return _patched(data, start, b"\xff" * min(size, 16))
