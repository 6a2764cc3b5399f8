"""Tensors of networks that look at photographs, in the names of their published files."""

from __future__ import annotations

from .layout import Config, Layout, Records, Shapes, conv
from .source import Source

__all__ = ["s3fd", "s3fd_tensors"]


def s3fd_tensors(config: Config) -> Shapes:
    """Name -> shape for an `S3FD`, from the fields of `S3FDConfig`."""
    out: Shapes = {}
    width, below = config["width"], 3
    for stage, (factor, count) in enumerate(((1, 2), (2, 2), (4, 3), (8, 3), (8, 3)), 1):
        for index in range(1, count + 1):
            conv(out, f"conv{stage}_{index}", below, factor * width, 3)
            below = factor * width
    for name, fan_in, fan_out, size in (
        ("fc6", 8, 16, 3), ("fc7", 16, 16, 1),
        ("conv6_1", 16, 4, 1), ("conv6_2", 4, 8, 3),
        ("conv7_1", 8, 2, 1), ("conv7_2", 2, 4, 3),
    ):  # fmt: skip
        conv(out, name, fan_in * width, fan_out * width, size)
    for name, factor in (("conv3_3", 4), ("conv4_3", 8), ("conv5_3", 8)):
        out[f"{name}_norm.weight"] = (factor * width,)
    for name, factor in (
        ("conv3_3_norm", 4), ("conv4_3_norm", 8), ("conv5_3_norm", 8),
        ("fc7", 16), ("conv6_2", 8), ("conv7_2", 4),
    ):  # fmt: skip
        conv(out, f"{name}_mbox_conf", factor * width, 4 if name == "conv3_3_norm" else 2, 3)
        conv(out, f"{name}_mbox_loc", factor * width, 4, 3)
    return out


def s3fd(source: Source, records: Records) -> Layout | None:
    """Recognise face_alignment's face detector."""
    if not {"conv3_3_norm_mbox_conf.weight", "conv1_1.weight"} <= records.keys():
        return None
    shape = records["conv1_1.weight"].shape
    if len(shape) != 4 or not 1 <= shape[0] <= 256:
        source.fail(f"has shape {list(shape)}, which is not S3FD's", "conv1_1.weight")
    return Layout("s3fd", {"width": shape[0]})
