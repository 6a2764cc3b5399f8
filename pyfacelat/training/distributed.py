"""Training by several processes, each with batches of its own: `torchrun -m pyfacelat train ...`.

Every process has the whole network. After each backward pass the gradients are averaged, so that P
processes do what one does with P times the batch (batch normalisation sees each part alone). The
first process checks, logs and saves; the others wait for it at the next average.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pyfacelat.errors import ConfigError

__all__ = ["World", "average_gradients", "joined", "share"]


@dataclasses.dataclass(frozen=True)
class World:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process checks, logs and saves."""
        return self.rank == 0


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[tuple[World, torch.device]]:
    """Join the processes that torchrun started; alone where it did not.

    Args:
        device: "cuda" becomes the GPU of this process's local rank.

    Yields:
        the world, and the device of this process.

    Raises:
        ConfigError: torchrun's variables are there in part only.
    """
    if "WORLD_SIZE" not in os.environ:
        yield World(), device
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(f"{missing[0]}: not set, though WORLD_SIZE is; start with torchrun")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()


@torch.no_grad()
def share(net: nn.Module, world: World) -> None:
    """Give every process the first one's weights and buffers."""
    if world.size > 1:
        for tensor in net.state_dict().values():
            dist.broadcast(tensor, 0)


@torch.no_grad()
def average_gradients(net: nn.Module, losses: dict[str, Tensor], world: World) -> dict[str, Tensor]:
    """Average the gradients of all processes, in place, and their losses.

    A parameter without gradient counts as one with zeros, and gets one, so that all stay equal.

    Returns:
        the losses [.], detached: the same in every process, so that all see what is not finite.
    """
    detached = {name: value.detach() for name, value in losses.items()}
    if world.size == 1:
        return detached
    parameters = [p for p in net.parameters() if p.requires_grad]
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    parts = [p.grad.flatten() for p in parameters if p.grad is not None]
    parts += [value.reshape(1).to(parts[0]) for value in detached.values()]
    flat = torch.cat(parts)
    dist.all_reduce(flat)
    flat /= world.size
    pieces = flat.split([part.numel() for part in parts])
    for p, piece in zip(parameters, pieces, strict=False):
        p.grad = piece.view_as(p)
    tail = pieces[len(parameters) :]
    return {name: value[0] for name, value in zip(detached, tail, strict=True)}
