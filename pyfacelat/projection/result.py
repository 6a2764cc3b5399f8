"""What a projection returns, and how it is written to disk."""

from __future__ import annotations

import json
import os
import platform
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pyfacelat.errors import OutputError
from pyfacelat.faces.align import AlignedFace
from pyfacelat.faces.draw import draw_landmarks
from pyfacelat.faces.groups import GROUPS
from pyfacelat.faces.landmarks import normalised_error
from pyfacelat.files import write_atomically
from pyfacelat.images import data_url, enlarge, save_png, tile, to_uint8
from pyfacelat.latents import save_latents, save_noise
from pyfacelat.nets.stylegan2 import Generator
from pyfacelat.projection.config import ProjectionConfig
from pyfacelat.projection.report import loss_chart, report_html
from pyfacelat.version import __version__

_CELL = 256  # side of one picture in strips and overlays, in pixels
_VIDEO_BATCH = 8


@dataclass
class ProjectionResult:
    """A batch of N projected faces.

    Attributes:
        ws: latents [N,num_ws,w_dim] float32.
        noise: noise maps by name, each [N,H,W] float32; with `ws` they render `images` again, bit
            for bit: `generator.synthesis(ws[i:i+1], noise={k: v[i:i+1] for ...})`.
        images: uint8 [N,H,W,3].
        landmarks: as the landmark network sees them in `images`, [N,68,2] float32 pixels.
        confidence: how sure it is of each, the height of its heat map's peak, [N,68] float32.
        losses: by term and "total" (weighted): [steps,N] float32, NaN where a stage lacks the term.
        config: what was run.
        timings: seconds by phase.
        backends: implementation of each op on the device used.
        look: the look target, uint8 [N,H,W,3].
        landmark_image: the image landmarks were taken from, uint8 [N,H,W,3], or None.
        target_landmarks: [N,68,2] float32 pixels.
        history: latents after each step, [steps,N,num_ws,w_dim] float32.
        crops: for each look the FFHQ crop that was made of a photograph, or None where it was taken
            as it is.
        start: latents that the first stage began with, [N,num_ws,w_dim] float32.
        person: whose identity was asked for, uint8 [N,H,W,3], or None.

    """

    ws: Tensor
    noise: dict[str, Tensor]
    images: np.ndarray[Any, Any]
    landmarks: Tensor
    losses: dict[str, Tensor]
    config: ProjectionConfig
    timings: dict[str, float]
    backends: dict[str, str]
    look: np.ndarray[Any, Any]
    landmark_image: np.ndarray[Any, Any] | None
    target_landmarks: Tensor
    history: Tensor
    confidence: Tensor
    crops: list[AlignedFace | None] = field(default_factory=list, repr=False)
    start: Tensor | None = field(default=None, repr=False)
    person: np.ndarray[Any, Any] | None = field(default=None, repr=False)
    generator: Generator | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.ws)

    @property
    def landmark_error(self) -> Tensor:
        """Mean landmark error over the outer eye corners' distance, [N]; 0.02 is 2 %."""
        return normalised_error(self.landmarks, self.target_landmarks)

    @property
    def landmark_error_by_group(self) -> dict[str, Tensor]:
        """The same for the landmarks of each of the nine groups alone, [N] by name."""
        return {
            group: normalised_error(self.landmarks, self.target_landmarks, list(indices))
            for group, indices in GROUPS.items()
        }

    def pil(self, index: int = 0) -> Image.Image:
        """Image `index` as a PIL image."""
        return Image.fromarray(self.images[index])

    def paste_back(self, index: int = 0, *, feather: float = 0.1) -> np.ndarray[Any, Any]:
        """Image `index` in the photograph its look was cropped from, uint8 [H,W,3].

        Args:
            index: of the image.
            feather: see `faces.align.AlignedFace.paste_back`.

        Raises:
            ValueError: the look was not cropped here.

        """
        crop = self.crops[index] if self.crops else None
        if crop is None:
            raise ValueError(f"index: look {index} was not cropped from a photograph")
        return np.asarray(crop.paste_back(self.images[index], feather=feather))

    def strip(self, index: int = 0) -> Image.Image:
        """Look, landmark target, result, and result with both sets of landmarks, side by side.

        In the overlay the target is green and the result's own landmarks are yellow.
        """
        look, target, result = (
            enlarge(image, _CELL)
            for image in (self.look[index], self._target(index), self.images[index])
        )
        scale = len(look) / self.images.shape[1]
        wanted = self.target_landmarks[index].numpy() * scale
        found = self.landmarks[index].numpy() * scale
        overlay = draw_landmarks(result, wanted, colour=(60, 220, 90), width=3)
        overlay = draw_landmarks(overlay, found, width=1)
        return Image.fromarray(tile([look, target, result, overlay]))

    def plot(self) -> Image.Image:
        """The loss curves, each term over the steps, averaged over the batch."""
        return loss_chart({name: values.nanmean(1).numpy() for name, values in self.losses.items()})

    def summary(self) -> dict[str, Any]:
        """Settings, final losses, errors, timings and versions as plain JSON values."""
        final = {name: _last(values) for name, values in self.losses.items()}
        return {
            "version": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "images": len(self),
            "resolution": int(self.images.shape[1]),
            "steps": len(next(iter(self.losses.values()), [])),
            "config": json.loads(self.config.to_json()),
            "final_losses": final,
            "landmark_error": [round(float(error), 6) for error in self.landmark_error],
            "landmark_error_by_group": {
                group: [round(float(value), 6) for value in errors]
                for group, errors in self.landmark_error_by_group.items()
            },
            "landmarks": self.landmarks.tolist(),
            "confidence": [[round(c, 4) for c in row] for row in self.confidence.tolist()],
            "target_landmarks": self.target_landmarks.tolist(),
            "timings": {name: round(seconds, 4) for name, seconds in self.timings.items()},
            "backends": self.backends,
        }

    def save(self, directory: str | os.PathLike[str], *, video: bool = False) -> Path:
        """Write everything; a batch goes to numbered folders `000`, `001`, ...

        Written in this order, each file whole or absent: projected_w.npz (key `w`,
        [1,num_ws,w_dim]), noise.npz, proj.png, pasted.png (in the photograph, if it was cropped
        from one), target_look.png, target_landmarks.png, target_person.png (if one was given),
        strip.png, losses.png, result.json, report.html, and proj.mp4 last when `video` is set, so
        that a failing encoder costs nothing but the video.

        Returns:
            the directory.

        Raises:
            OutputError: a file cannot be written; those before it in the order are there.

        """
        root = Path(directory)
        folders = [root] if len(self) == 1 else [root / f"{i:03d}" for i in range(len(self))]
        try:
            root.mkdir(parents=True, exist_ok=True)
            for index, folder in enumerate(folders):
                self._save_one(index, folder)
            for index, folder in enumerate(folders if video else []):
                self._save_video(index, folder / "proj.mp4")
        except OSError as error:
            where, reason = error.filename or root, error.strerror or str(error)
            raise OutputError(error.errno, f"{where}: cannot be written: {reason}", self) from error
        return root

    def frames(self, index: int = 0) -> Iterator[np.ndarray[Any, Any]]:
        """Video frames: look, image, image with target landmarks, landmark target; uint8 [H,4W,3].

        One frame per step, rendered now from the recorded latents and the final noise, and the
        final image last.

        Raises:
            ValueError: the result was loaded without its generator.

        """
        if self.generator is None:
            raise ValueError("generator: this result has none, so its history cannot be rendered")
        look, target = enlarge(self.look[index], _CELL), enlarge(self._target(index), _CELL)
        points = self.target_landmarks[index].numpy() * (len(look) / self.images.shape[1])

        def compose(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            big = enlarge(image, _CELL)
            return np.concatenate([look, big, draw_landmarks(big, points), target], axis=1)

        for image in self._on_the_way(index, range(len(self.history))):
            yield compose(image)
        yield compose(self.images[index])

    def history_strip(self, index: int = 0, count: int = 8) -> Image.Image | None:
        """Image `index` at `count` steps from the first to the last; None without a generator.

        Rendered now, from the recorded latents and the final noise.
        """
        if self.generator is None or not len(self.history):
            return None
        last = len(self.history) - 1
        chosen = sorted({round(last * i / max(1, count - 1)) for i in range(count)})
        return Image.fromarray(tile(list(self._on_the_way(index, chosen))))

    def report(self, index: int = 0) -> str:
        """One self-contained HTML page about image `index`."""
        history = self.history_strip(index)
        return report_html(self.summary(), self.strip(index), self.plot(), history, index)

    def _on_the_way(self, index: int, steps: Sequence[int]) -> Iterator[np.ndarray[Any, Any]]:
        """Image `index` at some steps, uint8 [H,W,3] each."""
        assert self.generator is not None
        # Not those of w_avg: some networks have no average.
        weight = next(self.generator.parameters())
        for ws in torch.split(self.history[list(steps), index], _VIDEO_BATCH):
            noise = {
                name: maps[index : index + 1].to(weight).expand(len(ws), -1, -1)
                for name, maps in self.noise.items()
            }
            with torch.no_grad():
                images = self.generator.synthesis(ws.to(weight), noise=noise or None)
            yield from to_uint8(images).cpu().numpy()

    def _target(self, index: int) -> np.ndarray[Any, Any]:
        """The landmark target as a picture: its image, or its points drawn on grey."""
        if self.landmark_image is not None:
            return np.asarray(self.landmark_image[index])
        blank = np.full((_CELL, _CELL, 3), 90, np.uint8)
        points = self.target_landmarks[index].numpy() * (_CELL / self.images.shape[1])
        return draw_landmarks(blank, points)

    def _save_one(self, index: int, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_latents(folder / "projected_w.npz", self.ws[index : index + 1])
        save_noise(folder / "noise.npz", {name: maps[index] for name, maps in self.noise.items()})
        save_png(folder / "proj.png", self.images[index])
        if self.crops and self.crops[index] is not None:
            save_png(folder / "pasted.png", self.paste_back(index))
        save_png(folder / "target_look.png", self.look[index])
        save_png(folder / "target_landmarks.png", self._target(index))
        if self.person is not None:
            save_png(folder / "target_person.png", self.person[index])
        save_png(folder / "strip.png", self.strip(index))
        save_png(folder / "losses.png", self.plot())
        text = json.dumps(self.summary(), indent=1)
        write_atomically(folder / "result.json", text.encode())
        write_atomically(folder / "report.html", self.report(index).encode())

    def _save_video(self, index: int, path: Path) -> None:
        from pyfacelat.video import write_mp4

        try:
            write_mp4(path, self.frames(index))
        except ImportError as error:
            warnings.warn(f"{path}: no video was written: {error}; pip install av", stacklevel=3)

    def _repr_html_(self) -> str:
        return f'<img src="{data_url(self.strip(0))}"><img src="{data_url(self.plot())}">'


def _last(values: Tensor) -> list[float | None]:
    """The last recorded value of each item; None where there is none."""
    return [
        float(known[-1]) if len(known := column[torch.isfinite(column)]) else None
        for column in values.T
    ]
