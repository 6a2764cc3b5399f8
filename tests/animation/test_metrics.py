"""Temporal metrics, on tracks and pictures whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from pyfacelat.animation import metrics


def test_short_tracks_have_no_motion_to_judge() -> None:
    still = np.zeros((2, 68, 2))
    assert metrics.acceleration(still) == 0
    assert metrics.jitter(still, still) == 0
    assert metrics.lag(still, still) == 0
    assert metrics.flicker(np.zeros((2, 8, 8, 3), np.uint8)) == 0


def test_flicker_by_hand() -> None:
    """Levels 0, 10, 0, 10: every second difference is 20; a steady fade has none."""
    levels = np.array([0, 10, 0, 10], np.uint8)
    blinking = np.broadcast_to(levels[:, None, None, None], (4, 40, 24, 3))
    assert metrics.flicker(blinking) == pytest.approx(20)
    fading = np.broadcast_to(3 * np.arange(5, dtype=np.uint8)[:, None, None, None], (5, 8, 8, 3))
    assert metrics.flicker(fading) == pytest.approx(0, abs=1e-5)


def test_noise_within_a_cell_is_no_flicker() -> None:
    rng = np.random.RandomState(0)
    noisy = rng.randint(0, 256, (6, 256, 256, 3), np.uint8)
    assert metrics.flicker(noisy) < 20  # 16 x 16 pixels are averaged
