"""Contact sheet of procedural faces: `python -m pyfacelat.procface --out sheet.png`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pyfacelat.images import save_png
from pyfacelat.procface.dataset import generate
from pyfacelat.procface.params import sweep
from pyfacelat.procface.render import render


def _dots(images: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> None:
    size = images.shape[1]
    half = max(1, size // 160)
    for image, points in zip(images, landmarks, strict=True):
        for x, y in np.floor(points).astype(int):
            if -half <= x < size + half and -half <= y < size + half:
                box = slice(max(y - half + 1, 0), y + half), slice(max(x - half + 1, 0), x + half)
                image[box] = (60, 255, 60)


def sheet(images: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Lay images [N, S, S, 3] out in rows of `columns`: uint8 [rows * S, columns * S, 3]."""
    count, size = images.shape[:2]
    rows = -(-count // columns)
    page = np.full((rows * columns, size, size, 3), 255, np.uint8)
    page[:count] = images
    page = page.reshape(rows, columns, size, size, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(page.reshape(rows * size, columns * size, 3))


def main(argv: Sequence[str] | None = None) -> int:
    """Write a sheet of random faces, or one row per swept parameter."""
    parser = argparse.ArgumentParser(prog="python -m pyfacelat.procface", description=__doc__)
    parser.add_argument("--out", required=True, help="PNG file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=64, help="random faces")
    parser.add_argument("--size", type=int, default=128, help="pixels per face")
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--sweep", metavar="NAME,NAME", help="vary these parameters instead")
    parser.add_argument("--landmarks", action="store_true", help="draw the 68 points")
    args = parser.parse_args(argv)
    if args.columns < 1 or args.count < 1:
        parser.error("--columns and --count must be at least 1")
    try:
        if args.sweep:
            names = [name.strip() for name in args.sweep.split(",")]
            params = np.concatenate([sweep(name, args.columns) for name in names])
            out = render(params, args.size)
            images, landmarks = out["image"], out["landmarks"]
        else:
            faces = generate(args.seed, args.count, size=args.size)
            images, landmarks = faces.images, faces.landmarks
    except ValueError as error:
        parser.error(str(error))
    if args.landmarks:
        _dots(images, landmarks)
    save_png(args.out, sheet(images, args.columns))
    print(args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
