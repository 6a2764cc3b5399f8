"""Steps recorded as CUDA graphs: captured once, replayed for every step of every run of their kind.

A captured step always reads and writes the same memory. A run of the same stage and shapes brings
its own numbers, so they are copied over: the buffers, the latent noise, and whatever the new loss
terms hold where the captured ones hold something of the same kind (`corresponding`). Terms that
cannot be followed that way are captured anew; none is ever replayed on the targets of another run.
"""

from __future__ import annotations

import dataclasses
import types
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyfacelat.errors import DeviceError
from pyfacelat.losses.objective import Objective
from pyfacelat.projection.config import Stage
from pyfacelat.projection.space import LatentSpace
from pyfacelat.projection.step import Buffers, Step

LIMIT = 4
"""Graphs kept: both stages of the default preset, for two sizes of batch."""

_WARM_UPS = 2  # cuDNN chooses algorithms and libraries allocate workspaces at the first calls


class GraphedStep:
    """A `Step` whose calls replay its graph; made by `GraphCache`."""

    def __init__(self, step: Step, graph: Any) -> None:
        self._step = step
        self._graph = graph

    @property
    def stage(self) -> Stage:
        """As of the step."""
        return self._step.stage

    @property
    def objective(self) -> Objective:
        """As of the step."""
        return self._step.objective

    @property
    def space(self) -> LatentSpace:
        """As of the step."""
        return self._step.space

    @property
    def buffers(self) -> Buffers:
        """As of the step."""
        return self._step.buffers

    def remember_start(self) -> None:
        """As of the step; done once, so not part of the graph."""
        self._step.remember_start()

    def __call__(self) -> None:
        """Launch one step; returns before it is done."""
        self._graph.replay()

    def take_over(self, step: Step) -> bool:
        """Copy the numbers of `step` to where the graph reads them; False if they do not fit."""
        mine, theirs = (
            [s.buffers.tensors(), s.draws, s.objective, s.space] for s in (self._step, step)
        )
        pairs = corresponding(mine, theirs)
        if pairs is None:
            return False
        with torch.no_grad():
            for old, new in pairs:
                old.copy_(new)
        return True


class GraphCache:
    """The captured steps of one `Projector`, least recently used first.

    Args:
        limit: how many are kept. They share one pool of memory, since no two run at a time and
            nothing is read from it between replays.
        cuda: stands for `torch.cuda` in tests.

    """

    def __init__(self, limit: int = LIMIT, *, cuda: Any = torch.cuda) -> None:
        self._limit = limit
        self._cuda = cuda
        self._kept: OrderedDict[Hashable, GraphedStep] = OrderedDict()
        self._pool: Any = None

    def __len__(self) -> int:
        return len(self._kept)

    def graphed(self, step: Step) -> GraphedStep:
        """A graph that does what `step` does, in the state that `step` is in.

        From here on the result's buffers count, not those of `step`.

        Raises:
            DeviceError: the step cannot be captured. Running out of memory is passed on. Either
                way nothing of the attempt is kept, and neither are the other graphs.
        """
        key = _key(step)
        kept = self._kept.get(key)
        if kept is not None and kept.take_over(step):
            self._kept.move_to_end(key)
            return kept
        self._kept.pop(key, None)
        while len(self._kept) >= self._limit:
            self._kept.popitem(last=False)
        try:
            made = self._kept[key] = GraphedStep(step, self._capture(step))
        except (torch.OutOfMemoryError, MemoryError):
            self.clear()
            raise
        except RuntimeError as error:
            self.clear()
            raise DeviceError(
                f"graph: this step cannot be recorded as a CUDA graph ({error}); "
                "pass graph=False to run it operator by operator"
            ) from error.with_traceback(None)
        return made

    def clear(self) -> None:
        """Forget all graphs and return their memory."""
        self._kept.clear()
        self._pool = None
        self._cuda.empty_cache()

    def _capture(self, step: Step) -> Any:
        cuda, state = self._cuda, step.buffers.tensors()
        before = {name: tensor.clone() for name, tensor in state.items()}

        def restore() -> None:
            with torch.no_grad():
                for name, tensor in state.items():
                    tensor.copy_(before[name])

        side = cuda.Stream()
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):
            for _ in range(_WARM_UPS):
                step()
                restore()  # a stage may have fewer steps than these
        cuda.current_stream().wait_stream(side)
        if self._pool is None:
            self._pool = cuda.graph_pool_handle()
        graph = cuda.CUDAGraph()
        with cuda.graph(graph, pool=self._pool):
            step()
        restore()
        return graph


def _key(step: Step) -> Hashable:
    """What a graph depends on besides the networks of its projector."""
    shapes = [(name, tuple(t.shape), t.dtype) for name, t in step.buffers.tensors().items()]
    return repr(step.stage), tuple(shapes)


def corresponding(old: Any, new: Any) -> list[tuple[Tensor, Tensor]] | None:
    """Tensors of `old` with those at the same place in `new`; None where the two differ in kind.

    Follows functions to what they close over, bound methods, sequences, mappings, dataclasses,
    modules, and objects with a method `recorded_parts`, which lists what they hold; anything else
    must be the very same object, or an equal number or text.
    """
    pairs: list[tuple[Tensor, Tensor]] = []
    return pairs if _walk(old, new, pairs, set()) else None


def _walk(old: Any, new: Any, pairs: list[tuple[Tensor, Tensor]], seen: set[int]) -> bool:
    if old is new or id(old) in seen:
        return True
    if type(old) is not type(new):
        return False
    seen.add(id(old))
    if isinstance(old, Tensor):
        fits = (old.shape, old.dtype, old.device) == (new.shape, new.dtype, new.device)
        if fits:
            pairs.append((old, new))
        return fits
    inside = _inside(old), _inside(new)
    if inside[0] is None or inside[1] is None:
        return isinstance(old, str | int | float | bool | torch.dtype | torch.device) and old == new
    return len(inside[0]) == len(inside[1]) and all(
        _walk(a, b, pairs, seen) for a, b in zip(*inside, strict=True)
    )


def _inside(thing: Any) -> list[Any] | None:
    """The parts of a thing in a fixed order; None for what cannot be taken apart."""
    if isinstance(thing, types.FunctionType):
        cells = [cell.cell_contents for cell in thing.__closure__ or ()]
        return [thing.__code__, *cells, thing.__defaults__, thing.__kwdefaults__]
    if isinstance(thing, types.MethodType):
        return [thing.__func__, thing.__self__]
    if isinstance(thing, list | tuple):
        return list(thing)
    if isinstance(thing, Mapping):
        return [part for item in thing.items() for part in item]
    if isinstance(thing, nn.Module):
        # Children and tensors count, and so does every setting of its own.
        settings = {k: v for k, v in vars(thing).items() if not k.startswith("_")}
        held = dict(thing.named_parameters(recurse=False))
        held |= dict(thing.named_buffers(recurse=False))
        return [settings, held, dict(thing.named_children())]
    if hasattr(thing, "recorded_parts"):
        parts: list[Any] = thing.recorded_parts()
        return parts
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return [vars(thing)]
    return None
