"""Every op at StyleGAN2's shapes on a CUDA device: our kernels beside the plain formulations.

    python -m bench.gpu_ops OUT.json [--seconds 120]

Rivals, on the same inputs and held to the same results first:

    plain     the published formulation
    one-line  that with every improvement a user could make in a line (bench_*.py says which)
    graph     one-line, replayed as a CUDA graph

Ours is timed in the same two ways, so that a replay meets a replay: what counts is the ratio. Times
are medians of CUDA events over whole forward and backward passes, L2 cache warm.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from bench import (
    bench_bias_act,
    bench_heatmap_loss,
    bench_lpips_diff,
    bench_modulated_conv2d,
    bench_noise_reg,
    bench_upfirdn2d,
)
from pyfacelat.ops import _extension, bias_act, modulated_conv2d, pack_maps, weight_energy

Run = Callable[[], tuple[Tensor, ...]]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def backward(op: Callable[..., Tensor], leaves: list[Tensor], dy: Tensor) -> Run:
    """A forward and backward pass to the given inputs."""

    def run() -> tuple[Tensor, ...]:
        inputs = [t.detach().requires_grad_() for t in leaves]
        y = op(*inputs)
        return (y.detach(), *torch.autograd.grad(y, inputs, dy))

    return run


def layer(i: int, o: int, size: int, up: int, like: dict) -> dict[str, Run]:
    """A styled convolution, as in bench_modulated_conv2d."""
    fir = bench_modulated_conv2d.FIR.to(like["device"])
    bench_modulated_conv2d.FIR = fir
    x, w = torch.randn(1, i, size // up, size // up, **like), torch.randn(o, i, 3, 3, **like)
    s, b = torch.randn(1, i, **like) + 1, torch.randn(o, **like)
    noise, dy = torch.randn(1, 1, size, size, **like), torch.randn(1, o, size, size, **like)
    energy = weight_energy(w)
    nhwc = {"memory_format": torch.channels_last}

    def ours(x: Tensor, s: Tensor, noise: Tensor) -> Tensor:
        return modulated_conv2d(
            x, w, s, noise=noise, up=up, padding=1, resample_filter=fir, flip_weight=up == 1,
            bias=b, act="lrelu", energy=energy,
        )  # fmt: skip

    def rival(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda x, s, noise: op(x, w, s, noise, b, up)

    return {
        "ours": backward(ours, [x.contiguous(**nhwc), s, noise], dy.contiguous(**nhwc)),
        "plain": backward(rival(bench_modulated_conv2d.fused), [x, s, noise], dy),
        "one-line": backward(
            rival(bench_modulated_conv2d.unfused),
            [x.contiguous(**nhwc), s, noise],
            dy.contiguous(**nhwc),
        ),
    }


def resampling(kind: str, channels: int, size: int, like: dict) -> dict[str, Run]:
    """One upfirdn2d, as in bench_upfirdn2d."""
    module = bench_upfirdn2d
    module.FIR = fir = module.FIR.to(like["device"])
    module.TAPS = module.TAPS.to(**like)
    x = torch.randn(1, channels, size, size, **like).contiguous(memory_format=torch.channels_last)
    dy = torch.randn_like(module.OURS[kind](x, fir))
    return {
        "ours": backward(lambda x: module.OURS[kind](x, fir), [x], dy),
        "plain": backward(module.PLAIN[kind], [x], dy),
        "one-line": backward(lambda x: module.separable(kind, x), [x], dy),
    }


def activation(channels: int, size: int, like: dict) -> dict[str, Run]:
    """Bias and leaky ReLU, as in bench_bias_act."""
    x = torch.randn(1, channels, size, size, **like).contiguous(memory_format=torch.channels_last)
    b, dy = torch.randn(channels, **like), torch.randn_like(x)
    return {
        "ours": backward(lambda x: bias_act(x, b, act="lrelu", clamp=256), [x], dy),
        "plain": backward(lambda x: bench_bias_act.plain(x, b, "lrelu"), [x], dy),
        "one-line": backward(lambda x: bench_bias_act.in_place(x, b, "lrelu"), [x], dy),
    }


def noise(resolution: int, like: dict) -> dict[str, Run]:
    """Value and gradient of the noise regulariser, as in bench_noise_reg; float32 only."""
    if like["dtype"] != torch.float32:
        return {}
    module = bench_noise_reg
    _, _, maps = pack_maps(module.maps_of(resolution, like["device"]))
    return {
        "ours": lambda: module.ours(maps),
        "plain": lambda: module.plain(maps),
        "one-line": lambda: module.dots(maps),
    }


def update(resolution: int, like: dict) -> dict[str, Run]:
    """Adam and renormalisation of all maps, as in bench_noise_reg; float32 only."""
    if like["dtype"] != torch.float32:
        return {}
    step = bench_noise_reg.Update(resolution, like["device"])
    return {"ours": step.ours, "plain": step.plain, "one-line": step.in_place}


def perceptual(channels: int, size: int, like: dict) -> dict[str, Run]:
    """One stage of LPIPS, as in bench_lpips_diff."""
    sides = bench_lpips_diff.sides(channels, size, **like)
    return {"ours": sides[""], "plain": sides["plain"], "one-line": sides["product"]}


def heatmaps(count: int, like: dict) -> dict[str, Run]:
    """The landmark loss, as in bench_heatmap_loss."""
    sides = bench_heatmap_loss.sides(count, **like)
    return {"ours": sides[""], "plain": sides["plain"], "one-line": sides["norm"]}


def cases() -> list[tuple[str, Callable[[dict], dict[str, Run]]]]:
    """Names and makers, the small ones first."""
    found: list[tuple[str, Callable[[dict], dict[str, Run]]]] = []
    for i, o, size, up in bench_modulated_conv2d.LAYERS:
        name = f"modulated_conv2d {i}->{o} at {size}" + (" up" if up > 1 else "")
        found.append((name, lambda like, a=(i, o, size, up): layer(*a, like)))
    for kind, channels, size in bench_upfirdn2d.SHAPES:
        name = f"upfirdn2d {kind} {channels} at {size}"
        found.append((name, lambda like, a=(kind, channels, size): resampling(*a, like)))
    for channels, size in bench_bias_act.SHAPES:
        found.append(
            (
                f"bias_act {channels} at {size}",
                lambda like, a=(channels, size): activation(*a, like),
            )
        )
    for resolution in bench_noise_reg.RESOLUTIONS:
        found.append((f"noise_reg {resolution}", lambda like, a=resolution: noise(a, like)))
        found.append((f"noise_update {resolution}", lambda like, a=resolution: update(a, like)))
    for channels, size in bench_lpips_diff.STAGES:
        name = f"lpips_diff {channels} at {size}"
        found.append((name, lambda like, a=(channels, size): perceptual(*a, like)))
    for count in bench_heatmap_loss.BATCHES:
        found.append((f"heatmap_loss batch {count}", lambda like, a=count: heatmaps(a, like)))
    return found


def check(found: tuple[Tensor, ...], truth: tuple[Tensor, ...], what: str) -> None:
    """The same results as the plain formulation, to what the dtype allows (a relative distance)."""
    for k, (a, b) in enumerate(zip(found, truth, strict=True)):
        a, b = a.double(), b.double()
        distance = float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))
        allowed = 0.05 if found[0].dtype == torch.bfloat16 else 5e-3
        assert distance < allowed, f"{what}: result {k} differs by {distance:.2g}"


def captured(run: Run) -> Run:
    """The same as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()

    def replay() -> tuple[Tensor, ...]:
        graph.replay()
        return results

    return replay


def microseconds(run: Run, rounds: int = 15, repeats: int = 10) -> float:
    """Median time of a pass, by events around `repeats` of them."""
    for _ in range(3):
        run()
    times = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / repeats)
    return statistics.median(times)


def measure(sides: dict[str, Run], what: str) -> dict[str, float]:
    """Times of all sides, eager and (ours and one-line) replayed."""
    truth = sides["plain"]()
    for name, run in sides.items():
        check(run(), truth, f"{what}, {name}")
    ways = {**sides, "ours graph": captured(sides["ours"]), "graph": captured(sides["one-line"])}
    return {name: microseconds(run) for name, run in ways.items()}


def main() -> None:
    """Measure, write the JSON, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=120, help="start no case after this long")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    deadline = time.monotonic() + options.seconds
    rows, left_out = [], []
    for dtype_name, dtype in DTYPES.items():
        for name, make in cases():
            if time.monotonic() > deadline:
                left_out.append(f"{name} {dtype_name}")
                continue
            torch.manual_seed(0)
            sides = make({"device": "cuda", "dtype": dtype})
            if sides:
                times = measure(sides, f"{name} {dtype_name}")
                rows.append({"case": name, "dtype": dtype_name, "microseconds": times})
    result = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "build": _extension.build_info(),
        "rows": rows,
        "left_out": left_out,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{result['gpu']}: forward and backward, microseconds, TF32 allowed")
    print(f"{'case':46}{'ours':>9}{'graph':>9}{'plain':>9}{'1-line':>9}{'graph':>9}{'ratio':>7}")
    for row in rows:
        t = row["microseconds"]
        columns = [t[k] for k in ("ours", "ours graph", "plain", "one-line", "graph")]
        text = "".join(f"{value:9.0f}" for value in columns)
        print(f"{row['case'] + ' ' + row['dtype']:46}{text}{t['graph'] / t['ours graph']:7.2f}")
    if left_out:
        print(f"left out for time: {len(left_out)} cases (named in the JSON)")


if __name__ == "__main__":
    main()
