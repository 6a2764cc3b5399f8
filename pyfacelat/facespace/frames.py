"""Pictures from a video, to choose faces from."""

from __future__ import annotations

import os
from pathlib import Path

from pyfacelat.errors import ConfigError, ImageError

__all__ = ["frames_from_video"]


def frames_from_video(
    video: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    start: int = 0,
    stop: int | None = None,
    step: int = 10,
    rotate: float = 0.0,
) -> list[Path]:
    """Write every `step`-th frame of a video as frame-0000.jpg, frame-0010.jpg, ...

    Args:
        video: anything PyAV reads.
        folder: made if it is not there.
        start: first frame.
        stop: the frame to end before; None: to the end.
        step: frames from one picture to the next.
        rotate: degrees anticlockwise; the picture grows to hold its turned self.

    Returns:
        the files, in order; their numbers are those of the frames.

    Raises:
        ConfigError: numbers out of range.
        ImageError: the video cannot be read, or has no frame in the range.
    """
    import av

    if start < 0 or step < 1 or (stop is not None and stop <= start):
        raise ConfigError(
            f"start, stop, step: expected 0 <= start < stop and step >= 1, got {start}, {stop}, "
            f"{step}"
        )
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    files = []
    try:
        # No playlist may make it fetch something from elsewhere.
        with av.open(os.fspath(video), options={"protocol_whitelist": "file"}) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if stop is not None and number >= stop:
                    break
                if number < start or (number - start) % step:
                    continue
                picture = frame.to_image()  # type: ignore[no-untyped-call,unused-ignore]
                if rotate:
                    picture = picture.rotate(rotate, expand=True)
                files.append(target / f"frame-{number:04d}.jpg")
                picture.save(files[-1], quality=95)
    except (av.FFmpegError, IndexError, OSError) as error:
        raise ImageError(f"{video}: not a readable video ({error})") from None
    if not files:
        raise ImageError(f"{video}: no frame from {start} on")
    return files
