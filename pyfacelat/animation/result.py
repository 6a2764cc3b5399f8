"""What an animation returns, and how it is written to disk."""

from __future__ import annotations

import json
import os
import platform
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pyfacelat.animation import metrics
from pyfacelat.animation.config import AnimationConfig
from pyfacelat.animation.report import animation_report, error_chart
from pyfacelat.errors import OutputError
from pyfacelat.faces.draw import draw_landmarks
from pyfacelat.faces.groups import GROUPS
from pyfacelat.faces.landmarks import normalised_error
from pyfacelat.files import write_atomically
from pyfacelat.images import data_url, enlarge, save_png, tile
from pyfacelat.latents import save_latents, save_noise
from pyfacelat.nets.stylegan2 import Generator
from pyfacelat.projection.report import loss_chart
from pyfacelat.version import __version__

_INNER = list(range(17, 68))  # no detector places the jaw line steadily
_STRIP = 8  # frames
_CELL = 256  # pixels, to which smaller frames are enlarged


@dataclass
class AnimationResult:
    """F frames of one face.

    Attributes:
        ws: latents [F,num_ws,w_dim] float32.
        noise: noise maps by name, each [1,H,W] float32, of all frames; with `ws` they render
            `images` again, bit for bit.
        images: uint8 [F,H,W,3].
        between: the frames half way between each and the next, at the mean of their latents, uint8
            [F-1,H,W,3]; None unless they were asked for.
        landmarks: as the landmark network sees them in `images`, [F,68,2] float32 pixels.
        confidence: how sure it is of each, [F,68].
        target_landmarks: [F,68,2] float32 pixels.
        look: uint8 [H,W,3].
        driving: the driving frames as they were seen, uint8 [F,H,W,3]; None for a track.
        fps: frames per second of the driving clip.
        losses: of the "look", the "first" frame or keyframes, and the "frames": by term and
            "total", [steps,N].
        config: what was run.
        timings: seconds by phase.
        backends: implementation of each op on the device used.
        complete: whether all frames of the clip are there.

    """

    ws: Tensor
    noise: dict[str, Tensor]
    images: NDArray[np.uint8]
    between: NDArray[np.uint8] | None
    landmarks: Tensor
    confidence: Tensor
    target_landmarks: Tensor
    look: NDArray[np.uint8]
    driving: NDArray[np.uint8] | None
    fps: float
    losses: dict[str, dict[str, Tensor]]
    config: AnimationConfig
    timings: dict[str, float]
    backends: dict[str, str]
    complete: bool = True
    generator: Generator | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.ws)

    @property
    def landmark_error(self) -> Tensor:
        """Mean landmark error of each frame over the outer eye corners' distance, [F]."""
        return normalised_error(self.landmarks, self.target_landmarks)

    @property
    def landmark_error_by_group(self) -> dict[str, Tensor]:
        """The same for the landmarks of each of the nine groups alone, [F] by name."""
        return {
            group: normalised_error(self.landmarks, self.target_landmarks, list(indices))
            for group, indices in GROUPS.items()
        }

    @property
    def metrics(self) -> dict[str, float]:
        """How well the frames follow the driving track, and how steadily.

        Jitter and lag are of the landmarks without the jaw line, which none places steadily:
        `jitter` the frames' acceleration over the track's, 1 being as smooth as it; `lag` in
        frames. `landmark_error` and its 95th percentile over frames. `flicker` in levels of 255;
        `driving_flicker` of the frames that drive, where there are any.
        """
        found, wanted = (p[:, _INNER].numpy() for p in (self.landmarks, self.target_landmarks))
        error = self.landmark_error
        values = {
            "landmark_error": float(error.mean()),
            "landmark_error_95": float(error.quantile(0.95)),
            "jitter": metrics.jitter(found, wanted),
            "lag": metrics.lag(found, wanted),
            "flicker": metrics.flicker(self.images),
        }
        if self.driving is not None:
            values["driving_flicker"] = metrics.flicker(self.driving)
        return values

    @property
    def rate(self) -> float:
        """Frames per second of the result, those in between among them."""
        return self.fps if self.between is None else 2 * self.fps

    @property
    def frames_per_second(self) -> float:
        """Frames worked out in a second, of all the time it took."""
        return len(self) / max(self.timings.get("total", sum(self.timings.values())), 1e-9)

    def pil(self, index: int = 0) -> Image.Image:
        """Frame `index` as a PIL image."""
        return Image.fromarray(self.images[index])

    def frames(self, *, side_by_side: bool = False) -> Iterator[NDArray[np.uint8]]:
        """The frames in order, those in between among them, uint8 [H,W,3].

        Args:
            side_by_side: the driving frame, or its landmarks on grey, to the left: [H,2W,3].

        """
        for index, image in enumerate(self.images):
            if index and self.between is not None:
                yield self._beside(index, self.between[index - 1], side_by_side)
            yield self._beside(index, image, side_by_side)

    def strip(self, count: int = _STRIP) -> Image.Image:
        """`count` frames spread over the clip: driving above, result below, the look in front."""
        chosen = sorted({round(i) for i in np.linspace(0, len(self) - 1, max(1, count))})
        blank = np.full_like(self.look, 255)
        rows = [
            tile([blank, *(self._driver(i) for i in chosen)]),
            tile([self.look, *(self.images[i] for i in chosen)]),
        ]
        gap = np.full((4, rows[0].shape[1], 3), 255, np.uint8)
        return Image.fromarray(np.concatenate([rows[0], gap, rows[1]]))

    def overlay(self, count: int = _STRIP) -> Image.Image:
        """`count` frames with the landmarks asked for (green) and reached (yellow)."""
        chosen = sorted({round(i) for i in np.linspace(0, len(self) - 1, max(1, count))})
        drawn = []
        for i in chosen:
            big = enlarge(self.images[i], _CELL)
            scale = len(big) / self.images.shape[1]
            wanted = self.target_landmarks[i].numpy() * scale
            big = draw_landmarks(big, wanted, colour=(60, 220, 90), width=3)
            drawn.append(draw_landmarks(big, self.landmarks[i].numpy() * scale, width=1))
        return Image.fromarray(tile(drawn))

    def plot(self, phase: str = "frames") -> Image.Image:
        """The loss curves of a phase, each term over its steps, averaged over frames."""
        curves = self.losses.get(phase, {})
        return loss_chart({name: values.nanmean(1).numpy() for name, values in curves.items()})

    def summary(self) -> dict[str, Any]:
        """Settings, metrics, errors of each frame, timings and versions as plain JSON values."""
        steps = {phase: len(next(iter(c.values()))) for phase, c in self.losses.items() if c}
        return {
            "version": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "frames": len(self),
            "complete": self.complete,
            "fps": self.rate,
            "resolution": int(self.images.shape[1]),
            "config": json.loads(self.config.to_json()),
            "steps": steps,
            "metrics": {name: round(value, 6) for name, value in self.metrics.items()},
            "landmark_error": [round(float(e), 6) for e in self.landmark_error],
            "landmark_error_by_group": {
                group: round(float(errors.mean()), 6)
                for group, errors in self.landmark_error_by_group.items()
            },
            "final_losses": {
                phase: {name: round(float(v[-1].nanmean()), 6) for name, v in curves.items()}
                for phase, curves in self.losses.items()
            },
            "landmarks": self.landmarks.tolist(),
            "target_landmarks": self.target_landmarks.tolist(),
            "timings": {name: round(seconds, 4) for name, seconds in self.timings.items()},
            "frames_per_second": round(self.frames_per_second, 6),
            "backends": self.backends,
        }

    def save(
        self,
        directory: str | os.PathLike[str],
        *,
        video: bool = True,
        side_by_side: bool = True,
        frames: bool = False,
    ) -> Path:
        """Write everything, each file whole or absent, in this order.

        projected_w.npz (key `w`, [F,num_ws,w_dim]), noise.npz, target_look.png, strip.png,
        result.json, report.html; with `frames` a folder of that name with proj_{i}_1.png and
        proj_{i}_1.npz of frame i, and, where frames in between were asked for, proj_{i}_0.png and
        proj_{i}_0.npz of the one before it; with `video` animation.mp4, and beside the driving
        frames side_by_side.mp4.

        Returns:
            the directory.

        Raises:
            OutputError: a file cannot be written; those before it in the order are there.

        """
        root = Path(directory)
        try:
            root.mkdir(parents=True, exist_ok=True)
            save_latents(root / "projected_w.npz", self.ws)
            save_noise(root / "noise.npz", {name: maps[0] for name, maps in self.noise.items()})
            save_png(root / "target_look.png", self.look)
            save_png(root / "strip.png", self.strip())
            write_atomically(root / "result.json", json.dumps(self.summary(), indent=1).encode())
            write_atomically(root / "report.html", self.report().encode())
            if frames:
                self._save_frames(root / "frames")
            if video:
                self._save_video(root / "animation.mp4", side_by_side=False)
            if video and side_by_side:
                self._save_video(root / "side_by_side.mp4", side_by_side=True)
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(
                error.errno, f"{error.filename or root}: cannot be written: {error.strerror}", self
            ) from error
        return root

    def report(self) -> str:
        """One self-contained HTML page about the animation."""
        groups = {"all 68": self.landmark_error, **self.landmark_error_by_group}
        charts = {"Landmark error of each frame": error_chart(groups)}
        charts |= {f"Losses: {phase}": self.plot(phase) for phase, c in self.losses.items() if c}
        return animation_report(self.summary(), self.strip(), self.overlay(), charts)

    def _driver(self, index: int) -> NDArray[np.uint8]:
        """What drove a frame, as a picture: the frame, or its landmarks drawn on grey."""
        if self.driving is not None:
            return np.asarray(self.driving[index])
        side = self.images.shape[1]
        big = np.full((4 * side, 4 * side, 3), 90, np.uint8)
        drawn = draw_landmarks(big, self.target_landmarks[index].numpy() * 4, width=6)
        small = Image.fromarray(drawn).resize((side, side), Image.Resampling.LANCZOS)
        return np.asarray(small)

    def _beside(
        self, index: int, image: NDArray[np.uint8], side_by_side: bool
    ) -> NDArray[np.uint8]:
        if not side_by_side:
            return image
        return np.concatenate([enlarge(self._driver(index), _CELL), enlarge(image, _CELL)], axis=1)

    def _save_frames(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        for index, image in enumerate(self.images):
            if index and self.between is not None:
                save_png(folder / f"proj_{index}_0.png", self.between[index - 1])
                middle = (self.ws[index - 1 : index] + self.ws[index : index + 1]) / 2
                save_latents(folder / f"proj_{index}_0.npz", middle)
            save_png(folder / f"proj_{index}_1.png", image)
            save_latents(folder / f"proj_{index}_1.npz", self.ws[index : index + 1])

    def _save_video(self, path: Path, *, side_by_side: bool) -> None:
        from pyfacelat.video import write_mp4

        try:
            write_mp4(path, self.frames(side_by_side=side_by_side), fps=self.rate)
        except ImportError as error:
            warnings.warn(f"{path}: no video was written: {error}; pip install av", stacklevel=3)

    def _repr_html_(self) -> str:
        return f'<img src="{data_url(self.strip())}">'
