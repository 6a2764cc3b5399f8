"""Projections in processes that are killed, interrupted, starved of disk, or lied to.

Run as a program, it serves the functions below; see `tests.forkserver`. Every child works on the
same small networks, which the server makes once.
"""

from __future__ import annotations

import functools
import hashlib
import os
import resource
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pyfacelat
from pyfacelat.errors import OutdirBusyError, OutputError
from pyfacelat.losses.perceptual import LPIPS
from pyfacelat.nets.fan import FAN, FANConfig
from pyfacelat.projection import ProjectionConfig, loop, step
from pyfacelat.projection.config import Stage
from pyfacelat.projection.outdir import Outdir
from tests.forkserver import serve

from .conftest import Trunk, make_generator

NOISE_AND_BACK = ProjectionConfig(
    preset="two stages",
    stages=(
        Stage("with noise", 14, {"perceptual": 1.0, "noise": 1e5}, optimise_noise=True),
        Stage("without", 10, {"landmark": 1.0, "prior": 0.1}),
    ),
    w_samples=64,
)
"""The second stage needs noise maps that the first one found."""

SHORT = 6


@functools.cache
def projector(steps: int | None = None) -> pyfacelat.Projector:
    torch.manual_seed(1)
    fan = FAN(FANConfig(num_stacks=1, width=8, depth=1, input_size=16, stem="half")).eval()
    torch.manual_seed(2)
    lpips = LPIPS(Trunk(), [torch.ones(8), torch.ones(16)])
    network = make_generator(img_resolution=16)
    return pyfacelat.Projector(
        network, landmarker=fan, perceptual=lpips, preset=NOISE_AND_BACK, steps=steps
    )


def looks(count: int) -> Tensor:
    z = torch.randn(count, 16, generator=torch.Generator().manual_seed(5))
    images: Tensor = projector().generator(z)
    return images.clamp(-1, 1)


def digest(result: pyfacelat.ProjectionResult) -> str:
    """A hash of every number that a run computes."""
    parts = [result.ws, result.history, *result.noise.values(), *result.losses.values()]
    content = b"".join(part.contiguous().numpy().tobytes() for part in parts)
    return hashlib.sha256(content + result.images.tobytes()).hexdigest()


def run(outdir: str | None, *, resume: bool = False, count: int = 1, **more: Any) -> dict[str, Any]:
    """Project; the digest, or the error, and what was warned about."""
    out: dict[str, Any] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = projector().project(looks(count), outdir=outdir, resume=resume, **more)
            out["digest"] = digest(result)
        except (pyfacelat.FacelatError, KeyboardInterrupt) as error:
            out |= {"error": type(error).__name__, "message": str(error)}
            if isinstance(error, OutputError):
                out |= {"errno": error.errno, "digest": digest(error.result)}  # type: ignore[arg-type]
    return {**out, "warnings": [str(warning.message) for warning in caught]}


def often(every: int) -> None:
    """Check, and save, every few steps."""
    loop.CHECK_EVERY, loop.SAVE_EVERY = every, -1.0


def before_step(number: int, act: Callable[[], object]) -> None:
    """Do something in the middle of step `number`, counted from 1 in this process."""
    count, old = 0, step.Step._move_latents

    def move(self: step.Step, gradient: Tensor, rates: Tensor) -> None:
        nonlocal count
        count += 1
        if count == number:
            act()
        old(self, gradient, rates)

    step.Step._move_latents = move  # type: ignore[method-assign]


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def whole(count: int = 1) -> Iterator[Any]:
    """Nothing happens."""
    yield run(None, count=count)


def again(outdir: str, resume: bool = True, count: int = 1) -> Iterator[Any]:
    """A run that may go on from another one."""
    yield run(outdir, resume=resume, count=count)


def killed_at_step(outdir: str, number: int, every: int, resume: bool = False) -> Iterator[Any]:
    often(every)
    before_step(number, kill)
    yield run(outdir, resume=resume)


def killed_at_rename(outdir: str, number: int) -> Iterator[Any]:
    """Killed at one of the moments at which the folder's content changes."""
    often(4)
    count, old = 0, os.replace

    def replace(*paths: Any) -> None:
        nonlocal count
        count += 1
        if count == number:
            kill()
        old(*paths)

    os.replace = replace  # type: ignore[assignment]
    yield run(outdir)


def signalled(outdir: str, number: int, name: str, times: int) -> Iterator[Any]:
    """A signal, or two, in the middle of a step."""
    often(1000)

    def act() -> None:
        for _ in range(times):
            os.kill(os.getpid(), getattr(signal, name))

    before_step(number, act)
    yield run(outdir)
    yield signal.getsignal(signal.SIGINT) is signal.default_int_handler


def signalled_with_handler(outdir: str, number: int) -> Iterator[Any]:
    """The program has its own idea of SIGINT."""
    seen = []
    signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    before_step(number, lambda: os.kill(os.getpid(), signal.SIGINT))
    yield run(outdir)
    yield len(seen)


def in_a_thread(outdir: str) -> Iterator[Any]:
    """Signals belong to the main thread; a run elsewhere has to do without."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(run(outdir)))
    thread.start()
    thread.join()
    yield found[0]


def disk_full(outdir: str, limit: int, video: bool = False) -> Iterator[Any]:
    """No file may be larger than `limit` bytes."""
    often(4)
    if not video:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        yield run(outdir)
        return
    result = projector().project(looks(1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        result.save(outdir, video=True)
        yield "saved"
    except OutputError as error:
        yield {"error": "OutputError", "errno": error.errno, "message": str(error)}


def not_finite(outdir: str, number: int, count: int) -> Iterator[Any]:
    """The latents of one image become NaN in step `number`."""
    often(5)

    def act() -> None:
        poison.append(True)

    poison: list[bool] = []
    old = step.Step._move_latents

    def move(self: step.Step, gradient: Tensor, rates: Tensor) -> None:
        if poison:
            gradient = gradient.clone()
            gradient[count // 2] = torch.nan
        old(self, gradient, rates)

    step.Step._move_latents = move  # type: ignore[method-assign]
    before_step(number, act)
    yield run(outdir, count=count)


def out_of_memory(outdir: str, where: str) -> Iterator[Any]:
    """Memory runs out once, at the third of five items; then there is enough again."""
    often(2)
    net, images = projector(SHORT), looks(5)
    failed = []

    def fail(error: Exception) -> None:
        if not failed:
            failed.append(True)
            raise error

    def attempt(look: Tensor, folder: str, resume: bool = False) -> str:
        try:
            return digest(net.project(look, outdir=folder, resume=resume))
        except pyfacelat.DeviceError as error:
            return str(error)

    if where == "one by one":
        # Each item a run of its own, into its own folder.
        expected = digest(net.project(images[2]))
        before_step(2 * SHORT + 4, lambda: fail(torch.OutOfMemoryError("out of memory")))
        for index in range(3):
            message = attempt(images[index], f"{outdir}/{index}")
        yield message
        yield sorted(path.parent.name for path in Path(outdir).glob("*/result.json"))
        yield attempt(images[2], f"{outdir}/2", resume=True) == expected
        return
    expected = digest(net.project(images))
    if where == "step":
        before_step(4, lambda: fail(RuntimeError("DefaultCPUAllocator: not enough memory")))
    else:
        synthesis, calls = net.generator.synthesis.forward, []

        def forward(*args: Any, **kwargs: Any) -> Tensor:
            calls.append(torch.is_grad_enabled())
            # The images of the result are rendered one by one, without gradients.
            if calls.count(False) == 3:
                fail(MemoryError("for the third image"))
            rendered: Tensor = synthesis(*args, **kwargs)
            return rendered

        net.generator.synthesis.forward = forward  # type: ignore[method-assign]
    yield attempt(images, outdir)
    yield sorted(path.name for path in Path(outdir).iterdir())
    yield attempt(images, outdir, resume=True) == expected


def main_program(arguments: list[str], number: int = 0, name: str = "") -> Iterator[Any]:
    """The command line, signalled in the middle of step `number`."""
    from pyfacelat.cli import main

    before_step(number, lambda: os.kill(os.getpid(), getattr(signal, name)))
    yield main(arguments)


def contend(outdir: str, rounds: int, die: bool = False) -> Iterator[Any]:
    """Take the lock of a folder again and again, and see whether anyone else is inside."""
    inside = Path(outdir) / "inside"
    held = 0
    while held < rounds:
        try:
            with Outdir(Path(outdir)):
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
                held += 1
                time.sleep(0.002)
                os.unlink(inside)
                if die and held == rounds:
                    kill()
        except OutdirBusyError:
            time.sleep(0.001)
    yield held


FUNCTIONS = (
    whole,
    again,
    killed_at_step,
    killed_at_rename,
    signalled,
    signalled_with_handler,
    in_a_thread,
    disk_full,
    not_finite,
    out_of_memory,
    main_program,
    contend,
)

if __name__ == "__main__":
    torch.use_deterministic_algorithms(True, warn_only=True)
    run(None)  # warms up
    serve({function.__name__: function for function in FUNCTIONS})
