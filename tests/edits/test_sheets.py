"""Rendering latents and laying them out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pyfacelat.edits.sheets import frames, render, sheet
from pyfacelat.errors import ConfigError
from pyfacelat.images import to_uint8
from pyfacelat.nets.stylegan2 import Generator, GeneratorConfig


def test_render_equals_the_generator() -> None:
    torch.manual_seed(0)
    config = GeneratorConfig(
        z_dim=8, w_dim=8, img_resolution=16, num_mapping_layers=1, channel_base=128, channel_max=8
    )
    generator = Generator(config).freeze()
    ws = generator.mapping(torch.randn(6, 8)).reshape(2, 3, generator.num_ws, 8)
    found = render(generator, ws)
    assert found.shape == (2, 3, 16, 16, 3) and found.dtype == np.uint8
    expected = to_uint8(generator.synthesis(ws.flatten(0, 1))).numpy().reshape(found.shape)
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert render(generator, ws[0, 0]).shape == (16, 16, 3)
    assert len(list(frames(generator, ws.flatten(0, 1)))) == 6


def test_sheet() -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    plain = sheet([[None, red], [red, red]], side=16)
    assert plain.shape == (36, 36, 3)
    assert (plain[:16, :16] == 255).all() and (plain[20:, 20:] == red).all()
    assert (plain[16:20] == 255).all()
    texts = sheet([[red], [red, red]], captions=["a", "b"], labels=["one", "two"], side=32)
    assert texts.shape == (20 + 2 * (20 + 32 + 4) - 4, 68, 3)
    assert (texts[40:72, :32] == red[0, 0]).all() and (texts[:20] < 128).any()
    with pytest.raises(ConfigError, match="at least one picture"):
        sheet([[None]])
