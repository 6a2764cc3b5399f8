"""The loss networks as programs of a tape: same maps, gradients to the images only.

`frozen` finds the program of a network; one it does not know stays as it is, under autograd.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pyfacelat.ops.frozen import frozen_conv, fuses

from .fan import FAN, Hourglass, MultiScaleBlock, fold_batchnorm
from .folding import ChannelAffine
from .sample_encoder import FeatureTrunk, SampleEncoder
from .tape import Frozen, Node, Program, Tape
from .vgg import VGGFeatures

__all__ = ["fan_program", "frozen", "trunk_program", "vgg_program"]

_Part = Callable[[Tape, Node], Node]


def frozen(net: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A module that computes what `net` does, with a faster derivative, where one is written.

    Args:
        net: must not change any more; put into evaluation mode, its parameters frozen.
        dtype: what to compute in, where a program is written; None is that of `net`.

    Returns:
        For a `VGGFeatures`, a `FAN` or a sample encoder's `FeatureTrunk` a `Frozen`: a FAN gives
        its last stack's maps only. Any other network itself.
    """
    for kind, program in _PROGRAMS.items():
        if isinstance(net, kind):
            return Frozen(net, program, dtype)
    return net


def vgg_program(net: nn.Module) -> Program:
    """The five feature maps of `VGGFeatures.forward`."""
    assert isinstance(net, VGGFeatures)
    parts: list[_Part] = []
    kept = []
    for number, layer in enumerate(net.features):
        if isinstance(layer, nn.Conv2d):
            conv = frozen_conv(layer, relu=True)
            parts.append(lambda tape, x, conv=conv: tape.conv(x, conv))  # type: ignore[misc]
        elif isinstance(layer, nn.MaxPool2d):
            parts.append(lambda tape, x: tape.max_pool(x))
        if number in net.taps:
            kept.append(len(parts))

    def run(tape: Tape, x: Node) -> list[Node]:
        maps = []
        for number, part in enumerate(parts, 1):
            x = part(tape, x)
            if number in kept:
                maps.append(x)
        return maps

    return run


def fan_program(net: nn.Module) -> Program:
    """The heat maps of the last stack, as a list of one."""
    assert isinstance(net, FAN)
    if isinstance(net.bn1, nn.BatchNorm2d):
        net = fold_batchnorm(net)
    config, part = net.config, net.get_submodule
    stem = frozen_conv(net.conv1, relu=True)
    first, second, third = (_block(getattr(net, f"conv{i}")) for i in (2, 3, 4))
    stacks = []
    for i in range(config.num_stacks):
        last = i + 1 == config.num_stacks
        module = part(f"l{i}" if last else f"bl{i}")
        features = frozen_conv(part(f"conv_last{i}"), relu=True)  # type: ignore[arg-type]
        glass, top = _hourglass(part(f"m{i}")), _block(part(f"top_m_{i}"))
        stacks.append((glass, top, features, frozen_conv(module)))  # type: ignore[arg-type]

    def run(tape: Tape, x: Node) -> list[Node]:
        x = first(tape, tape.conv(x, stem))
        if config.stem == "fan":
            x = tape.mean_pool(x)
        x = third(tape, second(tape, x))
        for i, (glass, top, features, out) in enumerate(stacks):
            y = tape.conv(top(tape, glass(tape, x)), features)
            y = tape.conv(y, out)
            if i + 1 == len(stacks):
                return [y]
            x = tape.add(x, y)
        raise AssertionError("a FAN has a stack")

    return run


def _affine_relu(module: nn.Module) -> _Part:
    assert isinstance(module, ChannelAffine)
    scale, shift = module.scale, module.shift
    return lambda tape, x: tape.channel_relu(x, scale, shift)


def _normalised_conv(norm: nn.Module, conv: nn.Conv2d) -> _Part:
    """Folded normalisation, ReLU, convolution."""
    if fuses(conv):
        assert isinstance(norm, ChannelAffine)
        whole = frozen_conv(conv, before=(norm.scale.flatten(), norm.shift.flatten()))
        return lambda tape, x: tape.conv(x, whole)
    first, then = _affine_relu(norm), frozen_conv(conv)
    return lambda tape, x: tape.conv(first(tape, x), then)


def _block(module: nn.Module) -> _Part:
    assert isinstance(module, MultiScaleBlock)
    names = [(f"bn{i}", f"conv{i}") for i in (1, 2, 3)]
    convs = [_normalised_conv(getattr(module, a), getattr(module, b)) for a, b in names]
    side: _Part | None = None
    if module.downsample is not None:
        norm, point = _affine_relu(module.downsample[0]), frozen_conv(module.downsample[2])  # type: ignore[arg-type]
        side = lambda tape, x: tape.conv(norm(tape, x), point)  # noqa: E731

    def run(tape: Tape, x: Node) -> Node:
        outputs: list[Node] = []
        for conv in convs:
            outputs.append(conv(tape, outputs[-1] if outputs else x))
        return tape.add(tape.cat(outputs), x if side is None else side(tape, x))

    return run


def _hourglass(module: nn.Module) -> _Part:
    assert isinstance(module, Hourglass)
    depth = module.depth
    blocks = {name: _block(child) for name, child in module.named_children()}

    def run(tape: Tape, x: Node) -> Node:
        skips = []
        for level in range(depth, 0, -1):
            skips.append(blocks[f"b1_{level}"](tape, x))
            x = blocks[f"b2_{level}"](tape, tape.mean_pool(x))
        x = blocks["b2_plus_1"](tape, x)
        for level in range(1, depth + 1):
            x = tape.add(skips.pop(), tape.enlarge(blocks[f"b3_{level}"](tape, x)))
        return x

    return run


def trunk_program(net: nn.Module) -> Program:
    """The maps of `SampleEncoder.metric_maps`."""
    assert isinstance(net, FeatureTrunk)
    encoder = net.encoder
    if not isinstance(encoder.stages[0][0].norm, nn.Identity):  # type: ignore[index]
        encoder = encoder.folded()
    stages = [[frozen_conv(unit.conv, relu=True) for unit in stage] for stage in encoder.stages]  # type: ignore[union-attr]
    looks = {}
    if encoder.windows is not None:
        for name, units in encoder.windows.looks.items():
            looks[name] = [frozen_conv(unit.conv, relu=True) for unit in units]  # type: ignore[union-attr]

    def run(tape: Tape, x: Node) -> list[Node]:
        maps: list[Node] = []
        for stage in stages:
            x = tape.max_pool(x) if maps else x
            for conv in stage:
                x = tape.conv(x, conv)
            maps.append(x)
        for name, grid in _grids(encoder, maps[-1].data).items():
            x = tape.cat([tape.sample(below, grid) for below in maps[:2]])
            for conv in looks[name]:
                x = tape.conv(x, conv)
                maps.append(x)
        return maps

    return run


def _grids(encoder: SampleEncoder, last: Tensor) -> dict[str, Tensor]:
    """Where the windows look, by name."""
    if encoder.windows is None:
        return {}
    points = encoder.points_from(last)
    return encoder.windows.grids(points)


_PROGRAMS: dict[type[nn.Module], Callable[[nn.Module], Program]] = {
    VGGFeatures: vgg_program,
    FAN: fan_program,
    FeatureTrunk: trunk_program,
}
