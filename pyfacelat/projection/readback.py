"""Numbers on their way from the device to the host while the device goes on working."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Reading:
    """Copies of tensors as they are now, in the order of the device's work.

    Making one does not wait: on a CUDA device the copies go to pinned memory behind what is queued,
    and an event says when they are there. What is queued later does not touch them.

    Args:
        tensors: on any one device, by name; small.

    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._event: torch.cuda.Event | None = None
        self._host: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            value = tensor.detach()
            if value.is_cuda:
                host = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
                self._host[name] = host.copy_(value, non_blocking=True)
            else:
                self._host[name] = value.clone()
        if any(tensor.is_cuda for tensor in tensors.values()):
            self._event = torch.cuda.Event()
            self._event.record()

    def wait(self) -> dict[str, Tensor]:
        """The copies, on the CPU, once they are there."""
        if self._event is not None:
            self._event.synchronize()
        return self._host
