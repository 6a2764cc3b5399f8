"""Pictures of a generator with the latents they were made from, to train encoders on.

NNNNNN.png and the arrays z.npy [n,z_dim], w.npy [n,w_dim] (not truncated) and wp.npy
[n,num_ws,w_dim] (what was rendered): row i made picture i. The pictures are PNG, not JPEG as in the
published program, so that they are just what the row renders.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pyfacelat.edits.sampling import SampleConfig, Sampled, sample
from pyfacelat.edits.sheets import frames
from pyfacelat.errors import ConfigError
from pyfacelat.files import write_atomically
from pyfacelat.images import save_png

__all__ = ["write_dataset"]

_CHUNK = 8  # pictures rendered together; rounding depends on it, so it never changes


def write_dataset(
    generator: Sampled,
    count: int,
    outdir: str | os.PathLike[str],
    config: SampleConfig | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw latents and render them into a folder; what is there already is kept.

    An interrupted run goes on where it stopped, and one with a larger count extends the folder.

    Args:
        generator: unconditional; its stored noise is used.
        count: pictures, >= 1.
        outdir: the folder.
        config: how latents are drawn; the default truncates to 0.7.
        progress: called with (done, count) after every eight pictures.

    Returns:
        the folder.

    Raises:
        ConfigError: a count below 1, or a folder that cannot be made.
        CheckpointError: the folder holds pictures of another generator or seed.
    """
    folder = Path(outdir)
    if count < 1:
        raise ConfigError(f"count: expected at least 1, got {count}")
    # Whole chunks, whatever the count is: then a longer set begins with a shorter one, bit for bit.
    drawn = -(-count // _CHUNK) * _CHUNK
    samples = sample(generator, drawn, None, config, outdir=folder / "parts")
    files = [folder / f"{number:06d}.png" for number in range(count)]
    for start in range(0, count, _CHUNK):
        chunk = files[start : start + _CHUNK]
        if not all(file.exists() for file in chunk):
            pictures = frames(generator, samples.ws[start : start + _CHUNK])
            for file, picture in zip(chunk, list(pictures), strict=False):
                save_png(file, picture)
        if progress is not None:
            progress(min(start + _CHUNK, count), count)
    for name, values in (("z", samples.z), ("w", samples.w), ("wp", samples.ws)):
        buffer = io.BytesIO()
        np.save(buffer, values[:count].float().numpy(), allow_pickle=False)
        write_atomically(folder / f"{name}.npy", buffer.getvalue())
    return folder
