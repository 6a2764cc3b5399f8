"""What Triton makes of every kernel: shared memory, registers and spills, per architecture.

`python -m tests.kernels.resources` compiles all kernels, as the largest networks launch them, and
rewrites resources.json, which test_resources.py holds new compilations to. No GPU is needed: ptxas
comes with triton.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pyfacelat.ops._library import kernels

TABLE = Path(__file__).with_name("resources.json")
ARCHITECTURES = (80, 90, 100)
_POINTERS = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int32: "*i32",
}
Row = dict[str, int]


@dataclass(frozen=True)
class Launch:
    """One kernel with the arguments of one launch."""

    name: str
    kernel: Any
    args: tuple[Any, ...]
    options: dict[str, Any]

    def compile(self, architecture: int) -> Row:
        """Shared memory in bytes, registers, and spilled bytes (stack and local memory)."""
        names = self.kernel.arg_names
        signature, constants, attributes = {}, {}, {}
        for i, (name, value) in enumerate(zip(names, self.args, strict=False)):
            if isinstance(value, torch.Tensor):
                signature[name] = _POINTERS[value.dtype]
                attributes[(i,)] = [["tt.divisibility", 16]]
            elif value == 1:  # triton makes a constant of it, too
                signature[name], constants[name] = "constexpr", 1
            else:
                signature[name] = "i64" if value >= 2**31 else "i32"
                if value % 16 == 0:
                    attributes[(i,)] = [["tt.divisibility", 16]]
        options = dict(self.options)
        settings = {"num_warps": options.pop("warps", 4), "enable_fp_fusion": False}
        for name, value in options.items():
            signature[name], constants[name] = "constexpr", value
        source = ASTSource(self.kernel, signature, constants, attributes)
        target = GPUTarget("cuda", architecture, 32)
        found = triton.compile(source, target=target, options=settings)
        return {"shared": found.metadata.shared, **_usage(found.asm["cubin"])}


def _usage(cubin: bytes) -> Row:
    program = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run(
            [str(program), "--dump-resource-usage", file.name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    numbers = {key: int(n) for key, n in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
    return {"registers": numbers["REG"], "spills": numbers["STACK"] + numbers["LOCAL"]}


def _kind(value: Any) -> Any:
    """What a compilation depends on of an argument."""
    if isinstance(value, torch.Tensor):
        return value.dtype
    return value == 1, value % 16 == 0, value >= 2**31


@contextlib.contextmanager
def recorded(module: Any, found: list[Launch], label: str) -> Iterator[None]:
    """Instead of starting its kernels, note what `module` would start."""

    def note(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
        assert all(0 < n < 2**31 for n in grid), (kernel, grid)
        assert all(n < 65536 for n in grid[1:]), (kernel, grid)
        name = f"{module.__name__.rpartition('.')[2]}.{kernel.fn.__name__.strip('_')}{label}"
        found.append(Launch(name, kernel, args, options))

    before, module.launch = module.launch, note
    try:
        yield
    finally:
        module.launch = before


def noise_maps(resolution: int) -> list[torch.Tensor]:
    """Maps of StyleGAN2's sizes for two images, not filled."""
    sides = [4]
    while sides[-1] < resolution:
        sides += [2 * sides[-1]] * 2
    flat = torch.empty(2, sum(s * s for s in sides))
    pieces = flat.split([s * s for s in sides], 1)
    return [p.unflatten(1, (s, s)) for p, s in zip(pieces, sides, strict=True)]


def _noise_reg() -> Iterator[tuple[str, Callable[[], Any]]]:
    maps = noise_maps(1024)
    yield "<fp32>", lambda: kernels("noise_reg").noise_reg(maps)


def _noise_update() -> Iterator[tuple[str, Callable[[], Any]]]:
    maps, rates = noise_maps(1024), torch.empty(4)
    flat = kernels("noise_reg").packed(maps)
    sizes = [s for m in maps for s in m.shape[1:]]
    for regular, label in ((None, "<fp32>"), (flat, "<fp32,regular>")):
        arguments = (flat, flat, flat, maps, rates, sizes, regular, 0.9, 0.999, 1e-8)
        yield label, lambda a=arguments: kernels("noise_update").noise_update(*a)


def _lpips_diff() -> Iterator[tuple[str, Callable[[], Any]]]:
    module = kernels("lpips_diff")
    weights = torch.empty(2, 32, 32)
    for dtype, channels, form, weight in (
        ("fp32", 64, "nhwc", None),
        ("fp32", 512, "nhwc", None),
        ("fp32", 512, "nhwc", weights),
        ("fp32", 512, "nchw", None),
        ("bf16", 512, "nhwc", None),
    ):
        x = _features(channels, 32, dtype, form)
        label = f"<{dtype},{channels},{form}{',weights' if weight is not None else ''}>"
        yield label, lambda x=x: module.lpips_unit(x)
        arguments = (x, x.float(), torch.empty(channels), weight)
        yield label, lambda a=arguments: module.lpips_diff(*a)


def _heatmap_loss() -> Iterator[tuple[str, Callable[[], Any]]]:
    module = kernels("heatmap_loss")
    for dtype, form, points, reductions in (
        ("fp32", "nchw", False, module.REDUCTIONS),
        ("fp32", "nchw", True, ("l2",)),
        ("fp32", "nhwc", False, ("l2",)),
        ("fp32", "nhwc", True, ("l2",)),
        ("bf16", "nhwc", False, ("l2",)),
    ):
        maps = _features(68, 64, dtype, form)
        target = torch.empty(2, 68, 2) if points else maps.float()
        for reduction in reductions:
            arguments = (maps, target, torch.empty(2, 68), reduction, 1.0)
            label = f"<{dtype},{form},{'points' if points else 'maps'},{reduction}>"
            yield label, lambda a=arguments: module.heatmap_loss(*a)


def _features(channels: int, side: int, dtype: str, form: str) -> torch.Tensor:
    x = torch.empty(2, channels, side, side)
    x = x.bfloat16() if dtype == "bf16" else x
    last = {"memory_format": torch.channels_last} if form == "nhwc" else {}
    return x.contiguous(**last)


CALLS = {
    "noise_reg": _noise_reg,
    "noise_update": _noise_update,
    "lpips_diff": _lpips_diff,
    "heatmap_loss": _heatmap_loss,
}


def launches(op: str) -> list[Launch]:
    """All launches of an op's kernels."""
    found: list[Launch] = []
    for label, call in CALLS[op]():
        with recorded(kernels(op), found, label):
            call()
    # Kernels that do not depend on what differs between two calls are compiled once.
    distinct = {}
    for launch in found:
        key = (launch.kernel, str([_kind(a) for a in launch.args]), str(launch.options))
        distinct.setdefault(key, launch)
    return list(distinct.values())


def main() -> None:
    """Rewrite the table."""
    table: dict[str, dict[str, str]] = {}
    for op in CALLS:
        for launch in launches(op):
            for architecture in ARCHITECTURES:
                row = launch.compile(architecture)
                assert row["spills"] == 0, (launch.name, architecture, row)
                cell = f"{row['registers']} registers, {row['shared']} bytes"
                table.setdefault(launch.name, {})[f"sm_{architecture}"] = cell
    lines = [f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(table.items())]
    text = '{\n  "triton": %s,\n  "kernels": {\n%s\n  }\n}\n'
    TABLE.write_text(text % (json.dumps(triton.__version__), ",\n".join(lines)))


if __name__ == "__main__":
    main()
