"""What the package carries: exported weights, example portraits, the model card."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pyfacelat import checkpoints, procface, zoo
from pyfacelat.faces.groups import GROUPS
from pyfacelat.files import write_atomically
from pyfacelat.images import save_png
from pyfacelat.losses.identity import IdentityDistance
from pyfacelat.losses.landmark import Landmarker
from pyfacelat.nets.discriminator import Discriminator
from pyfacelat.nets.fan import FAN
from pyfacelat.nets.identity import IdentityNet
from pyfacelat.nets.sample_encoder import SampleEncoder
from pyfacelat.nets.stylegan2 import Generator
from pyfacelat.projection.motion import fit_motion
from pyfacelat.projection.space import LatentSpace, measure

from .data import SEEDS, chunk_z
from .evaluate import w_statistics

__all__ = [
    "EXAMPLES",
    "example_parameters",
    "export_discriminator",
    "export_encoder",
    "export_fan",
    "export_generator",
    "export_identity",
    "export_motion",
    "write_card",
    "write_examples",
]

EXAMPLES = {"look": 41, "landmarks": 69}
"""Which faces of the test split the example portraits are; chosen by eye to differ in identity,
pose and mouth opening."""

EXAMPLE_SIZE = 256

_MOTION_SAMPLES = 2400

# Kept in float32: running variances of a residual net pass fp16's largest number, and the fitted
# weights of a metric its smallest. Both are few.
_WIDE = re.compile(r"\.running_|(^|\.)lin\d$")


def export_generator(path: Path, generator: Generator, about: Mapping[str, str]) -> None:
    """Write the generator with its w statistics (w_stats.*) and w_avg, as fp16."""
    stats = w_statistics(generator)
    generator.mapping.w_avg.copy_(stats["mean"])
    tensors = dict(generator.state_dict())
    tensors.update({f"w_stats.{name}": value for name, value in stats.items()})
    _export(path, "stylegan2-generator", generator, tensors, about)


def export_fan(path: Path, fan: FAN, about: Mapping[str, str]) -> None:
    """Write a landmark net as fp16."""
    _export(path, "fan", fan, dict(fan.state_dict()), about)


def export_encoder(path: Path, encoder: SampleEncoder, about: Mapping[str, str]) -> None:
    """Write the encoder as fp16."""
    _export(path, "sample-encoder", encoder, dict(encoder.state_dict()), about)


def export_identity(path: Path, net: IdentityNet, about: Mapping[str, str]) -> None:
    """Write the identity net as fp16."""
    _export(path, "sample-identity", net, dict(net.state_dict()), about)


def export_motion(folder: Path, about: Mapping[str, str]) -> None:
    """Learn how the generator's latents move a face, from the files in `folder`, and write it.

    It belongs to the weights of generator, landmark net and identity net; run it after any changes.
    """
    generator = zoo.load_generator(folder / "generator.safetensors")
    fan = zoo.load_landmarker(folder / "fan.safetensors")
    net = zoo.load_identity(folder / "identity.safetensors")
    space = LatentSpace(measure(generator), "w", "whitened", generator.num_ws)
    identity, size = IdentityDistance(net, crop=None), generator.img_resolution
    model = fit_motion(
        generator, space, Landmarker(fan), identity, size=size, samples=_MOTION_SAMPLES, seed=5
    )
    model.save(folder / "motion.safetensors", dict(about))


def export_discriminator(path: Path, net: Discriminator, about: Mapping[str, str]) -> None:
    """Write the discriminator as fp16."""
    _export(path, "stylegan2-discriminator", net, dict(net.state_dict()), about)


def example_parameters() -> dict[str, NDArray[np.float64]]:
    """Parameters [P] of the example faces: look, landmarks, and the ideal result.

    The ideal is the look's identity and appearance with the pose and expression of landmarks.
    """
    faces = {}
    for name, number in EXAMPLES.items():
        z = chunk_z("test", number // 256, procface.Z_DIM)[number % 256]
        faces[name] = procface.from_latent(z[None])[0]
    ideal = procface.compose(faces["look"], faces["landmarks"], take=("pose", "expression"))
    return {**faces, "ideal": np.asarray(ideal).reshape(-1)}


def write_examples(directory: Path) -> None:
    """Render look.png, landmarks.png and ideal.png with a JSON file of exact landmarks each.

    Each JSON holds "size", "points" (pixels of that size), "relative" (points / size) and
    "parameters" by name; for the two faces of the test split also their "latent" z.
    """
    names = [p.name for p in procface.PARAMS]
    for name, parameters in example_parameters().items():
        out = procface.render(parameters[None], size=EXAMPLE_SIZE, threads=1)
        points = np.asarray(out["landmarks"][0], np.float64)
        content: dict[str, Any] = {
            "size": EXAMPLE_SIZE,
            "points": points.round(4).tolist(),
            "relative": (points / EXAMPLE_SIZE).round(6).tolist(),
            "parameters": dict(zip(names, parameters.round(9).tolist(), strict=True)),
        }
        if name in EXAMPLES:
            number = EXAMPLES[name]
            z = chunk_z("test", number // 256, procface.Z_DIM)[number % 256]
            content["source"] = f"face {number} of the test split, seed {SEEDS['test']}"
            content["latent"] = [float(v) for v in z]
        else:
            content["source"] = "look with the pose and expression of landmarks"
        write_atomically(directory / f"{name}.json", json.dumps(content, indent=1).encode() + b"\n")
        save_png(directory / f"{name}.png", out["image"][0])


def write_card(
    directory: Path,
    numbers: Mapping[str, Any],
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    facts: Mapping[str, str],
) -> None:
    """Write model_card.json (all numbers) and MODEL_CARD.md (for people).

    Args:
        directory: of the assets.
        numbers: what the evaluation measured, see `sample_models.evaluate`.
        runs: history of each training run, as the loop records it.
        facts: label -> value lines, such as data hashes and commands.
    """
    content = {"numbers": numbers, "runs": runs, "facts": facts}
    write_atomically(directory / "model_card.json", json.dumps(content, indent=1).encode() + b"\n")
    generator, fan, judge = numbers["generator"], numbers["fan"], numbers["judge"]
    encoder, identity = numbers["encoder"], numbers["identity"]
    look, critic = numbers["perceptual"], numbers["discriminator"]
    r2 = sorted(encoder["r2_value"].items(), key=lambda item: -item[1])
    heard = sorted(look["seen"].items(), key=lambda item: -item[1])
    groups = {k[4:]: v for k, v in fan.items() if k.startswith("nme_") and k[4:] in GROUPS}
    rows = {
        "generator.safetensors": (
            "StyleGAN2 (skip), z to the face of z",
            f"PSNR {generator['psnr']:.1f} dB (5th percentile {generator['psnr_p05']:.1f}), "
            f"inner face {generator['face_psnr']:.1f} dB, "
            f"sharpness {generator['sharpness']:.2f} of the renders'",
        ),
        "fan.safetensors": (
            "landmark net (FAN architecture)",
            f"NME {_percent(fan['nme'])} on renders (95th percentile {_percent(fan['nme_p95'])}), "
            f"{_percent(fan['nme_generated'])} on generated faces",
        ),
        "encoder.safetensors": (
            "image to z and landmarks; perceptual features",
            f"mean R2 {encoder['r2_value_mean']:.2f} of parameter values, "
            f"{encoder['r2_mean']:.2f} of tanh(0.75 z); landmark NME {_percent(encoder['nme'])}",
        ),
        "the same as a metric": (
            "LPIPS on its stages and windows, fitted channel weights",
            f"rank correlation with the parameters' distance {look['rank']:.2f}, "
            f"{look['rank_one']:.2f} where one parameter differs",
        ),
        "identity.safetensors": (
            "face to identity embedding",
            f"AUC {identity['auc']:.4f}, {_percent(identity['tar_001'])} of the pairs of one "
            f"person found at 0.1 % false ones; cosine {identity['same']:.2f} within a person, "
            f"{identity['other']:.2f} between two",
        ),
        "judge_fan.safetensors (tests only)": (
            "independent landmark net",
            f"NME {_percent(judge['nme'])} on renders, {_percent(judge['nme_generated'])} on "
            "generated faces",
        ),
        "discriminator.safetensors (tests only)": (
            "renders against generated faces",
            f"accuracy {_percent(critic['accuracy'])}, the render of a pair scores higher in "
            f"{_percent(critic['pairs'])}",
        ),
    }
    lines = [
        "# Sample models",
        "",
        "Small networks for the package's default, trained from nothing but procedural faces",
        "(`pyfacelat.procface`): no photograph and no person's likeness went into them. They show",
        "how the package works and test it; for photographs use networks trained on photographs.",
        "",
        f"Measured on {int(generator['faces'])} faces of the test split that no training has seen.",
        "NME = mean landmark error over the distance of the outer eye corners. All numbers are of",
        "the fp16 files as shipped.",
        "",
        "| file | what it is | measured |",
        "|---|---|---|",
        *[f"| {name} | {what} | {measured} |" for name, (what, measured) in rows.items()],
        "",
        "NME by group: " + ", ".join(f"{k} {_percent(v)}" for k, v in groups.items()) + ".",
        "",
        "R2 by parameter, of its value (of tanh(0.75 z), which images hide where the value hardly",
        "depends on z): " + ", ".join(f"{k} {v:.2f} ({encoder['r2'][k]:.2f})" for k, v in r2) + ".",
        "",
        "What the metric sees of one standard deviation of a parameter, as a multiple of the mean",
        "over parameters: " + ", ".join(f"{k} {v:.2f}" for k, v in heard) + ".",
        "",
        "## How they were made",
        "",
        *[f"- {label}: {value}" for label, value in facts.items()],
        "",
        "| run | phase | steps | images | of faces | minutes | last numbers |",
        "|---|---|---|---|---|---|---|",
    ]
    for run, history in runs.items():
        for part in history:
            last = ", ".join(f"{k} {v:.4g}" for k, v in part["check"].items())
            lines.append(
                f"| {run} | {part['phase']} | {part['steps']} | {part['images']} | "
                f"{part.get('faces', '')} | {part['seconds'] / 60:.1f} | {last} |"
            )
    write_atomically(directory / "MODEL_CARD.md", ("\n".join(lines) + "\n").encode())


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.2f} %"


def _export(
    path: Path, kind: str, net: nn.Module, tensors: dict[str, Tensor], about: Mapping[str, str]
) -> None:
    config = json.loads(json.dumps(dataclasses.asdict(net.config)))  # type: ignore[call-overload]
    half = {
        name: value.detach().to(torch.float32 if _WIDE.search(name) else torch.float16)
        if value.is_floating_point()
        else value
        for name, value in tensors.items()
    }
    checkpoints.write_safetensors(path, kind, config, half, metadata=dict(about))
