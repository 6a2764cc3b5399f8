"""The whole projection step on a CUDA device, beside the published one in three faster forms.

    python -m bench.gpu_step OUT.json [--seconds 150]

Sides, with the same weights, start and loss, TF32 allowed:

    ours, ours graph   operator by operator, and replayed as `graph=True` does
    plain              the published formulation
    one-line           that with every improvement a user could make in a line
    one-line graph     replayed as a CUDA graph
    compiled           the one-line form's networks under torch.compile

Medians of CUDA events; kernels launched a step; peak memory. The rivals project one image at a
time, so at batch 8 ours is compared with itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as record

from bench import rivals
from bench.bench_project import Case, Networks, Run, our_step
from pyfacelat.faces.groups import REFERENCE_WEIGHTS, expand
from pyfacelat.projection.graphs import GraphCache
from pyfacelat.projection.step import Step

STEPS = 1000
SIDES = ("ours", "ours graph", "plain", "one-line", "one-line graph", "compiled")


def rival(nets: Networks, *, improved: bool, capturable: bool = False) -> rivals.Step:
    """A rival on the device of the networks."""
    device = nets.look.device
    return rivals.Step(
        nets.generator, nets.perceptual, nets.fan, nets.look, nets.pose, w=nets.w,
        noise=nets.noise, weights=expand(REFERENCE_WEIGHTS).to(device),
        draws=torch.zeros(STEPS, 512, device=device), improved=improved, capturable=capturable,
    )  # fmt: skip


def recorded(run: rivals.Step) -> Run:
    """A rival's step as a CUDA graph; its rate stays that of the step captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def make_side(side: str, nets: Networks, batch: int) -> Run:
    """One call is one step."""
    if side.startswith("ours"):
        step = our_step(nets, "float32", STEPS, batch=batch, device="cuda")
        run: Run = GraphCache().graphed(step) if side == "ours graph" else step
        return counting(step, run)
    if side == "one-line graph":
        return recorded(rival(nets, improved=True, capturable=True))
    made = rival(nets, improved=side != "plain")
    if side == "compiled":
        made.compile()
    return made


def counting(step: Step, run: Run) -> Run:
    """Starts over before the tables end."""
    calls = [0]

    def again() -> None:
        calls[0] += 1
        if calls[0] % STEPS == 0:
            step.buffers.counter.zero_()
        run()

    return again


def milliseconds(run: Run, rounds: int = 12) -> float:
    """Median time of a step."""
    for _ in range(3):
        run()
    times = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(3):
            run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 3)
    return statistics.median(times)


def launches(run: Run) -> int:
    """Kernels of a step, copies and fills included."""
    torch.cuda.synchronize()
    with record(activities=[ProfilerActivity.CUDA]) as events:
        run()
        torch.cuda.synchronize()
    on_device = torch.autograd.DeviceType.CUDA
    return sum(1 for event in events.events() if event.device_type == on_device)


def measure(side: str, nets: Networks, batch: int) -> dict[str, float]:
    """Time, launches and peak memory of one side."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run = make_side(side, nets, batch)
    found: dict[str, float] = {"ms": milliseconds(run)}
    found["gigabytes"] = torch.cuda.max_memory_allocated() / 2**30
    found["launches"] = launches(run)
    return found


def main() -> None:
    """Measure, write the JSON, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=150, help="start no side after this long")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    deadline = time.monotonic() + options.seconds
    rows, left_out = [], []
    print(f"{torch.cuda.get_device_name()}: a step with VGG-16 and FAN-4, TF32 allowed")
    print(f"{'size':>5} {'batch':>5}  {'side':16}{'ms':>9}{'launches':>9}{'GB':>7}")
    for size in (1024, 256, 512):
        nets = Networks(Case(size)).to("cuda")
        for batch, sides in ((1, SIDES), (8, SIDES[:2])):
            for side in sides:
                if time.monotonic() > deadline:
                    left_out.append(f"{size} px, batch {batch}, {side}")
                    continue
                try:
                    found = measure(side, nets, batch)
                except RuntimeError as error:  # memory, or a side that torch cannot run
                    left_out.append(f"{size} px, batch {batch}, {side}: {error}"[:200])
                    continue
                rows.append({"size": size, "batch": batch, "side": side, **found})
                text = f"{found['ms']:9.3f}{found['launches']:9.0f}{found['gigabytes']:7.2f}"
                print(f"{size:5} {batch:5}  {side:16}{text}", flush=True)
    result = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "rows": rows,
        "left_out": left_out,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    for line in left_out:
        print(f"left out: {line}")


if __name__ == "__main__":
    main()
