"""Frozen networks whose derivative runs without autograd: a tape of a few operators.

A network is a function `program(tape, node) -> nodes`; the tape computes each operator at once and
notes how its gradient goes back. Nothing is computed for weights, activations are let go as soon as
the backward has passed them, gradients of several uses add up in place, and no operator pays for
autograd's bookkeeping, which costs more than the arithmetic of a small layer. `Frozen` makes one
node of autograd out of a whole network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pyfacelat.ops.frozen import FrozenConv, channel_relu, channel_relu_gradient

__all__ = ["Frozen", "Node", "Program", "Tape"]


@dataclass
class Node:
    """A value on the tape, and the gradient that has come back to it so far."""

    data: Tensor
    grad: Tensor | None = None
    owned: bool = False  # whether the gradient may be added to in place

    def receive(self, gradient: Tensor, *, fresh: bool = True) -> None:
        """Add a gradient; `fresh` if nobody else holds that tensor."""
        if self.grad is None:
            self.grad, self.owned = gradient, fresh
        elif self.owned:
            self.grad.add_(gradient)
        elif fresh:
            self.grad, self.owned = gradient.add_(self.grad), True
        else:
            self.grad, self.owned = self.grad + gradient, True


class Tape:
    """Operators on nodes; all maps are [N,C,H,W], best in channels_last.

    Args:
        keep: whether there will be a backward.

    """

    def __init__(self, *, keep: bool = True) -> None:
        self._keep = keep
        self._steps: list[tuple[Node, Callable[[Tensor], None]]] = []

    def _note(self, data: Tensor, back: Callable[[Tensor], None]) -> Node:
        node = Node(data)
        if self._keep:
            self._steps.append((node, back))
        return node

    def backward(self, outputs: Sequence[Node], gradients: Sequence[Tensor | None]) -> None:
        """Fill in `grad` of the nodes that the outputs came from; empties the tape."""
        for node, gradient in zip(outputs, gradients, strict=True):
            if gradient is not None:
                node.receive(gradient, fresh=False)
        while self._steps:
            node, back = self._steps.pop()
            if node.grad is not None:
                gradient, node.grad = node.grad, None
                back(gradient)

    def conv(self, x: Node, conv: FrozenConv) -> Node:
        """Convolution with its bias and ReLU."""
        y, data = conv(x.data), x.data
        return self._note(y, lambda dy: x.receive(conv.gradient(dy, y, data)))

    def channel_relu(self, x: Node, scale: Tensor, shift: Tensor) -> Node:
        """Relu(scale * x + shift), both [C,1,1]."""
        y = channel_relu(x.data, scale, shift)
        return self._note(y, lambda dy: x.receive(channel_relu_gradient(dy, y, scale)))

    def add(self, a: Node, b: Node) -> Node:
        """Sum of two maps of one shape."""

        def back(dy: Tensor) -> None:
            a.receive(dy, fresh=False)
            b.receive(dy, fresh=False)

        return self._note(a.data + b.data, back)

    def cat(self, parts: Sequence[Node]) -> Node:
        """Side by side along the channels."""
        widths = [part.data.shape[1] for part in parts]

        def back(dy: Tensor) -> None:
            for part, slice_ in zip(parts, dy.split(widths, dim=1), strict=True):
                part.receive(slice_, fresh=False)

        return self._note(torch.cat([part.data for part in parts], dim=1), back)

    def max_pool(self, x: Node) -> Node:
        """Largest of 2x2."""
        y, where = F.max_pool2d(x.data, 2, return_indices=True)
        data = x.data

        def back(dy: Tensor) -> None:
            pool = torch.ops.aten.max_pool2d_with_indices_backward
            x.receive(pool(dy, data, [2, 2], [2, 2], [0, 0], [1, 1], False, where))

        return self._note(y, back)

    def mean_pool(self, x: Node) -> Node:
        """Mean of 2x2; even sides."""

        def back(dy: Tensor) -> None:
            x.receive(F.interpolate(dy, scale_factor=2, mode="nearest").mul_(0.25))

        return self._note(F.avg_pool2d(x.data, 2), back)

    def sample(self, x: Node, grid: Tensor) -> Node:
        """Bilinear samples at `grid` [N,h,w,2], which gets no gradient; as `F.grid_sample`."""
        # torch's backward of bfloat16 samples is not finite at times, and places want float32.
        dtype = x.data.dtype
        wide = torch.promote_types(dtype, torch.float32)
        data, places = x.data.to(wide), grid.to(wide)

        def back(dy: Tensor) -> None:
            sampler = torch.ops.aten.grid_sampler_2d_backward
            found = sampler(dy.to(wide), data, places, 0, 0, False, [True, False])
            x.receive(found[0].to(dtype))

        return self._note(F.grid_sample(data, places, align_corners=False).to(dtype), back)

    def enlarge(self, x: Node) -> Node:
        """Every pixel twice in both directions."""

        def back(dy: Tensor) -> None:
            x.receive(F.avg_pool2d(dy, 2, divisor_override=1))

        return self._note(F.interpolate(x.data, scale_factor=2, mode="nearest"), back)


Program = Callable[[Tape, Node], list[Node]]


class Frozen(nn.Module):
    """A network as one node of autograd: images to maps, differentiable once to the images.

    Args:
        net: what it stands for; holds the weights, and is moved and cast with this module. It must
            not change otherwise.
        compile: makes the program of `net`, on its device and in its dtype; packs weights.
        dtype: what to compute in where there will be a derivative; None is that of `net`, which a
            mere look always has. Images and maps are not affected.

    """

    def __init__(
        self,
        net: nn.Module,
        compile: Callable[[nn.Module], Program],
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(False)
        self._compile = compile
        self._dtype = dtype
        self._programs: dict[torch.dtype, Program] = {}

    def __getattr__(self, name: str) -> Any:
        """What else is asked of it, sizes and the like, is the network's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "net":
                raise
            return getattr(self.net, name)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Frozen:
        self._programs = {}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        """[N,3,H,W] -> the maps that the program gives."""
        if x.requires_grad and torch.is_grad_enabled():
            inner = self._dtype or x.dtype
            return list(_Through.apply(self._program(inner), inner, x))
        program = self._program(x.dtype)
        with torch.inference_mode():
            nodes = program(Tape(keep=False), Node(x))
        return [node.data.clone() for node in nodes]

    def _program(self, dtype: torch.dtype) -> Program:
        """The program that computes in `dtype`, made at its first use."""
        if dtype not in self._programs:
            with torch.no_grad():
                net = self.net if dtype != self._dtype else copy.deepcopy(self.net).to(dtype)
                self._programs[dtype] = self._compile(net)
        return self._programs[dtype]


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx, program: Program, inner: torch.dtype, x: Tensor):  # type: ignore[no-untyped-def]
        ctx.inner, ctx.outer = inner, x.dtype
        with torch.inference_mode():
            ctx.tape, ctx.start = Tape(), Node(x.detach().to(inner))
            ctx.nodes = program(ctx.tape, ctx.start)
        ctx.set_materialize_grads(False)
        # Copied outside of inference mode: tensors that autograd takes.
        return tuple(node.data.to(x.dtype, copy=True) for node in ctx.nodes)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor | None):  # type: ignore[no-untyped-def]
        if ctx.tape is None:
            raise RuntimeError("Frozen: a network's derivative can be taken once")
        tape, start, nodes = ctx.tape, ctx.start, ctx.nodes
        ctx.tape = ctx.start = ctx.nodes = None
        with torch.inference_mode():
            tape.backward(nodes, [None if g is None else g.to(ctx.inner) for g in gradients])
        found = start.grad
        return None, None, None if found is None else found.to(ctx.outer, copy=True)
