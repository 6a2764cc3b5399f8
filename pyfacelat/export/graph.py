"""A convolutional network as an ONNX graph, and the graph of its gradient to the input.

The network runs once, on a tiny image, and each operation that torch dispatches becomes a node.
There are seven kinds of them; each has one translation here, and one adjoint, which is made of the
same plain operations. So nothing of torch's backward pass has to be decomposed, no node depends on
the size of the batch or of the image, and four hourglasses take seconds instead of minutes.

    gradient of y = conv(x, W), stride 1      g -> conv(g, W turned, channels swapped)
    gradient of y = conv(x, W), other stride  g -> transposed convolution of g with W
    gradient of y = relu(x)                   g -> g where y > 0, else 0
    gradient of y = scale x + shift           g -> scale g
    gradient of y = 2x2 average               g -> nearest upsampling of g / 4
    gradient of y = 2x2 nearest upsampling    g -> 2x2 sums of g
    gradient of y = concatenation, sum        g -> its parts, g
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pyfacelat.errors import ExportError
from pyfacelat.export.packages import require

__all__ = ["Graph", "Network"]

# From the gradient of an operation's result to those of what it was made of, by name.
Adjoint = Callable[[str], list[tuple[str, str]]]
_aten: Any = torch.ops.aten


class Graph:
    """ONNX nodes and constants in the making; values are known by their names.

    Args:
        dtype: of the constants made by `weight`: np.float32 or np.float16.
    """

    def __init__(self, dtype: type[np.floating[Any]] = np.float32) -> None:
        self._onnx = require("onnx", "export to ONNX")
        self.dtype = np.dtype(dtype)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._known: dict[bytes, str] = {}

    def add(self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> str:
        """Append a node; returns the name of its first output (the others end in _1, _2, ...)."""
        name = f"{op.lower()}{len(self.nodes)}"
        names = [name, *(f"{name}_{i}" for i in range(1, outputs))]
        make = self._onnx.helper.make_node
        self.nodes.append(make(op, list(inputs), names, name=name, **attributes))
        return name

    def rename(self, value: str, name: str) -> None:
        """Make `value` a graph output called `name`."""
        node = self._onnx.helper.make_node("Identity", [value], [name], name=name)
        self.nodes.append(node)

    def constant(self, value: Any, dtype: Any) -> str:
        """The name of a constant; equal ones share one."""
        array = np.asarray(value, dtype=dtype)
        key = repr((array.dtype.str, array.shape)).encode() + array.tobytes()
        if len(key) > 4096:
            return self._constant(array)
        if key not in self._known:
            self._known[key] = self._constant(array)
        return self._known[key]

    def ints(self, *values: int) -> str:
        """[len(values)] int64."""
        return self.constant(values, np.int64)

    def float32(self, value: float) -> str:
        """A float32 scalar, whatever the graph's dtype."""
        return self.constant(value, np.float32)

    def weight(self, value: Tensor) -> str:
        """A parameter, in the graph's dtype."""
        return self.constant(value.detach().cpu().float().contiguous().numpy(), self.dtype)

    def cast(self, value: str, dtype: Any) -> str:
        """`value` in a numpy dtype."""
        to = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.add("Cast", [value], to=to)

    def prune(self, outputs: Sequence[str]) -> None:
        """Drop the nodes and constants that no output depends on."""
        wanted, kept = set(outputs), []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                kept.append(node)
        self.nodes = kept[::-1]
        self.constants = [value for value in self.constants if value.name in wanted]

    def _constant(self, array: np.ndarray[Any, Any]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name


@dataclasses.dataclass(frozen=True)
class _Call:
    """One operation as torch ran it.

    Attributes:
        function: the operation.
        arguments: its arguments, tensors among them.
        result: what it returned.
        name: from a tensor to the name of its value in the graph.

    """

    function: Any
    arguments: tuple[Any, ...]
    result: Tensor
    name: Callable[[Tensor], str]

    def __str__(self) -> str:
        return str(self.function)


class _Recorder(TorchDispatchMode):
    """Runs operations as they come, and has each recorded with the names of its tensors."""

    def __init__(self, network: Network, image: Tensor, name: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._network = network
        self._names = {id(image): name}
        self._alive: list[Tensor] = [image]  # an id is a name only while its tensor lives

    def name(self, tensor: Tensor) -> str:
        """The value that a tensor has now: an operation in place gives it a new one."""
        if id(tensor) not in self._names:
            raise ExportError(f"export: a tensor {list(tensor.shape)} comes from nowhere")
        return self._names[id(tensor)]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run `func` and record it."""
        if kwargs:
            raise ExportError(f"export: {func}: keyword arguments {sorted(kwargs)}")
        result = func(*args)
        # With the names before the operation: one in place renames its argument.
        self._names[id(result)] = self._network.record(_Call(func, args, result, self.name))
        self._alive.append(result)
        return result


class Network:
    """A network in a graph: `forward` adds it, `backward` then adds its gradient.

    Args:
        graph: what nodes are added to.
        net: frozen module from [N,3,S,S] to one tensor, made of convolutions, channel-wise
            multiply-adds, ReLU, 2x2 average pooling, 2x nearest upsampling, concatenation and sums.
        size: side of the image it is traced with, the smallest that the network takes.

    Raises:
        ExportError: the network has another operation; the message names it.
    """

    def __init__(self, graph: Graph, net: nn.Module, size: int) -> None:
        self.graph = graph
        self._net, self._size = net, size
        self._input = ""
        self._output = ""
        self._adjoints: list[tuple[str, Adjoint]] = []

    def forward(self, image: str) -> str:
        """Add the network after the value `image`; returns the value it computes."""
        parameter = next(iter(self._net.parameters()))
        blank = torch.zeros(1, 3, self._size, self._size).to(parameter)
        recorder = _Recorder(self, blank, image)
        with torch.no_grad(), recorder:
            result = self._net(blank)
        self._input, self._output = image, recorder.name(result)
        return self._output

    def backward(self, gradient: str) -> str:
        """Add the gradient to the input, given the value of the gradient to the output."""
        pending: dict[str, list[str]] = {self._output: [gradient]}
        for value, adjoint in reversed(self._adjoints):
            if value in pending:  # else nothing that counts depends on it
                for source, part in adjoint(self._sum(pending.pop(value))):
                    pending.setdefault(source, []).append(part)
        return self._sum(pending.pop(self._input))

    def _sum(self, values: list[str]) -> str:
        total = values[0]
        for value in values[1:]:
            total = self.graph.add("Add", [total, value])
        return total

    # One method for each operation: names and tensors of the arguments -> (value, adjoint).

    def _convolution(self, call: _Call) -> tuple[str, Adjoint]:
        image, weight, bias, stride, padding, dilation, transposed, _, groups = call.arguments
        if transposed or groups != 1 or set(dilation) != {1} or len(set(stride)) != 1:
            raise ExportError(f"export: {call}: a convolution of a kind that is not translated")
        graph, x = self.graph, call.name(image)
        side, step, pad = weight.shape[-1], stride[0], padding[0]
        inputs = [x, graph.weight(weight)]
        if bias is not None:
            inputs.append(graph.weight(bias))
        square: Any = {"kernel_shape": [side] * 2}
        value = graph.add("Conv", inputs, **square, strides=[step] * 2, pads=[pad] * 4)
        missing = (image.shape[-1] + 2 * pad - side) % step

        def adjoint(g: str) -> list[tuple[str, str]]:
            if step == 1:
                turned = graph.weight(weight.transpose(0, 1).flip(2, 3))
                return [(x, graph.add("Conv", [g, turned], **square, pads=[side - 1 - pad] * 4))]
            back = graph.add(
                "ConvTranspose",
                [g, inputs[1]],
                **square,
                strides=[step] * 2,
                pads=[pad] * 4,
                output_padding=[missing] * 2,
            )
            return [(x, back)]

        return value, adjoint

    def _affine(self, call: _Call) -> tuple[str, Adjoint]:
        """Shift and scale as the batch normalisation it was: one node, which engines fuse."""
        shift, image, scale = call.arguments
        graph, x, factor = self.graph, call.name(image), scale.flatten()
        zeros, ones = torch.zeros_like(factor), torch.ones_like(factor)

        def normalise(value: str, offset: Tensor) -> str:
            rest = [graph.weight(t) for t in (factor, offset, zeros, ones)]
            return graph.add("BatchNormalization", [value, *rest], epsilon=0.0)

        return normalise(x, shift.flatten()), lambda g: [(x, normalise(g, zeros))]

    def _relu(self, call: _Call) -> tuple[str, Adjoint]:
        graph, x = self.graph, call.name(call.arguments[0])
        value = graph.add("Relu", [x])

        def adjoint(g: str) -> list[tuple[str, str]]:
            zero = graph.constant(0, graph.dtype)
            passes = graph.add("Greater", [value, zero])
            return [(x, graph.add("Where", [passes, g, zero]))]

        return value, adjoint

    def _average(self, call: _Call) -> tuple[str, Adjoint]:
        if call.arguments[1:] not in (([2, 2],), ([2, 2], [2, 2])):
            raise ExportError(f"export: {call}: only 2x2 pooling is translated")
        graph, x = self.graph, call.name(call.arguments[0])

        def adjoint(g: str) -> list[tuple[str, str]]:
            quarter = graph.add("Mul", [g, graph.constant(0.25, graph.dtype)])
            return [(x, self._double(quarter))]

        return self._halve(x), adjoint

    def _upsample(self, call: _Call) -> tuple[str, Adjoint]:
        image = call.arguments[0]
        if call.result.shape[-1] != 2 * image.shape[-1]:
            raise ExportError(f"export: {call}: only doubling is translated")
        graph, x = self.graph, call.name(image)

        def adjoint(g: str) -> list[tuple[str, str]]:
            return [(x, graph.add("Mul", [self._halve(g), graph.constant(4, graph.dtype)]))]

        return self._double(x), adjoint

    def _concatenation(self, call: _Call) -> tuple[str, Adjoint]:
        parts, axis = call.arguments
        graph, names = self.graph, [call.name(part) for part in parts]
        sizes = [part.shape[axis] for part in parts]

        def adjoint(g: str) -> list[tuple[str, str]]:
            first = graph.add("Split", [g, graph.ints(*sizes)], outputs=len(sizes), axis=axis)
            pieces = [first, *(f"{first}_{i}" for i in range(1, len(sizes)))]
            return list(zip(names, pieces, strict=True))

        return graph.add("Concat", names, axis=axis), adjoint

    def _addition(self, call: _Call) -> tuple[str, Adjoint]:
        a, b = (call.name(tensor) for tensor in call.arguments)
        return self.graph.add("Add", [a, b]), lambda g: [(a, g), (b, g)]

    def record(self, call: _Call) -> str:
        """Add the nodes of one operation of torch's."""
        translate = _TRANSLATIONS.get(call.function)
        if translate is None:
            known = ", ".join(sorted(str(function) for function in _TRANSLATIONS))
            raise ExportError(f"export: {call}: no translation for it; known are {known}")
        value, adjoint = translate(self, call)
        self._adjoints.append((value, adjoint))
        return value

    def _halve(self, value: str) -> str:
        return self.graph.add("AveragePool", [value], kernel_shape=[2, 2], strides=[2, 2])

    def _double(self, value: str) -> str:
        scales = self.graph.constant([1, 1, 2, 2], np.float32)
        return self.graph.add(
            "Resize",
            [value, "", scales],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )


_TRANSLATIONS: Mapping[Any, Callable[[Network, _Call], tuple[str, Adjoint]]] = {
    _aten.convolution.default: Network._convolution,
    _aten.addcmul.default: Network._affine,
    _aten.relu.default: Network._relu,
    _aten.relu_.default: Network._relu,
    _aten.avg_pool2d.default: Network._average,
    _aten.upsample_nearest2d.default: Network._upsample,
    _aten.upsample_nearest2d.vec: Network._upsample,
    _aten.cat.default: Network._concatenation,
    _aten.add.Tensor: Network._addition,
}
