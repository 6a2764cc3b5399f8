"""Write mp4 files, and read videos, with PyAV, which brings its own codecs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from pyfacelat.errors import ImageError
from pyfacelat.files import temporary_name

SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm")
"""What names of videos end in, usually."""


def write_mp4(
    path: str | os.PathLike[str],
    frames: Iterable[np.ndarray[Any, Any]],
    *,
    fps: float = 30,
    bit_rate: int = 16_000_000,
) -> int:
    """Encode frames as H.264, under a temporary name that is renamed when complete.

    Args:
        path: of the mp4.
        frames: uint8 [H,W,3], all of one size; an odd last row or column is repeated once, because
            the codec's colour planes are halved.
        fps: frames per second.
        bit_rate: bits per second, at most.

    Returns:
        the number of frames written.

    Raises:
        ImportError: PyAV is not installed.
        ValueError: no frames, or frames of different sizes.
    """
    import av

    temporary = temporary_name(path)
    count = 0
    shape: tuple[int, ...] = ()
    try:
        with av.open(str(temporary), "w", format="mp4") as container:
            stream: Any = None
            for frame in frames:
                if stream is None:
                    shape = frame.shape
                    stream = container.add_stream(
                        "libx264", rate=Fraction(fps).limit_denominator(1001)
                    )
                    stream.height, stream.width = (side + side % 2 for side in shape[:2])
                    stream.pix_fmt = "yuv420p"
                    stream.bit_rate = bit_rate
                if frame.shape != shape:
                    raise ValueError(f"frames: expected shape {shape}, got {frame.shape}")
                height, width = (int(side) for side in shape[:2])
                even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
                container.mux(stream.encode(picture))
                count += 1
            if stream is None:
                raise ValueError("frames: expected at least one frame, got none")
            container.mux(stream.encode(None))
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):  # PyAV's name the temporary file
            reason = error.strerror or str(error)
            raise OSError(error.errno, reason, os.fspath(path)) from error
        raise
    return count


def read_frames(path: str | os.PathLike[str]) -> Iterator[np.ndarray[Any, Any]]:
    """Frames of a video one after the other, uint8 [H,W,3], upright.

    Raises:
        ImportError: PyAV is not installed.
        ImageError: the file is absent, no video, or damaged.
    """
    import av

    try:
        with av.open(os.fspath(path)) as container:
            if not container.streams.video:
                raise ImageError(f"{path}: there are no pictures in it")
            for frame in container.decode(video=0):
                # The camera's turn, anticlockwise, is not applied by the decoder.
                quarter_turns = round(frame.rotation / 90) % 4
                yield np.ascontiguousarray(
                    np.rot90(frame.to_ndarray(format="rgb24"), quarter_turns)
                )
    except (OSError, av.FFmpegError) as error:
        raise ImageError(f"{path}: not a readable video ({error})") from None


def frame_rate(path: str | os.PathLike[str]) -> float:
    """Frames per second of a video, on average; 30 where it does not say.

    Raises:
        ImportError: PyAV is not installed.
        ImageError: the file is absent, no video, or damaged.
    """
    import av

    try:
        with av.open(os.fspath(path)) as container:
            if not container.streams.video:
                raise ImageError(f"{path}: there are no pictures in it")
            return float(container.streams.video[0].average_rate or 30)
    except (OSError, av.FFmpegError) as error:
        raise ImageError(f"{path}: not a readable video ({error})") from None
