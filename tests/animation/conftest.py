"""The small random networks of the projections' tests, and a clip."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyfacelat.nets.stylegan2 import Generator

from ..projection.conftest import generator as generator
from ..projection.conftest import landmarker as landmarker
from ..projection.conftest import look as look
from ..projection.conftest import nets as nets
from ..projection.conftest import perceptual as perceptual


@pytest.fixture
def clip(generator: Generator) -> Tensor:
    """Five frames that the generator can make, near each other: [5,3,32,32] in [-1, 1]."""
    rng = torch.Generator().manual_seed(7)
    ends = torch.randn(2, 16, generator=rng)
    share = torch.linspace(0, 1, 5)[:, None]
    return generator(ends[:1] * (1 - share) + ends[1:] * share).clamp(-1, 1)
