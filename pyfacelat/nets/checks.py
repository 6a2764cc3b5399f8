"""Checks that the networks share: integer fields of configs, shapes of images."""

from __future__ import annotations

from torch import Tensor

__all__ = ["check_images", "check_integers"]


def check_integers(config: object, ranges: dict[str, tuple[int, int]]) -> None:
    """Hold fields of a config to their ranges; the items of a field that is a tuple, each.

    Raises:
        ValueError: naming field, rule and value.
    """
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        for item in value if isinstance(value, tuple) else (value,):
            if not isinstance(item, int) or isinstance(item, bool) or not low <= item <= high:
                raise ValueError(f"{name}: expected integers from {low} to {high}, got {item!r}")


def check_images(images: Tensor, *, side: int | None = None, least: int = 1) -> None:
    """Hold images to [N, 3, side, side], or with `side` None to [N, 3, H, W] of a least size.

    Raises:
        ValueError: they have another shape.
    """
    shape = tuple(images.shape)
    if side is not None:
        fits, wanted = shape[1:] == (3, side, side), f"[N, 3, {side}, {side}]"
    else:
        fits = len(shape) == 4 and shape[1] == 3 and min(shape[2:]) >= least
        wanted = f"[N, 3, H, W] with H and W at least {least}"
    if not fits:
        raise ValueError(f"images: expected shape {wanted}, got {list(shape)}")
