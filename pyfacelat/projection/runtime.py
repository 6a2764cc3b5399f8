"""Where and how a projection runs: device, dtype, what is refused, the progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from pyfacelat.errors import ConfigError, DeviceError, FacelatError
from pyfacelat.projection.config import check_choice
from pyfacelat.zoo import check_device

_DTYPES = {
    "auto": torch.float32,
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
}

Report = Callable[[str, int, int, float], None]


def resolve_device(device: str | torch.device) -> torch.device:
    """The device asked for; "auto" is the first GPU, or the CPU.

    Raises:
        DeviceError: no such device here, or not a device's name.

    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return check_device(device)


def resolve_dtype(dtype: str | torch.dtype) -> tuple[torch.dtype, torch.dtype | None]:
    """The dtype asked for, and that of the networks' features in the loop if it is another.

    "auto" is float32. "bfloat16" is for the features alone: latents, noise, images, losses and the
    optimiser stay in float32. Raises ConfigError for any other than these and float64.

    """
    name = str(dtype).removeprefix("torch.")
    check_choice("dtype", name, tuple(_DTYPES))
    chosen = _DTYPES[name]
    return (torch.float32, chosen) if chosen == torch.bfloat16 else (chosen, None)


def resolve_graph(graph: bool | str, device: torch.device, landmark_backend: str) -> bool:
    """Whether steps are replayed as a CUDA graph; "auto" is: wherever they can be.

    Raises:
        ConfigError: neither True, False nor "auto"; or True where there can be no graph.

    """
    if not isinstance(graph, bool) and graph != "auto":
        raise ConfigError(f'graph: expected True, False or "auto", got {graph!r}')
    why_not = ""
    if device.type != "cuda":
        why_not = f"graphs are for CUDA devices, and this is {device.type!r}"
    elif landmark_backend != "torch":
        why_not = f"the landmark backend {landmark_backend!r} cannot be recorded"
    if graph is True and why_not:
        raise ConfigError(f'graph: {why_not}; pass graph=False or "auto"')
    return graph is not False and not why_not


@contextmanager
def named_memory_errors(count: int, size: int, *, resumable: bool) -> Iterator[None]:
    """Turn running out of memory, on the CPU too, into a DeviceError that says what to do.

    Args:
        count: images in the batch.
        size: their side, in pixels.
        resumable: whether there is an output folder to resume from.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # torch has no class of its own for the CPU's allocator.
        cpu = "DefaultCPUAllocator" in str(error) and not isinstance(error, FacelatError)
        if not (cpu or isinstance(error, torch.OutOfMemoryError | MemoryError)):
            raise
        again = "; resume=True goes on from the last saved state" if resumable else ""
        # The frames of the traceback hold tensors that the next attempt needs the memory of.
        raise DeviceError(
            f"out of memory with {count} image(s) at {size} px; project fewer at a time, "
            f'or use device="cpu"{again}'
        ) from error.with_traceback(None)


@contextmanager
def progress_bar(show: bool, steps: int) -> Iterator[Report | None]:
    """A rich progress bar as a function (stage, step, steps, mean total), or None."""
    if not show:
        yield None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.4g}"),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("start", total=steps, loss=float("nan"))
        yield lambda stage, step, _total, loss: bar.update(
            task, description=stage, completed=step, loss=loss
        )
