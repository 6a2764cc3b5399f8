"""Random latents of a generator, scored by what their pictures show; kept in parts, resumable.

A part is a function of (generator, settings, its number) alone: a run that was interrupted goes on
where it stopped, and one that asks for more samples keeps those that are there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pyfacelat.edits.rows import PUBLISHED_ROWS, row_indices
from pyfacelat.errors import CheckpointError, ConfigError
from pyfacelat.files import write_atomically
from pyfacelat.latents import load_arrays

__all__ = ["SampleConfig", "Samples", "Score", "sample"]

Score = Callable[[Tensor], Mapping[str, Tensor]]
"""Images [n,3,R,R] in about [-1, 1] to scores [n] by name; NaN where there is none."""

_PART = 64  # samples in a file: seconds of work are lost at most
_RENDERED = 8  # rendered at a time
_MANIFEST = "samples.json"


class Sampled(Protocol):
    """A generator, as far as sampling needs one; `nets.stylegan2.Generator` is one."""

    z_dim: int
    w_dim: int
    num_ws: int
    mapping: Any
    synthesis: Any

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides its pictures."""


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """How latents are drawn.

    Attributes:
        seed: of z.
        truncation: psi of the first rows; 1 leaves w alone.
        cutoff: of 18 rows, how many are truncated (scaled to the generator's); None: all.
        mixing: share of samples whose rows come from two w, changed at a random row: the only
            ones whose rows differ, which a boundary in W+ needs.
    """

    seed: int = 0
    truncation: float = 0.7
    cutoff: int | None = 8
    mixing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.truncation <= 2:
            raise ConfigError(f"truncation: expected a number from 0 to 2, got {self.truncation}")
        if self.cutoff is not None and not 1 <= self.cutoff <= PUBLISHED_ROWS:
            raise ConfigError(f"cutoff: expected 1 to {PUBLISHED_ROWS} rows, got {self.cutoff}")
        if not 0 <= self.mixing <= 1:
            raise ConfigError(f"mixing: expected a share from 0 to 1, got {self.mixing}")
        if self.seed < 0:
            raise ConfigError(f"seed: expected at least 0, got {self.seed}")


@dataclasses.dataclass(frozen=True)
class Samples:
    """Latents and scores, on the CPU.

    Attributes:
        z: [n,z_dim] float32, of length sqrt(z_dim).
        w: [n,w_dim] float32, not truncated; of the first rows where two were mixed.
        ws: [n,num_ws,w_dim] float32, truncated: what was rendered.
        scores: [n] float32 by name; NaN where a picture could not be scored.
    """

    z: Tensor
    w: Tensor
    ws: Tensor
    scores: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.z)


@torch.no_grad()
def sample(
    generator: Sampled,
    count: int,
    score: Score | None = None,
    config: SampleConfig | None = None,
    *,
    outdir: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Samples:
    """Draw latents, render them with the stored noise, and score the pictures.

    Args:
        generator: unconditional.
        count: samples, >= 1.
        score: see `Score`; None draws latents only, and renders nothing.
        config: how they are drawn.
        outdir: keeps finished parts here and takes those that are there. None keeps nothing.
        progress: called with (done, count) after every part.

    Returns:
        The first `count` samples of the seed.

    Raises:
        ConfigError: a count below 1, scores of a wrong shape, or a folder that cannot be made.
        CheckpointError: the folder holds samples of another generator, seed or score, or damage.
    """
    if count < 1:
        raise ConfigError(f"count: expected at least 1, got {count}")
    config = config or SampleConfig()
    folder = None if outdir is None else _folder(Path(outdir), generator, config)
    parts = []
    for number, start in enumerate(range(0, count, _PART)):
        path = None if folder is None else folder / f"part-{number:05d}.npz"
        if path is not None and path.exists():
            part = _load(path, generator)
        else:
            part = _draw(generator, number, score, config)
            if path is not None:
                _save(path, part)
        parts.append(part)
        if progress is not None:
            progress(min(start + _PART, count), count)
    names = parts[0].scores.keys()
    if any(part.scores.keys() != names for part in parts):
        raise CheckpointError(
            outdir,
            f"some parts have scores {sorted(names)}, others not; use another folder",
        )
    return Samples(
        z=torch.cat([part.z for part in parts])[:count],
        w=torch.cat([part.w for part in parts])[:count],
        ws=torch.cat([part.ws for part in parts])[:count],
        scores={name: torch.cat([part.scores[name] for part in parts])[:count] for name in names},
    )


def _draw(generator: Sampled, number: int, score: Score | None, config: SampleConfig) -> Samples:
    like = next(iter(generator.mapping.parameters()))
    random = np.random.default_rng((config.seed, number))
    z, other = torch.from_numpy(random.standard_normal((2, _PART, generator.z_dim)))
    z = z * (generator.z_dim**0.5 / z.norm(dim=1, keepdim=True))
    cutoff = None
    if config.cutoff is not None:
        cutoff = len(row_indices(slice(0, config.cutoff), generator.num_ws, of=PUBLISHED_ROWS))
    truncation = (config.truncation, cutoff)
    ws = generator.mapping(z.to(like), None, *truncation)
    mixed = torch.from_numpy(random.random(_PART) < config.mixing)
    change = torch.from_numpy(random.integers(1, max(generator.num_ws, 2), _PART))
    takes = mixed[:, None] & (torch.arange(generator.num_ws) >= change[:, None])  # [n,L]
    if bool(takes.any()):
        second = generator.mapping(other.to(like), None, *truncation)
        ws = torch.where(takes.to(ws.device)[..., None], second, ws)
    found: dict[str, list[Tensor]] = {}
    for part in torch.split(ws, _RENDERED) if score is not None else ():
        assert score is not None
        for name, values in score(generator.synthesis(part, noise_mode="const")).items():
            if values.shape != (len(part),):
                raise ConfigError(
                    f"score: {name}: expected [{len(part)}], got {list(values.shape)}"
                )
            found.setdefault(name, []).append(values.float().cpu())
    w = generator.mapping(z.to(like), None)[:, 0]
    scores = {name: torch.cat(values) for name, values in found.items()}
    return Samples(z.float(), w.float().cpu(), ws.float().cpu(), scores)


def _save(path: Path, part: Samples) -> None:
    """Write a part; NaN, which readers of latents refuse, as a score of 0 that is not valid."""
    arrays: dict[str, Any] = {"z": part.z.numpy(), "w": part.w.numpy(), "ws": part.ws.numpy()}
    for name, values in part.scores.items():
        valid = torch.isfinite(values)
        arrays[f"score.{name}"] = torch.where(valid, values, 0).numpy()
        arrays[f"valid.{name}"] = valid.float().numpy()
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def _load(path: Path, generator: Sampled) -> Samples:
    arrays = load_arrays(path)
    shapes: dict[str, tuple[int, ...]] = {"z": (generator.z_dim,), "w": (generator.w_dim,)}
    shapes["ws"] = (generator.num_ws, generator.w_dim)
    for name, shape in shapes.items():
        if name not in arrays or tuple(arrays[name].shape) != (_PART, *shape):
            raise CheckpointError(path, f"expected {name} of shape {[_PART, *shape]}")
    scores = {}
    for full, values in arrays.items():
        name = full.removeprefix("score.")
        if name == full:
            continue
        valid = arrays.get(f"valid.{name}")
        if valid is None or tuple(values.shape) != (_PART,) or valid.shape != values.shape:
            raise CheckpointError(path, f"expected scores and their validity, [{_PART}]", full)
        scores[name] = torch.where(valid > 0, values, float("nan"))
    return Samples(arrays["z"], arrays["w"], arrays["ws"], scores)


def _folder(folder: Path, generator: Sampled, config: SampleConfig) -> Path:
    """Make the folder, or make sure that it is of the same generator and settings."""
    digest = hashlib.sha256()
    for name, tensor in sorted(generator.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    told = {"generator": digest.hexdigest(), **dataclasses.asdict(config)}
    manifest = folder / _MANIFEST
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not manifest.exists():
            write_atomically(manifest, json.dumps(told, indent=1).encode())
            return folder
        found = json.loads(manifest.read_text())
    except OSError as error:
        raise ConfigError(f"outdir: {folder}: {error.strerror or error}") from None
    except ValueError as error:
        raise CheckpointError(manifest, f"is not JSON: {error}") from None
    if found != told:
        known = found if isinstance(found, dict) else {}
        changed = [key for key in told if known.get(key) != told[key]]
        raise CheckpointError(
            manifest, f"is of samples with another {', '.join(changed)}; use another folder"
        )
    return folder
