"""The whole projection step on the CPU, beside the published one and its best one-line form.

    python -m bench.bench_project [CASE ...] [--rounds 5] [--threads N] [--out FILE]
    python -m bench.bench_project --check FILE      ratios against a recorded file, one run
    python -m bench.bench_project --profile CASE    where our step's time goes

Networks have random weights in their published sizes: StyleGAN2 config-f, VGG-16, FAN-4. The three
sides start from the same latents and noise, must agree on the loss, and take turns step by step;
what counts is the ratio within a turn, its median and its range. `rivals` describes the other two.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench import rivals
from pyfacelat.faces.groups import REFERENCE_WEIGHTS, expand
from pyfacelat.losses.objective import Objective
from pyfacelat.losses.perceptual import LPIPS
from pyfacelat.nets.fan import FAN, FANConfig
from pyfacelat.nets.frozen_synthesis import FrozenSynthesis
from pyfacelat.nets.stylegan2 import Generator, GeneratorConfig
from pyfacelat.nets.vgg import VGG16Features
from pyfacelat.projection.config import make_config
from pyfacelat.projection.engine import Projector
from pyfacelat.projection.memory import keep_blocks
from pyfacelat.projection.step import Buffers, Step
from pyfacelat.projection.targets import make_targets

Run = Callable[[], object]
SIDES = ("ours", "plain", "one-line")
ALLOWED = 1.10  # a ratio may exceed the recorded one by this factor before --check complains


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        resolution: of the generator.
        whole: the step with VGG, FAN and optimiser, or else synthesis forward and backward only.
        dtype: of our side; the rivals are float32.
        threads: unless the command line says otherwise.
        rounds: turns.

    """

    resolution: int
    whole: bool = True
    dtype: str = "float32"
    threads: int = 2
    rounds: int = 5


CASES = {
    "step-256": Case(256),
    "step-512": Case(512, rounds=3),
    "step-1024": Case(1024, rounds=3),
    "step-256-bf16": Case(256, dtype="bfloat16"),
    "synthesis-256": Case(256, whole=False, threads=1, rounds=7),
    "synthesis-512": Case(512, whole=False, threads=1),
    "synthesis-1024": Case(1024, whole=False, threads=1, rounds=3),
    "synthesis-1024-bf16": Case(1024, whole=False, dtype="bfloat16", threads=1, rounds=3),
}
QUICK = ("step-256", "synthesis-1024", "sample")


class Networks:
    """Random networks of the published sizes, and what the sides share."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        size = case.resolution
        self.config = GeneratorConfig(
            z_dim=512,
            w_dim=512,
            img_resolution=size,
            channel_base=16384 if size <= 256 else 32768,
            num_mapping_layers=2,
        )
        self.generator = Generator(self.config).eval().requires_grad_(False)
        for name, parameter in self.generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.1)
        vgg = VGG16Features()
        for module in vgg.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        self.perceptual = LPIPS(vgg, [torch.full((c,), 1 / c) for c in vgg.channels])
        self.fan = FAN(FANConfig()).eval().requires_grad_(False)
        self.w = torch.randn(1, 1, 512) * 0.3
        shapes = self.generator.noise_names()
        self.noise = {name: torch.randn(shape) for name, shape in shapes.items()}
        with torch.no_grad():
            ws = (torch.randn(2, 1, 512) * 0.3).expand(-1, self.generator.num_ws, -1)
            image = self.generator.synthesis(ws)
            self.look, self.pose = (image / image.std()).clamp(-2, 2).split(1)

    def to(self, device: str) -> Networks:
        """Move everything, in place."""
        for net in (self.generator, self.perceptual, self.fan):
            net.to(device)
        self.w, self.look, self.pose = (t.to(device) for t in (self.w, self.look, self.pose))
        self.noise = {name: value.to(device) for name, value in self.noise.items()}
        return self


class Synthesis:
    """Forward and backward of a synthesis to w and noise, for a given gradient of the image."""

    def __init__(self, nets: Networks, render: Callable[..., Tensor]) -> None:
        self._leaves = {"w": nets.w, **nets.noise}
        self._num_ws = nets.generator.num_ws
        self._render = render
        self._gradient = torch.randn(nets.look.shape, generator=torch.Generator().manual_seed(1))

    def __call__(self) -> Tensor:
        """The norm of all gradients."""
        leaves = {name: value.detach().requires_grad_() for name, value in self._leaves.items()}
        ws = leaves.pop("w")
        image = self._render(ws.expand(-1, self._num_ws, -1), noise=leaves)
        gradients = torch.autograd.grad(image, [ws, *leaves.values()], self._gradient)
        return torch.stack([g.norm() for g in gradients]).norm()


def our_step(
    nets: Networks, dtype: str, steps: int = 1000, *, batch: int = 1, device: str = "cpu"
) -> Step:
    """Our step under the reference preset's terms, from the shared start, `batch` times."""
    config = replace(make_config("reference", steps=steps, space="w"), w_samples=64)
    projector = Projector(
        nets.generator,
        preset=config,
        perceptual=nets.perceptual,
        landmarker=nets.fan,
        device=device,
        dtype=dtype,
        align=False,
    )
    (stage,) = config.stages
    look, pose = (image.expand(batch, -1, -1, -1) for image in (nets.look, nets.pose))
    targets = make_targets(config, projector.landmarker, look, points=None, maps=None, image=pose)
    theta = nets.w.repeat(batch, 1, 1)
    terms = projector._terms(stage, theta, targets)
    objective = Objective(terms, stage.weights, stage.weight_ends)
    noise = {name: value.repeat(batch, 1, 1) for name, value in nets.noise.items()}
    buffers = Buffers.allocate(theta, noise, steps, len(objective.names))
    draws = torch.zeros(steps, 1, 512, device=device)
    return Step(projector._render, projector.space, objective, stage, buffers, draws)


def make_side(case: Case, side: str, nets: Networks) -> Run:
    """One call is one step; it returns the total loss (of synthesis, the gradients' norm)."""
    improved = side == "one-line"
    if not case.whole:
        render = (
            FrozenSynthesis(nets.generator, getattr(torch, case.dtype))
            if side == "ours"
            else rivals.Synthesis(nets.generator, improved=improved)
        )
        return Synthesis(nets, render)
    if side != "ours":
        return rivals.Step(
            nets.generator, nets.perceptual, nets.fan, nets.look, nets.pose, w=nets.w,
            noise=nets.noise, weights=expand(REFERENCE_WEIGHTS), draws=torch.zeros(1000, 512),
            improved=improved,
        )  # fmt: skip
    step = our_step(nets, case.dtype)

    def run() -> Tensor:
        step()
        return step.buffers.losses[int(step.buffers.counter) - 1, -1].sum()

    return run


def timed(run: Run, side: str) -> tuple[float, float, float]:
    """Wall and CPU seconds of a call, and its result; the plain side has malloc as it comes."""
    keep_blocks(side != "plain")
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    spent = time.perf_counter() - wall, time.process_time() - cpu
    return *spent, float(result)  # type: ignore[arg-type]


def conv_rate() -> float:
    """GFLOP/s that torch's convolution reaches here at best: NHWC, 3x3, in cache."""
    best = 0.0
    for channels, side in ((64, 256), (128, 128), (256, 64), (512, 32)):
        layout = {"memory_format": torch.channels_last}
        x = torch.randn(1, channels, side, side).contiguous(**layout)
        w = torch.randn(channels, channels, 3, 3).contiguous(**layout)
        for _ in range(4):
            start = time.perf_counter()
            torch.conv2d(x, w, padding=1)
            gigaflops = 2e-9 * w.numel() * side * side
            best = max(best, gigaflops / (time.perf_counter() - start))
    return best


def gigaflops(case: Case, nets: Networks) -> float:
    """Arithmetic of a step that has no weight gradients: twice the forward's convolutions."""
    plain = rivals.Synthesis(nets.generator, improved=True)
    ws = nets.w.expand(-1, nets.generator.num_ws, -1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        image = plain(ws, nets.noise)
        if case.whole:
            small = rivals._shrink(image)
            nets.perceptual.trunk(small)
            nets.fan(small)
    return 2e-9 * counter.get_total_flops()


def peak_memory(name: str, side: str) -> float:
    """Megabytes a process of its own needs at most for two steps, interpreter and all."""
    command = [sys.executable, "-m", "bench.bench_project", name, "--peak", side]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def measure(name: str, case: Case, memory: bool) -> dict[str, object]:
    """One row: times, ratios with their range, rate, memory."""
    nets = Networks(case)
    runs = {side: make_side(case, side, nets) for side in SIDES}
    first = {side: timed(run, side)[2] for side, run in runs.items()}
    tolerance = 0.02 if case.dtype == "float32" else 0.1
    for side, value in first.items():
        assert abs(value - first["plain"]) <= tolerance * abs(first["plain"]), (side, first)
    turns = [{side: timed(run, side) for side, run in runs.items()} for _ in range(case.rounds)]
    row: dict[str, object] = {"case": name, "threads": torch.get_num_threads()}
    for k, clock in enumerate(("wall", "cpu")):
        row[clock] = {s: statistics.median(turn[s][k] for turn in turns) for s in SIDES}
        for rival in SIDES[1:]:
            ratios = [turn["ours"][k] / turn[rival][k] for turn in turns]
            row[f"{clock} of {rival}"] = [statistics.median(ratios), min(ratios), max(ratios)]
    work, rate = gigaflops(case, nets), conv_rate()
    fastest = min(turn["ours"][0] for turn in turns)
    row |= {"gigaflop": work, "rate": work / fastest, "share_of_floor": work / rate / fastest}
    if memory:
        row["megabytes"] = {side: peak_memory(name, side) for side in SIDES}
    return row


def sample_row(rounds: int = 30) -> dict[str, object]:
    """CPU milliseconds a step of the sample models at 128 px, for both stages of the default."""
    row: dict[str, object] = {"case": "sample", "threads": torch.get_num_threads()}
    for name, step in sample_steps().items():
        spent = []
        for _ in range(rounds):
            step.buffers.counter.zero_()
            spent.append(timed(step_only(step), "ours")[1])
        row[name] = {"cpu_ms": 1e3 * statistics.median(spent), "best_ms": 1e3 * min(spent)}
    return row


def step_only(step: Step) -> Run:
    def run() -> int:
        step()
        return 0

    return run


def sample_steps() -> dict[str, Step]:
    """A step of each stage of the default preset on the sample models."""
    projector = Projector(preset=replace(make_config("balanced"), w_samples=64), device="cpu")
    w = projector.statistics.mean.expand(1, projector.generator.num_ws, -1)
    with torch.no_grad():
        shifted = w + 0.3 * torch.randn(w.shape, generator=torch.Generator().manual_seed(0))
        look, pose = (projector.generator.synthesis(each) for each in (w, shifted))
    config = projector.config
    targets = make_targets(config, projector.landmarker, look, points=None, maps=None, image=pose)
    steps = {}
    for stage in config.stages:
        theta = projector.space.from_ws(shifted).clone()
        objective = Objective(projector._terms(stage, theta, targets), stage.weights)
        buffers = Buffers.allocate(theta, {}, stage.steps, len(objective.names))
        draws = torch.zeros(stage.steps, *theta.shape[1:])
        render = projector._render
        steps[stage.name] = Step(render, projector.space, objective, stage, buffers, draws)
    return steps


def show(row: dict[str, object]) -> None:
    """Print a row."""
    if row["case"] == "sample":
        parts = [f"{k} {v['cpu_ms']:.1f} cpu ms" for k, v in row.items() if isinstance(v, dict)]
        print(f"sample models, 128 px ({row['threads']} threads): {', '.join(parts)}", flush=True)
        return
    parts = []
    for clock in ("wall", "cpu"):
        times = row[clock]
        assert isinstance(times, dict)
        parts.append(f"{clock} " + " ".join(f"{s} {t * 1e3:.0f}" for s, t in times.items()))
        for rival in SIDES[1:]:
            middle, low, high = row[f"{clock} of {rival}"]  # type: ignore[misc]
            parts.append(f"{middle:.2f} of {rival} ({low:.2f} to {high:.2f})")
    parts.append(f"{row['rate']:.0f} GFLOP/s, {row['share_of_floor']:.0%} of the floor")
    if isinstance(memory := row.get("megabytes"), dict):
        parts.append("peak MB " + " ".join(f"{s} {m:.0f}" for s, m in memory.items()))
    print(f"{row['case']} ({row['threads']} threads), ms: " + "; ".join(parts), flush=True)


def check(rows: list[dict[str, object]], recorded: list[dict[str, object]]) -> list[str]:
    """What got slower beside the rivals, in words; ratios of CPU time are compared."""
    known = {row["case"]: row for row in recorded}
    worse = []
    for row in rows:
        for rival in SIDES[1:]:
            key = f"cpu of {rival}"
            if key not in row or key not in known.get(row["case"], {}):
                continue
            now, before = row[key][0], known[row["case"]][key][0]  # type: ignore[index]
            if now > ALLOWED * before:
                worse.append(f"{row['case']}: {now:.2f} {key}, recorded {before:.2f}")
    return worse


def profile(name: str) -> None:
    """Print where our step's CPU time goes: by part, then by operator."""
    from bench.step_parts import parts

    step = sample_steps()[name.removeprefix("sample-")] if name.startswith("sample-") else None
    if step is None:
        step = our_step(Networks(CASES[name]), CASES[name].dtype)
    keep_blocks(True)
    for part, milliseconds in parts(step).items():
        print(f"{part:24}{milliseconds:9.2f} cpu ms")


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help=f"{', '.join(CASES)}, sample; default: all")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check", type=Path, metavar="FILE")
    parser.add_argument("--profile", metavar="CASE")
    parser.add_argument("--peak", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    options = parser.parse_args()
    if options.profile:
        torch.set_num_threads(options.threads or 1)
        profile(options.profile)
        return
    names = options.cases or (QUICK if options.check else (*CASES, "sample"))
    rows = []
    for name in names:
        if name == "sample":
            torch.set_num_threads(options.threads or 1)
            rows.append(sample_row())
        else:
            case = CASES[name]
            torch.set_num_threads(options.threads or case.threads)
            if options.peak:
                run = make_side(case, options.peak, Networks(case))
                for _ in range(2):
                    timed(run, options.peak)
                import resource

                print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
                return
            case = replace(case, rounds=options.rounds or case.rounds)
            memory = not (options.check or options.no_memory)
            rows.append(measure(name, case, memory))
        show(rows[-1])
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")
    if options.check:
        worse = check(rows, json.loads(options.check.read_text()))
        for line in worse:
            print(f"slower: {line}")
        sys.exit(bool(worse))


if __name__ == "__main__":
    main()
