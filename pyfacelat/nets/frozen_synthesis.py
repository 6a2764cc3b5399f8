"""A frozen synthesis network with its derivative written out, for the projection loop.

`SynthesisNetwork` under autograd computes the same; here every layer is one call forward and one
backward, all styles and demodulations of the network are two batched products, and the only
activations kept are the layers' outputs, each let go as soon as the backward has passed it. No
gradient of a weight exists.

    s_l = A_l w_row(l) + b_l          d_l = rsqrt(E_l s_l^2 + 1e-8),  E_l sums of squared weights
    y_l = layer_l(y_(l-1), s_l, d_l, strength_l * noise_l)            (`ops.frozen.StyledConv`)
    dL/ds_l = what the layer reports - s_l * (E_l^T (d_l^3 * dL/dd_l))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pyfacelat import ops
from pyfacelat.ops.frozen import StyledConv, upsample_image, upsample_image_gradient

from .noise import NoiseSource
from .stylegan2 import Generator, SynthesisBlock, SynthesisLayer, SynthesisNetwork

__all__ = ["FrozenSynthesis", "Render", "can_freeze", "frozen_render"]

Render = Callable[[Tensor, Mapping[str, Tensor] | None], Tensor]
"""ws [N,num_ws,D] and noise maps by name, or None -> images; differentiable once."""

_ACTIVATIONS = ("linear", "relu", "lrelu")  # those whose input comes back from their output


def can_freeze(generator: Generator) -> bool:
    """Whether `FrozenSynthesis` computes this network: skip architecture, invertible activation."""
    config = generator.config
    return (
        type(generator.synthesis) is SynthesisNetwork
        and config.architecture == "skip"
        and config.activation in _ACTIVATIONS
    )


def frozen_render(generator: Generator, dtype: torch.dtype | None = None) -> Render:
    """`FrozenSynthesis`, or the network itself under autograd where it is not of that kind.

    `dtype` is that of the features, as in `FrozenSynthesis`, and needs a network of that kind.
    """
    if can_freeze(generator) or dtype is not None:
        return FrozenSynthesis(generator, dtype)
    return lambda ws, noise: generator.synthesis(ws, noise=noise)


@dataclass(frozen=True)
class _Layer:
    """One convolution or toRGB: its weights, and its place in the stacked arrays."""

    conv: StyledConv
    index: int  # in the stack of styles
    noise_name: str | None = None
    strength: float = 0.0
    constant: Tensor | None = None  # strength * noise_const, [1,1,R,R]


@dataclass(frozen=True)
class _Block:
    convs: tuple[_Layer, ...]
    rgb: _Layer
    filter: Tensor


@dataclass
class _Tape:
    """What the backward reads; emptied by it."""

    styles: Tensor  # [layers,N,widest]
    demod: Tensor  # [convolutions,N,widest]
    noise: dict[str, Tensor]  # scaled maps [N or 1,1,R,R] by name
    outputs: list[Tensor]
    images: list[Tensor]  # toRGB outputs


class FrozenSynthesis:
    """`network(ws, noise=noise)` for a frozen `SynthesisNetwork`, with a fast derivative.

    Shares the convolution weights with the network and copies the small ones: for weights that do
    not change any more.

    Args:
        generator: one that `can_freeze`.
        dtype: of the features; None is that of the weights. Styles, noise and the image stay in
            the weights' dtype.

    """

    def __init__(self, generator: Generator, dtype: torch.dtype | None = None) -> None:
        if not can_freeze(generator):
            raise ValueError("generator: expected skip architecture and an invertible activation")
        network = generator.synthesis
        self._network = network
        self._sizes = network.noise_sizes()
        first = next(network.parameters())
        self._dtype = first.dtype
        self._features = dtype or first.dtype
        blocks = [network.get_submodule(f"b{r}") for r in network.block_resolutions]
        convs: list[tuple[SynthesisLayer, int]] = []  # with the row of ws each reads
        rgbs = []
        row = 0
        for block in blocks:
            assert isinstance(block, SynthesisBlock)
            for name in ("conv0", "conv1")[2 - block.num_conv :]:
                convs.append((block.get_submodule(name), row))  # type: ignore[arg-type]
                row += 1
            rgbs.append((block.torgb, row))
        everyone = [*convs, *rgbs]
        with torch.no_grad():
            self._stack(everyone, len(convs), first)
            self._blocks = self._make_blocks(blocks, len(convs))
            const = network.get_submodule(f"b{network.block_resolutions[0]}").const
            self._const = const.detach()[None].to(self._features)

    def _stack(self, layers: list, convs: int, like: Tensor) -> None:  # type: ignore[type-arg]
        """Affine layers and kernel energies side by side, padded with zeros to the widest."""
        inputs = max(layer.weight.shape[1] for layer, _ in layers)
        outputs = max(layer.weight.shape[0] for layer, _ in layers[:convs])
        depth = layers[0][0].affine.weight.shape[1]
        self._rows = torch.tensor([row for _, row in layers], device=like.device)
        self._affine = like.new_zeros(len(layers), depth, inputs)
        self._shift = like.new_zeros(len(layers), 1, inputs)
        self._energy = like.new_zeros(convs, inputs, outputs)
        for i, (layer, _) in enumerate(layers):
            affine, width = layer.affine, layer.weight.shape[1]
            gain = 1.0 if i < convs else layer.weight_gain
            self._affine[i, :, :width] = affine.weight.t() * (affine.weight_gain * gain)
            self._shift[i, 0, :width] = affine.bias * gain
            if i < convs:
                energy = ops.weight_energy(layer.weight)
                self._energy[i, :width, : len(energy)] = energy.t()

    def _make_blocks(self, modules: list, convs: int) -> list[_Block]:  # type: ignore[type-arg]
        blocks, index = [], 0
        for k, block in enumerate(modules):
            made = []
            for name in ("conv0", "conv1")[2 - block.num_conv :]:
                layer = getattr(block, name)
                noise = f"b{block.resolution}.{name}.noise_const"
                strength = float(layer.noise_strength) if layer.use_noise else 0.0
                made.append(
                    _Layer(
                        self._conv(layer, layer.up, 1, layer.activation, layer.resample_filter),
                        index,
                        noise if layer.use_noise else None,
                        strength,
                        self._scaled(layer.noise_const[None, None], strength)
                        if layer.use_noise
                        else None,
                    )
                )
                index += 1
            rgb = self._conv(block.torgb, 1, 0, "linear", None)
            blocks.append(_Block(tuple(made), _Layer(rgb, convs + k), block.resample_filter))
        return blocks

    def _conv(
        self,
        layer: torch.nn.Module,
        up: int,
        padding: int,
        act: str,
        f: Tensor | None,
    ) -> StyledConv:
        weight, bias = (t.detach().to(self._features) for t in (layer.weight, layer.bias))
        packed = ops.pack_conv3x3(weight) if up == 1 and weight.shape[2] == 3 else None
        return StyledConv(
            weight,
            bias,
            f if up > 1 else None,
            up,
            padding,
            act,
            ops.default_gain(act),
            layer.conv_clamp,
            packed,
        )

    def _scaled(self, noise: Tensor, strength: float) -> Tensor:
        return (noise.detach() * strength).to(self._features)

    def __call__(self, ws: Tensor, noise: Mapping[str, Tensor] | None = None) -> Tensor:
        """Render; arguments and result as `SynthesisNetwork.forward` has them, noise "const".

        Differentiable once, to `ws` and `noise`.
        """
        network = self._network
        if ws.ndim != 3 or tuple(ws.shape[1:]) != (network.num_ws, network.w_dim):
            raise ValueError(
                f"ws: expected shape [N, {network.num_ws}, {network.w_dim}], got {list(ws.shape)}"
            )
        given = NoiseSource("const", noise, None, self._sizes, ws.shape[0]).given
        image: Tensor = _Render.apply(self, ws.to(self._dtype), tuple(given), *given.values())
        return image

    def forward(
        self, ws: Tensor, noise: Mapping[str, Tensor], *, keep: bool
    ) -> tuple[Tensor, _Tape]:
        """The image [N,C,R,R], and what `backward` needs if it is to be kept.

        Args:
            ws: [N,num_ws,D].
            noise: maps [N or 1,1,R,R] by name relative to the network.
            keep: whether there will be a backward.
        """
        rows = ws.transpose(0, 1).index_select(0, self._rows)
        styles = torch.baddbmm(self._shift, rows, self._affine)
        convs = len(self._energy)
        demod = torch.bmm(styles[:convs].square(), self._energy).add_(1e-8).rsqrt_()
        tape = _Tape(styles, demod, {}, [], [])
        x = self._const.expand(len(ws), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        image: Tensor | None = None
        for block in self._blocks:
            for layer in block.convs:
                name, shift = layer.noise_name, layer.constant
                if name in noise:
                    shift = tape.noise[name] = self._scaled(noise[name], layer.strength)
                x = layer.conv(x, self._style(tape, layer), self._demod(tape, layer), shift)
                if keep:
                    tape.outputs.append(x)
            rgb = block.rgb.conv(x, self._style(tape, block.rgb), None, None)
            if keep:
                tape.images.append(rgb)
            wide = rgb.to(torch.promote_types(rgb.dtype, torch.float32))
            image = wide if image is None else upsample_image(image, block.filter).add_(wide)
        assert image is not None
        return image, tape

    def backward(
        self, gradient: Tensor, tape: _Tape, *, need_noise: bool = True
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Gradients of ws [N,num_ws,D] and of the noise maps by name, as given to `forward`."""
        n = len(gradient)
        d_styles, d_demod = torch.zeros_like(tape.styles), torch.zeros_like(tape.demod)
        d_noise: dict[str, Tensor] = {}
        below: Tensor | None = None  # gradient of a block's output from the block above
        for k in range(len(self._blocks) - 1, -1, -1):
            block = self._blocks[k]
            rgb, y = block.rgb, tape.outputs.pop()
            through = gradient.to(self._features)
            dx, ds, _, _ = rgb.conv.gradients(
                through, tape.images.pop(), y, self._style(tape, rgb), None, None
            )
            d_styles[rgb.index, :, : ds.shape[1]] = ds
            gradient = upsample_image_gradient(gradient, block.filter) if k else gradient
            below = dx if below is None else below.add_(dx)
            for i in range(len(block.convs) - 1, -1, -1):
                layer = block.convs[i]
                first = k == 0 and i == 0
                x = self._const.expand(n, -1, -1, -1) if first else tape.outputs[-1]
                shift = tape.noise.pop(layer.noise_name or "", None)
                wanted = need_noise and shift is not None
                below, ds, dd, dn = layer.conv.gradients(
                    below,
                    y,
                    x,
                    self._style(tape, layer),
                    self._demod(tape, layer),
                    layer.constant if shift is None else shift,
                    need_x=not first,
                    need_noise=wanted,
                )
                d_styles[layer.index, :, : ds.shape[1]] = ds
                d_demod[layer.index, :, : dd.shape[1]] = dd
                if wanted:
                    assert layer.noise_name is not None
                    d_noise[layer.noise_name] = dn.to(self._dtype) * layer.strength
                if i:
                    y = tape.outputs.pop()
        convs = len(self._energy)
        inner = torch.bmm(tape.demod.pow(3).mul_(d_demod), self._energy.transpose(1, 2))
        d_styles[:convs].addcmul_(tape.styles[:convs], inner, value=-1.0)
        rows = torch.bmm(d_styles, self._affine.transpose(1, 2))
        d_ws = rows.new_zeros(self._network.num_ws, n, rows.shape[2])
        return d_ws.index_add_(0, self._rows, rows).transpose(0, 1), d_noise

    def _style(self, tape: _Tape, layer: _Layer) -> Tensor:
        return tape.styles[layer.index, :, : layer.conv.weight.shape[1]].to(self._features)

    def _demod(self, tape: _Tape, layer: _Layer) -> Tensor:
        return tape.demod[layer.index, :, : layer.conv.weight.shape[0]].to(self._features)


class _Render(torch.autograd.Function):
    """`FrozenSynthesis` as one node of autograd."""

    @staticmethod
    def forward(ctx, network: FrozenSynthesis, ws: Tensor, names: tuple[str, ...], *maps: Tensor):  # type: ignore[no-untyped-def]
        keep = any(ctx.needs_input_grad)
        with torch.inference_mode():
            noise = dict(zip(names, maps, strict=True))
            image, tape = network.forward(ws, noise, keep=keep)
        ctx.network, ctx.names, ctx.shapes = network, names, [m.shape for m in maps]
        ctx.tape = tape if keep else None
        return image.clone()  # outside of inference mode: a tensor that autograd takes

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):  # type: ignore[no-untyped-def]
        if ctx.tape is None:
            raise RuntimeError("FrozenSynthesis: its derivative can be taken once")
        tape, ctx.tape = ctx.tape, None
        need_noise = any(ctx.needs_input_grad[3:])
        with torch.inference_mode():
            d_ws, d_noise = ctx.network.backward(gradient, tape, need_noise=need_noise)
        maps = []
        for name, shape, wanted in zip(
            ctx.names, ctx.shapes, ctx.needs_input_grad[3:], strict=True
        ):
            maps.append(d_noise[name].sum_to_size(shape).clone() if wanted else None)
        return None, d_ws.clone(), None, *maps
