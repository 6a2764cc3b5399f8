"""Hand-made hostile files of torch.save, in its zip archive and in the stream before it."""

from __future__ import annotations

import io
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

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


def state_dict(pid: Callable[[str, int], bytes] = _pid) -> bytes:
    """A state dict of LPIPS weights, the smallest network that is known."""
    body = b""
    for i, c in enumerate(LINS):
        size = many(number(1), number(c), number(1), number(1))
        held = pid(str(i), c)
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
            if name not in skip:
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


def patched(data: bytes, at: int, value: bytes) -> bytes:
    """`data` with `value` in place of what is at `at`."""
    return data[:at] + value + data[at + len(value) :]


def torch_files(canary: Path) -> dict[str, bytes]:
    """Files in the formats of torch.save; every one must be refused."""
    good, old = zipped(), legacy()
    end, first = good.rfind(b"PK\x05\x06"), good.find(b"PK\x01\x02")
    shell = call(ref("posix", "system"), text(f"touch {canary}"))
    inner = P2 + shell + STOP
    two = io.BytesIO(good)
    with zipfile.ZipFile(two, "a") as archive:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive.writestr("archive/data.pkl", inner)
    tar = io.BytesIO()
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
        return patched(good, first + field, value)

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
        "zip_nul_name": patched(good, good.find(b"archive/byteorder"), b"archive/byteo\0de"),
        "zip_comment": good[:-2] + b"\x05\x00hello",
        "zip_prefix": b"PK junk" + good,
        "zip_trailing": good + b"\0",
        "zip_no_directory": good[:end],
        "zip_half": good[: len(good) // 2],
        "zip_flipped_data": patched(good, good.find(bytes(64)) + 20, b"\x01"),
        "zip_flipped_pickle": patched(good, good.find(b"lin0"), b"lin9"),
        "zip_encrypted": central(8, b"\x01\x00"),
        "zip_method": central(10, b"\x63\x00"),
        "zip_crc": central(16, b"\0\0\0\0"),
        "zip_size_huge": central(20, b"\xfe\xff\xff\x7f\xfe\xff\xff\x7f"),
        "zip_size_zip64": central(20, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        "zip_name_size": central(28, b"\xff\xff"),
        "zip_extra_size": central(30, b"\xff\xff"),
        "zip_offset": central(42, b"\xff\xff\xff\x7f"),
        "zip_overlap": central(42, struct.pack("<I", good.find(b"PK\x03\x04", 4))),
        "zip_count_more": patched(good, end + 8, b"\xff\x00\xff\x00"),
        "zip_count_fewer": patched(good, end + 8, b"\x01\x00\x01\x00"),
        "zip_disks": patched(good, end + 4, b"\x01\x00"),
        "zip_directory_offset": patched(good, end + 16, b"\0\0\0\0"),
        "zip_directory_size": patched(good, end + 12, b"\xff\xff\xff\x7f"),
        "zip_only_end": good[end:],
        "zip_empty": b"PK\x05\x06" + bytes(18),
        "zip_local_name": patched(good, good.find(b"archive/data.pkl"), b"archive/data.pk_"),
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

    def numbered(before: bytes) -> bytes:
        """A dict one key of which is a number."""
        return EMPTY_DICT + MARK + before + number(5) + tensor(held) + SETITEMS

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
        "e4e_name_number": archive(mapping(state_dict=numbered(b""), opts=EMPTY_DICT)),
        "e4e_name_number_behind_text": archive(
            mapping(state_dict=numbered(text("module.encoder.a") + tensor(held)), opts=EMPTY_DICT)
        ),
        "rosinality_name_number": archive(mapping(g_ema=numbered(b""))),
        "name_number": archive(numbered(b"")),
        "e4e_system_in_opts": archive(mapping(state_dict=ORDERED, opts=mapping(a=shell))),
        "e4e_path_in_opts": archive(
            mapping(state_dict=ORDERED, opts=mapping(a=call(ref("pathlib", "PosixPath"))))
        ),
        "zip_root_above": zipped(root=".."),
        "zip_root_absolute": zipped(root="/tmp"),
        "zip_name_colon_dots": zipped(extra={"archive/data/../../../x": b""}),
        "zip_local_extra": patched(good, 28, b"\xff\xff"),
        "zip_local_method": patched(good, 8, b"\x08\x00"),
        "zip_local_magic": patched(good, 0, b"PK\x03\x05"),
        "zip_directory_magic": patched(good, first, b"PK\x01\x03"),
        "zip_comment_beyond": patched(good, end + 20, b"\xff\xff"),
        "zip_count_zero": patched(good, end + 8, b"\0\0\0\0"),
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
