"""Small random networks, and an identity network that sees colours in places."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyfacelat.losses.identity import IdentityDistance

from ..projection.conftest import generator, landmarker, perceptual  # noqa: F401


class Recogniser(nn.Module):
    """Random features of a thumbnail."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(3 * 16, 8, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.dense(nn.functional.adaptive_avg_pool2d(images, 4).flatten(1))
        return out


@pytest.fixture
def nets(generator: Any, landmarker: Any, perceptual: Any) -> dict[str, Any]:  # noqa: F811
    torch.manual_seed(7)
    identity = IdentityDistance(Recogniser(), size=16, crop=None)
    return {
        "network": generator,
        "landmarker": landmarker,
        "perceptual": perceptual,
        "identity": identity,
    }


@pytest.fixture
def faces(generator: Any) -> list[Tensor]:  # noqa: F811
    z = torch.randn(3, 16, generator=torch.Generator().manual_seed(5))
    return list(generator(z).clamp(-1, 1))
