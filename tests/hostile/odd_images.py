"""Odd and bad images, each with the outcome that reading it must have.

An entry of `TABLE` makes one file. Its outcome is either what it becomes, as (width, height) and
the colour of the top left pixel, or `Refused` with a piece of the message.
"""

from __future__ import annotations

import io
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms


@dataclass(frozen=True)
class Read:
    """Read as an RGB picture.

    Attributes:
        size: width and height.
        corner: top left pixel; lossy formats may be off by 12.
        warns: a piece of the warning there must be; "" for none.
    """

    size: tuple[int, int]
    corner: tuple[int, int, int]
    warns: str = ""


@dataclass(frozen=True)
class Refused:
    """Refused with ImageError, whose message has the file's name and these words."""

    words: str


@dataclass(frozen=True)
class Case:
    """One file: its name, its outcome, and how it is made."""

    name: str
    outcome: Read | Refused
    make: Callable[[Path], object]


RED, WHITE = (255, 0, 0), (255, 255, 255)
TABLE: list[Case] = []


def case(name: str, outcome: Read | Refused, make: Callable[[Path], object] | bytes) -> None:
    """Add an entry; `make` writes the file, or is its content."""
    content = make
    TABLE.append(
        Case(name, outcome, make if callable(make) else lambda path: path.write_bytes(content))
    )


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def plain(mode: str = "RGB", colour: Any = RED, size: tuple[int, int] = (8, 6)) -> Image.Image:
    return Image.new(mode, size, colour)


def noisy(size: int = 64) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(values)


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, depth: int = 8, colour: int = 2, *extra: bytes, data: bytes = b"\0"
) -> bytes:
    header = struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(data))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def sixteen(colour: int, *values: int) -> bytes:
    """A PNG with 16 bits per channel, 2 x 1 pixels of one value."""
    row = b"\0" + struct.pack(f">{len(values)}H", *values) * 2
    return png(2, 1, 16, colour, data=row)


def bitmap(width: int, height: int, data: bytes = b"", bits: int = 24) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, len(data), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, 54) + info + data


def tiff(*entries: tuple[int, int, int], following: int = 0, data: bytes = b"") -> bytes:
    """A TIFF of one directory, all values inline 32-bit integers."""
    body = struct.pack("<H", len(entries))
    for tag, kind, value in sorted(entries):
        body += struct.pack("<HHII", tag, kind, 1, value)
    return b"II*\0" + struct.pack("<I", 8) + body + struct.pack("<I", following) + data


def exif(orientation: int) -> Image.Exif:
    out = Image.Exif()
    out[0x0112] = orientation
    return out


def corner_marked(orientation: int) -> Image.Image:
    """A white 8 x 4 picture whose top left pixels are red, stored as `orientation` has it."""
    upright = np.full((4, 8, 3), 255, np.uint8)
    upright[:2, :2] = RED
    # TIFF 6.0, tag 274: where the stored row 0 and column 0 belong.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    return Image.fromarray(np.ascontiguousarray(stored))


def frames(kind: str) -> bytes:
    return encoded(
        plain(), kind, save_all=True, append_images=[plain(colour=c) for c in ("blue", "green")]
    )


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", "hello")
    return out.getvalue()


# Modes. Alpha lies on white; 16 bits are scaled to 8, not clipped.
half = (100, 100, 100)
case("bilevel.png", Read((8, 6), WHITE), encoded(plain("1", 1), "PNG"))
case("grey.png", Read((8, 6), half), encoded(plain("L", 100), "PNG"))
case("grey_alpha_none.png", Read((8, 6), WHITE), encoded(plain("LA", (100, 0)), "PNG"))
case("grey_alpha_half.png", Read((8, 6), (177, 177, 177)), encoded(plain("LA", (100, 128)), "PNG"))
case("palette.png", Read((8, 6), RED), encoded(plain().convert("P"), "PNG"))
case("palette_transparent.png", Read((8, 6), WHITE), encoded(plain("P", 0), "PNG", transparency=0))
case("palette_transparent.gif", Read((8, 6), WHITE), encoded(plain("P", 0), "GIF", transparency=0))
case("rgb_transparent.png", Read((8, 6), WHITE), encoded(plain(), "PNG", transparency=RED))
case("rgba_none.png", Read((8, 6), WHITE), encoded(plain("RGBA", (10, 20, 30, 0)), "PNG"))
case("rgba_full.png", Read((8, 6), (10, 20, 30)), encoded(plain("RGBA", (10, 20, 30, 255)), "PNG"))
case(
    "rgba_half.png", Read((8, 6), (132, 137, 142)), encoded(plain("RGBA", (10, 20, 30, 128)), "PNG")
)
case("rgba.webp", Read((8, 6), WHITE), encoded(plain("RGBA", (0, 0, 0, 0)), "WEBP", lossless=True))
case("rgba.tiff", Read((8, 6), WHITE), encoded(plain("RGBA", (0, 0, 0, 0)), "TIFF"))
case("cmyk.jpg", Read((8, 6), (0, 255, 255)), encoded(plain("CMYK", (255, 0, 0, 0)), "JPEG"))
case("cmyk.tiff", Read((8, 6), (255, 0, 255)), encoded(plain("CMYK", (0, 255, 0, 0)), "TIFF"))
case("ycbcr.jpg", Read((8, 6), RED), encoded(plain(), "JPEG", quality=95))
case("ycbcr.tiff", Read((8, 6), half), encoded(plain("YCbCr", (100, 128, 128)), "TIFF"))
case("lab.tiff", Refused("LAB"), encoded(plain("LAB", (50, 0, 0)), "TIFF"))
case("sixteen_bits.png", Read((2, 1), half), sixteen(0, 100 * 257))
case("sixteen_bits_dark.png", Read((2, 1), (1, 1, 1)), sixteen(0, 300))
case(
    "sixteen_bits_rgb.png", Read((2, 1), (10, 100, 200)), sixteen(2, 10 * 257, 100 * 257, 200 * 257)
)
case("sixteen_bits_alpha.png", Read((2, 1), WHITE), sixteen(4, 100 * 257, 0))
case("sixteen_bits.tiff", Read((8, 6), half), encoded(plain("I;16", 100 * 257), "TIFF"))
case("thirty_two_bits.tiff", Refused("16-bit"), encoded(plain("I", 1 << 20), "TIFF"))
case("negative.tiff", Refused("16-bit"), encoded(plain("I", -5), "TIFF"))
case("float.tiff", Refused("float"), encoded(plain("F", 0.5), "TIFF"))
case("plain_text.ppm", Read((2, 1), RED), b"P3\n# a comment\n2 1\n255\n255 0 0 0 0 255\n")
case("wide_samples.ppm", Read((1, 1), RED), b"P6 1 1 65535\n\xff\xff\0\0\0\0")
case("bottom_up.bmp", Read((8, 6), RED), encoded(plain(), "BMP"))
case("top_down.bmp", Read((1, 2), RED), bitmap(1, -2, b"\0\0\xff\0" + b"\xff\0\0\0"))

# Orientation is applied.
for value in range(1, 9):
    case(
        f"orientation_{value}.png",
        Read((8, 4), RED),
        encoded(corner_marked(value), "PNG", exif=exif(value)),
    )
case(
    "orientation_6.jpg",
    Read((8, 4), RED),
    encoded(corner_marked(6), "JPEG", exif=exif(6), quality=100, subsampling=0),
)
case(
    "orientation_8.webp",
    Read((8, 4), RED),
    encoded(corner_marked(8), "WEBP", exif=exif(8), lossless=True),
)
case("orientation_9.png", Read((8, 6), RED), encoded(plain(), "PNG", exif=exif(9)))
case("exif_garbage.jpg", Read((8, 6), RED), encoded(plain(), "JPEG", exif=b"Exif\0\0garbage" * 9))

# Of several pictures the first, with a warning.
for kind in ("gif", "png", "webp", "tiff"):
    case(f"animated.{kind}", Read((8, 6), RED, "first frame"), frames(kind.upper()))

# Metadata that is large, odd, or wrong; a profile is not applied.
profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
case("profile.png", Read((8, 6), RED), encoded(plain(), "PNG", icc_profile=profile))
case("profile_garbage.jpg", Read((8, 6), RED), encoded(plain(), "JPEG", icc_profile=b"x" * 500))
case(
    "text_bomb.png",
    Refused("readable"),
    png(1, 1, 8, 2, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000))), data=bytes(4)),
)
case(
    "profile_bomb.png",
    Refused("readable"),
    png(1, 1, 8, 2, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(50_000_000))), data=bytes(4)),
)

# Sizes. The limit is on pixels, and known from the header.
case("one_pixel.png", Read((1, 1), RED), encoded(plain(size=(1, 1)), "PNG"))
case("one_row.png", Read((5000, 1), RED), encoded(plain(size=(5000, 1)), "PNG"))
case("one_column.png", Read((1, 5000), RED), encoded(plain(size=(1, 5000)), "PNG"))
case(
    "as_large_as_may_be.png",
    Read((7000, 7100), WHITE),
    lambda path: plain("RGBA", 0, (7000, 7100)).save(path, compress_level=1),
)
case("no_pixels.png", Refused("readable"), png(0, 5))
case("bomb.png", Refused("pixels"), png(60_000, 60_000))
case("bomb_thin.png", Refused("pixels"), png(2**31 - 1, 1))
case("bomb_just_above.png", Refused("at most 50000000 pixels, got 10000 x 5001"), png(10_000, 5001))
case(
    "bomb.gif", Refused("pixels"), b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\0;"
)
case("bomb.bmp", Refused("pixels"), bitmap(40_000, 40_000))
case("bomb.ppm", Refused("pixels"), b"P6 100000 100000 255\n")
case(
    "bomb.tiff",
    Refused("pixels"),
    tiff(
        (256, 4, 90_000),
        (257, 4, 90_000),
        (258, 3, 8),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, 90_000),
        (279, 4, 1),
    ),
)
case(
    "bomb.jpg",
    Refused("pixels"),
    encoded(plain(), "JPEG").replace(struct.pack(">HH", 6, 8), b"\xff\xdc\xff\xdc", 1),
)
case(
    "bomb_that_is_true.png",
    Refused("pixels"),
    lambda p: p.write_bytes(encoded(Image.new("1", (9000, 9000)), "PNG")),
)
case(
    "bomb_frames.gif",
    Read((8, 6), RED, "first frame"),
    lambda p: p.write_bytes(
        encoded(
            plain(),
            "GIF",
            save_all=True,
            append_images=[plain(colour=(i, 0, 9)) for i in range(200)],
        )
    ),
)

# Damage.
whole = encoded(noisy(), "PNG")
for share, size in (
    ("signature", 8),
    ("header", 20),
    ("quarter", len(whole) // 4),
    ("most", len(whole) - 40),
):
    case(f"cut_{share}.png", Refused("readable"), whole[:size])
for kind in ("JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"):
    content = encoded(noisy(), kind)
    case(f"cut.{kind.lower()}", Refused("readable"), content[: len(content) * 2 // 3])
case("checksum.png", Refused("readable"), whole[:30] + b"\0\0" + whole[32:])
case("data_garbage.png", Refused("readable"), png(4, 4).replace(zlib.compress(b"\0"), b"\xff" * 9))
case("data_short.png", Refused("readable"), png(4, 4, data=bytes(5)))
case("depth.png", Refused("readable"), png(1, 1, 7, 2))
case("tiff_loop.tiff", Refused("readable"), tiff((256, 4, 1), (257, 4, 1), following=8))
case("tiff_nowhere.tiff", Refused("readable"), b"II*\0\xff\xff\xff\x7f")
case(
    "strip_beyond.tiff",
    Refused("readable"),
    tiff(
        (256, 4, 4),
        (257, 4, 4),
        (258, 3, 8),
        (262, 3, 1),
        (273, 4, 1 << 30),
        (277, 3, 1),
        (278, 4, 4),
        (279, 4, 16),
    ),
)

# Not pictures, or not of a kind that is opened.
case("empty.png", Refused("readable"), b"")
case("text.png", Refused("readable"), b"this is no picture\n")
case("page.jpg", Refused("readable"), b"<!DOCTYPE html><html><body>404</body></html>")
case("vector.svg", Refused("readable"), b"<svg xmlns='http://www.w3.org/2000/svg'/>")
case("archive.png", Refused("readable"), zipped())
case("zeros.png", Refused("readable"), bytes(5000))
case("document.pdf", Refused("readable"), b"%PDF-1.7\n1 0 obj<<>>endobj\n")
case("postscript.eps", Refused("readable"), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
case("icon.ico", Refused("readable"), encoded(plain(size=(16, 16)), "ICO"))
case("targa.tga", Refused("readable"), encoded(plain(), "TGA"))
case("photoshop.png", Refused("readable"), b"8BPS\0\x01" + bytes(100))
case("telescope.png", Refused("readable"), b"SIMPLE  =                    T" + b" " * 3000)
case("wrong_suffix.png", Read((8, 6), RED), encoded(plain(), "JPEG", quality=95))
case("no_suffix", Read((8, 6), RED), encoded(plain(), "PNG"))
case("polyglot.gif", Read((8, 6), RED), encoded(plain(), "GIF") + zipped())
case("polyglot.png", Read((8, 6), RED), encoded(plain(), "PNG") + b"<script>1</script>")
case("folder.png", Refused("regular file"), lambda path: path.mkdir())
case("pipe.png", Refused("regular file"), lambda path: os.mkfifo(path))
case("socket.png", Refused("cannot be read"), lambda path: _socket(path))
case("device.png", Refused("regular file"), lambda path: path.symlink_to("/dev/zero"))
case("loop.png", Refused("cannot be read"), lambda path: path.symlink_to(path))
case("dangling.png", Refused("cannot be read"), lambda path: path.symlink_to(path.name + "x"))
case("absent.png", Refused("cannot be read"), lambda path: None)
case("link.png", Read((8, 6), RED), lambda path: _link(path))
case("n" * 300 + ".png", Refused("cannot be read"), lambda path: None)


def _socket(path: Path) -> None:
    # Names of sockets are short; those of test folders are not.
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _link(path: Path) -> None:
    target = path.with_name("target of the link.png")
    target.write_bytes(encoded(plain(), "PNG"))
    path.symlink_to(target)
