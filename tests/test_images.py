"""Images in and out."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyfacelat import images
from pyfacelat.errors import ImageError


def ramp(height: int = 6, width: int = 8) -> np.ndarray:
    values = np.arange(height * width * 3) % 256
    return values.reshape(height, width, 3).astype(np.uint8)


def test_s9_range_and_rounding() -> None:
    """S9: -1 is 0, 1 is 255, halves round to even, outside is clamped."""
    values = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).expand(3, 1, 5)
    assert images.to_uint8(values)[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    assert (images.to_uint8(images.from_uint8(every)).numpy() == every).all()


def test_s3_centre_crop_and_resize_equals_pil() -> None:
    """S3."""
    array = np.random.default_rng(0).integers(0, 256, (50, 81, 3), dtype=np.uint8)
    expected = Image.fromarray(array).crop((15, 0, 65, 50)).resize((32, 32), Image.LANCZOS)
    found = images.to_uint8(images.load_image(array, size=32)).numpy()
    assert (found == np.asarray(expected)).all()


def test_every_kind_of_source_gives_the_same(tmp_path: Path) -> None:
    array = ramp()
    Image.fromarray(array).save(tmp_path / "a.png")
    tensor = images.from_uint8(array)
    for source in (
        array,
        Image.fromarray(array),
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        tensor,
    ):
        torch.testing.assert_close(images.load_image(source), tensor, rtol=0, atol=0)
    batch = images.read_images([array, tensor])
    assert torch.equal(images.stack_squares(batch, 6)[0], images.stack_squares([batch[1]], 6)[0])


@pytest.mark.parametrize(
    "mode, colour, expected",
    [
        ("L", 100, (100, 100, 100)),
        ("LA", (100, 0), (255, 255, 255)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("CMYK", (0, 0, 0, 0), (255, 255, 255)),
        ("1", 1, (255, 255, 255)),
        ("I;16", 257 * 100, (100, 100, 100)),
    ],
)
def test_modes(mode: str, colour: object, expected: tuple[int, int, int]) -> None:
    image = Image.new(mode, (4, 4), colour)
    assert np.asarray(images.open_image(image))[0, 0].tolist() == list(expected)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    array = np.zeros((4, 8, 3), np.uint8)
    array[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # stored rotated: a quarter turn clockwise makes it upright
    Image.fromarray(array).save(tmp_path / "turned.png", exif=exif)
    upright = np.asarray(images.open_image(tmp_path / "turned.png"))
    assert upright.shape == (8, 4, 3)
    assert upright[0, 3].tolist() == [255, 255, 255]


def test_animation_gives_the_first_frame_with_a_warning(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match="first frame"):
        assert np.asarray(images.open_image(tmp_path / "a.gif"))[0, 0].tolist() == [255, 0, 0]


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(
        tmp_path / "whole.png"
    )
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "vector.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")  # opening it would block for ever
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    names = ["text", "cut", "empty", "folder", "pipe", "loop", "absent"]
    for path in [*(tmp_path / f"{name}.png" for name in names), tmp_path / "vector.eps"]:
        with pytest.raises(ImageError, match=path.name):
            images.open_image(path)


def test_size_is_checked_before_decoding(tmp_path: Path) -> None:
    """A header that claims a huge picture."""
    Image.new("L", (1, 1)).save(tmp_path / "bomb.png")
    data = bytearray((tmp_path / "bomb.png").read_bytes())
    import zlib

    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(ImageError, match="pixels"):
        images.open_image(tmp_path / "bomb.png")


def test_png_is_whole_or_absent(tmp_path: Path) -> None:
    images.save_png(tmp_path / "a.png", ramp())
    assert (np.asarray(Image.open(tmp_path / "a.png")) == ramp()).all()
    with pytest.raises(OSError):
        images.save_png(tmp_path / "absent" / "a.png", ramp())
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_area_shrink() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert images.shrink_to(image, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert images.shrink_to(image, 8) is image


def test_enlarge() -> None:
    small = np.full((4, 4, 3), (200, 10, 0), np.uint8)
    assert images.enlarge(small, 4) is small and images.enlarge(small, 2) is small
    big = images.enlarge(small, 8)
    assert big.shape == (8, 8, 3) and (big == small[0, 0]).all()


def test_data_url_holds_the_picture() -> None:
    url = images.data_url(Image.fromarray(ramp()))
    head, _, content = url.partition(",")
    assert head == "data:image/png;base64"
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))) == ramp()).all()
