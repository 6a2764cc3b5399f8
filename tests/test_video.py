"""mp4 writing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pyfacelat.video import write_mp4

av = pytest.importorskip("av")


def frames(count: int, height: int = 32, width: int = 48) -> list[np.ndarray]:
    return [np.full((height, width, 3), 20 * i, np.uint8) for i in range(count)]


def test_frames_come_back(tmp_path: Path) -> None:
    assert write_mp4(tmp_path / "a.mp4", frames(7), fps=10) == 7
    with av.open(str(tmp_path / "a.mp4")) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 10
    assert len(shown) == 7
    for index, frame in enumerate(shown):
        assert abs(float(frame.mean()) - 20 * index) < 6


def test_odd_sides(tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", frames(2, 33, 47))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert (container.streams.video[0].height, container.streams.video[0].width) == (34, 48)


@pytest.mark.parametrize(
    "bad, words", [([], "at least one frame"), (frames(1) + frames(1, 16), "expected shape")]
)
def test_wrong_frames(bad: list[np.ndarray], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        write_mp4(tmp_path / "a.mp4", bad)
    assert list(tmp_path.iterdir()) == []


def test_failure_half_way_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield from frames(3)
        raise RuntimeError("renderer failed")

    with pytest.raises(RuntimeError, match="renderer failed"):
        write_mp4(tmp_path / "a.mp4", broken())
    assert list(tmp_path.iterdir()) == []
