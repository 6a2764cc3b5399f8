"""Hand-made hostile files of numpy's formats, .npy and .npz."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np

from .assembler import P2, STOP, call, ref, text
from .safetensors_files import safe
from .torch_archives import patched, zipped


def npy(header: str | bytes, body: bytes, version: bytes = b"\x01\x00") -> bytes:
    """An array in numpy's format, valid or not: header and body as given."""
    raw = header.encode() if isinstance(header, str) else header
    length = struct.pack("<H" if version[0] == 1 else "<I", len(raw))
    return b"\x93NUMPY" + version + length + raw + body


def npz(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive with these members."""
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
        "lying_size.npz": patched(archive, first + 24, b"\xff\xff\xff\x00"),
        "lying_small.npz": patched(archive, first + 24, b"\x10\x00\x00\x00"),
        "encrypted.npz": patched(archive, first + 8, b"\x01\x00"),
        "method.npz": patched(archive, first + 10, b"\x0c\x00"),
        "offset.npz": patched(archive, first + 42, b"\xff\xff\xff\x7f"),
        "version.npz": patched(archive, first + 6, b"\xff\x00"),
        "crc.npz": patched(archive, first + 16, b"\0\0\0\0"),
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

    def array(header: str, size: int = 4, version: bytes = b"\x01\x00") -> bytes:
        return npy(header + "\n", bytes(size), version)

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
        "header_superscript.npy": shaped("(\xb9,)"),
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
    packed_bomb = npz({"w.npy": bomb}, zipfile.ZIP_DEFLATED)
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
        "bomb_says_little.npz": patched(
            packed_bomb, packed_bomb.find(b"PK\x01\x02") + 24, struct.pack("<I", 100)
        ),
        "packed_size.npz": patched(packed, packed_first + 20, b"\x01\0\0\0"),
        "packed_crc.npz": patched(packed, packed_first + 16, b"\0\0\0\0"),
        "zip64_sizes.npz": patched(archive, first + 20, b"\xff" * 8),
        "local_name.npz": patched(archive, 30, b"v.npy"),
        "local_magic.npz": patched(archive, 0, b"PK\x03\x05"),
        "local_extra.npz": patched(archive, 28, b"\xff\xff"),
        "directory_magic.npz": patched(archive, first, b"PK\x01\x03"),
        "directory_size.npz": patched(archive, end + 12, b"\xff\xff\xff\x7f"),
        "directory_offset.npz": patched(archive, end + 16, b"\xff\xff\xff\x7f"),
        "noise_packed_text.npz": npz({"noise.npy": b"\x93NUMPY" * 10}, zipfile.ZIP_DEFLATED),
    }


def _garbage(good: bytes) -> bytes:
    data = npz({"w.npy": good}, zipfile.ZIP_DEFLATED)
    start = data.find(b"w.npy") + 5
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    size = len(packed.compress(good) + packed.flush())
    return patched(data, start, b"\xff" * min(size, 16))
