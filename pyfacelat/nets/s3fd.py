"""S3FD: finds faces of any size in photographs.

Zhang et al. 2017, "S3FD: Single Shot Scale-Invariant Face Detector" (arXiv:1708.05237): VGG-16
whose dense layers have become convolutions, two more stages, and a pair of 3x3 convolutions on six
maps of strides 4 to 128. Every cell of a map stands for one square anchor of four times its stride,
at the cell's centre: the first convolution says whether there is a face (two logits), the second
where its box lies relative to the anchor, with the variances .1 and .2 of SSD (Liu et al. 2016).
On the finest map, where anchors are many and faces rare, the background has three logits, of which
the largest counts ("max-out").

Parameter names are those of the face_alignment package's file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_images, check_integers

__all__ = ["S3FD", "S3FDConfig", "decode_boxes", "suppress_overlaps"]

# Mean colour of the training images in 0 to 255, in the network's channel order, which is BGR.
_MEAN_BGR = (104.0, 117.0, 123.0)
_ANCHOR = 4.0
_VARIANCES = (0.1, 0.2)
_SMALLEST = 16
# Stages of VGG-16: widths relative to the first, and number of convolutions.
_STAGES = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
# The maps: layer that gives them, relative width; the first three are normalised.
_HEADS = (
    ("conv3_3_norm", 4), ("conv4_3_norm", 8), ("conv5_3_norm", 8),
    ("fc7", 16), ("conv6_2", 8), ("conv7_2", 4),
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class S3FDConfig:
    """Size of an `S3FD`; the default is the published one. Round-trips through JSON.

    Raises:
        ValueError: the width is out of its range.
    """

    width: int = 64
    """Channels of the first stage, 1 to 256; all others are multiples."""

    def __post_init__(self) -> None:
        check_integers(self, {"width": (1, 256)})


class S3FD(nn.Module):
    """Photographs to scored boxes; `config` is the `S3FDConfig` it was built from."""

    mean: Tensor

    def __init__(self, config: S3FDConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        below = 3
        for stage, (factor, count) in enumerate(_STAGES, 1):
            for index in range(1, count + 1):
                self._conv(f"conv{stage}_{index}", below, factor * width, 3)
                below = factor * width
        self._conv("fc6", 8 * width, 16 * width, 3, padding=3)
        self._conv("fc7", 16 * width, 16 * width, 1)
        self._conv("conv6_1", 16 * width, 4 * width, 1)
        self._conv("conv6_2", 4 * width, 8 * width, 3, stride=2)
        self._conv("conv7_1", 8 * width, 2 * width, 1)
        self._conv("conv7_2", 2 * width, 4 * width, 3, stride=2)
        for level, (name, factor) in enumerate(_HEADS):
            if name.endswith("_norm"):
                self.add_module(name, ChannelNorm(factor * width))
            self._conv(f"{name}_mbox_conf", factor * width, 2 if level else 4, 3)
            self._conv(f"{name}_mbox_loc", factor * width, 4, 3)
        mean = torch.tensor(_MEAN_BGR).reshape(3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)

    def _conv(
        self, name: str, fan_in: int, fan_out: int, size: int, stride: int = 1, padding: int = -1
    ) -> None:
        padding = size // 2 if padding < 0 else padding
        self.add_module(name, nn.Conv2d(fan_in, fan_out, size, stride=stride, padding=padding))

    def forward(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Raw predictions.

        Args:
            images: RGB [N, 3, H, W] in [-1, 1], H and W at least 16, dtype of the parameters.

        Returns:
            For strides 4, 8, ..., 128: logits [N, 2, h, w] (no face, face) and offsets
            [N, 4, h, w] (centre x and y, log width and height, see `decode_boxes`).

        Raises:
            ValueError: images have a wrong shape.
        """
        check_images(images, least=_SMALLEST)
        x = (images.flip(1) + 1) * 127.5 - self.mean
        part = self.get_submodule
        maps: list[Tensor] = []
        for stage, (_, count) in enumerate(_STAGES, 1):
            for index in range(1, count + 1):
                x = F.relu(part(f"conv{stage}_{index}")(x), inplace=True)
            if stage >= 3:
                maps.append(part(f"conv{stage}_3_norm")(x))
            x = F.max_pool2d(x, 2)
        for names in (("fc6", "fc7"), ("conv6_1", "conv6_2"), ("conv7_1", "conv7_2")):
            for name in names:
                x = F.relu(part(name)(x), inplace=True)
            maps.append(x)
        out = []
        for (name, _), features in zip(_HEADS, maps, strict=True):
            logits, offsets = (part(f"{name}_mbox_{head}")(features) for head in ("conf", "loc"))
            if logits.shape[1] > 2:
                logits = torch.cat((logits[:, :-1].amax(1, keepdim=True), logits[:, -1:]), 1)
            out.append((logits, offsets))
        return out

    @torch.no_grad()
    def detect(
        self, images: Tensor, *, min_score: float = 0.5, max_overlap: float = 0.3
    ) -> list[Tensor]:
        """Find faces.

        Args:
            images: as in `forward`.
            min_score: probability above which a box counts, 0 to 1.
            max_overlap: share of common area (intersection over union) above which the less
                likely of two boxes is dropped.

        Returns:
            For each image [K, 5], float32, most likely first: left, top, right and bottom in
            pixels, and the probability. K may be 0.
        """
        candidates = decode_boxes(self(images), min_score)
        return [suppress_overlaps(boxes, max_overlap) for boxes in candidates]


class ChannelNorm(nn.Module):
    """Features scaled to length 1 along the channels, times a learnt factor for each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> the same shape."""
        length = x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10
        return x / length * self.weight[:, None, None]


def decode_boxes(maps: Sequence[tuple[Tensor, Tensor]], min_score: float = 0.5) -> list[Tensor]:
    """Turn predictions into boxes.

    A cell (i, j) of stride s has the anchor with centre a = (j + .5, i + .5) s and side 4 s. Its
    box has the centre a + .1 * 4 s * offset[:2] and the sides 4 s * exp(.2 * offset[2:]).

    Args:
        maps: as `S3FD.forward` returns them.
        min_score: boxes with this probability or less are left out.

    Returns:
        For each image [K, 5], float32: left, top, right, bottom, probability; in the order of
        strides, rows, columns. Boxes may reach out of the image.
    """
    found: list[list[Tensor]] = [[] for _ in range(maps[0][0].shape[0] if maps else 0)]
    for level, (logits, offsets) in enumerate(maps):
        stride = float(4 << level)
        scores = torch.softmax(logits.float(), dim=1)[:, 1]  # [N, h, w]
        for item, score in enumerate(scores):
            rows, columns = torch.nonzero(score > min_score, as_tuple=True)
            offset = offsets[item, :, rows, columns].float()  # [4, K]
            side = _ANCHOR * stride
            anchors = (torch.stack((columns, rows)) + 0.5) * stride
            centres = anchors + offset[:2] * (_VARIANCES[0] * side)
            halves = torch.exp(offset[2:] * _VARIANCES[1]) * (side / 2)
            box = torch.cat((centres - halves, centres + halves, score[rows, columns][None]))
            found[item].append(box.t())
    return [torch.cat(boxes) for boxes in found]


def suppress_overlaps(boxes: Tensor, max_overlap: float = 0.3) -> Tensor:
    """Greedy non-maximum suppression: drop what overlaps with a more likely box that stays.

    Overlap is intersection over union of the pixels covered, both edges included, as in the
    published code (a box from 0 to 9 has a width of 10).

    Args:
        boxes: [K, 5], left, top, right, bottom, score.
        max_overlap: the largest overlap that is kept.

    Returns:
        [L, 5], the boxes kept, by falling score.
    """
    rest = boxes[boxes[:, 4].argsort(descending=True, stable=True)]
    kept: list[Tensor] = []
    while rest.shape[0]:
        best, rest = rest[:1], rest[1:]
        kept.append(best)
        size = torch.minimum(best[:, 2:4], rest[:, 2:4]) - torch.maximum(best[:, :2], rest[:, :2])
        common = (size + 1).clamp(min=0).prod(1)
        union = _area(best) + _area(rest) - common
        rest = rest[common <= max_overlap * union]
    return torch.cat(kept) if kept else boxes


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:4] - boxes[:, :2] + 1).prod(1)
