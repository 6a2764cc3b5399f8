"""A crude face source for fast tests: soft discs with 68 exact points, no renderer needed."""

from __future__ import annotations

import numpy as np

from pyfacelat.training.data import FaceSource

Z_DIM = 8
_SIGN = np.array([-1.0, 1, 1, 1, 1, 1, 1, 1], np.float32)  # z[0] moves the face sideways


def _template() -> np.ndarray:
    """[68,2] points of a plain face, relative to the image."""

    def arc(count, centre, radius, start, stop):
        angle = np.linspace(start, stop, count)
        return np.stack(
            [centre[0] + radius[0] * np.cos(angle), centre[1] + radius[1] * np.sin(angle)], -1
        )

    pi = np.pi
    return np.concatenate(
        [
            arc(17, (0.5, 0.5), (0.3, 0.36), pi, 0),
            arc(5, (0.38, 0.42), (0.08, 0.04), 1.2 * pi, 1.8 * pi),
            arc(5, (0.62, 0.42), (0.08, 0.04), 1.2 * pi, 1.8 * pi),
            np.stack([np.full(4, 0.5), np.linspace(0.46, 0.58, 4)], -1),
            np.stack([np.linspace(0.45, 0.55, 5), np.full(5, 0.6)], -1),
            arc(6, (0.38, 0.47), (0.05, 0.025), pi, -2 / 3 * pi),
            arc(6, (0.62, 0.47), (0.05, 0.025), pi, -2 / 3 * pi),
            arc(12, (0.5, 0.7), (0.1, 0.05), pi, -5 / 6 * pi),
            arc(8, (0.5, 0.7), (0.08, 0.02), pi, -3 / 4 * pi),
        ]
    )


def render(z: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    t = np.tanh(0.7 * z.astype(np.float64))
    points = np.repeat(_template()[None], len(z), 0)
    points[..., 0] += 0.04 * t[:, :1]
    points[..., 1] += 0.03 * t[:, 1:2]
    opening = (1 + 0.8 * t[:, 2])[:, None]
    points[:, 48:, 1] = (points[:, 48:, 1] - 0.7) * opening + 0.7
    grid = (np.arange(size) + 0.5) / size
    x, y = grid[None, None, :], grid[None, :, None]

    def disc(centre, radius):
        d = np.hypot(
            (x - centre[..., :1, None]) / radius[0], (y - centre[..., 1:, None]) / radius[1]
        )
        return 1 / (1 + np.exp(np.clip((d - 1) * 12, -40, 40)))

    image = np.empty((len(z), size, size, 3))
    image[:] = 0.5 + 0.2 * t[:, 3, None, None, None]
    skin = np.stack([0.7 + 0.2 * t[:, 4], 0.55 + 0.2 * t[:, 4], 0.45 + 0.15 * t[:, 5]], -1)
    parts = [
        (points[:, :17].mean(1) - (0, 0.12), (0.3, 0.36), skin),
        (points[:, 36:42].mean(1), (0.05, 0.03), 0.1 + 0.1 * skin),
        (points[:, 42:48].mean(1), (0.05, 0.03), 0.1 + 0.1 * skin),
        (points[:, 27:36].mean(1), (0.025, 0.05), skin * 0.8),
        (points[:, 48:60].mean(1), (0.1, 0.045), np.array([0.7, 0.2, 0.2]) + 0 * skin),
    ]
    for centre, radius, colour in parts:
        cover = disc(centre, radius)[..., None]
        image = image * (1 - cover) + colour[:, None, None, :] * cover
    return (image.clip(0, 1) * 255).round().astype(np.uint8), (points * size).astype(np.float32)


def source() -> FaceSource:
    return FaceSource(z_dim=Z_DIM, render=render, mirror=lambda z: z * _SIGN)
