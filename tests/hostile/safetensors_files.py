"""Hand-made hostile files of the safetensors format."""

from __future__ import annotations

import json
import struct
from typing import Any


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
            {k: v for k, v in content.items() if k != "__metadata__"}, body, config=config,
            kind="stylegan2-discriminator",
        ),
    }  # fmt: skip
