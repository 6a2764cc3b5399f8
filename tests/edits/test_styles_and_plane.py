"""Style codes (P12), and latents on their principal plane (I12)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pyfacelat.edits.plane import plane_chart, principal_plane
from pyfacelat.edits.styles import style_codes
from pyfacelat.errors import ConfigError
from pyfacelat.nets.stylegan2 import Generator, GeneratorConfig


def test_p12_style_codes_are_what_the_layers_use() -> None:
    torch.manual_seed(0)
    channels = {4: 8, 8: 6, 16: 4}
    config = GeneratorConfig(
        z_dim=8, w_dim=8, img_resolution=16, num_mapping_layers=1, channels=channels
    )
    generator = Generator(config).freeze()
    ws = torch.randn(3, generator.num_ws, 8)
    codes = style_codes(generator.synthesis, ws)
    assert {name: list(code.shape) for name, code in codes.items()} == {
        "b4.conv1": [3, 8], "b4.torgb": [3, 8],
        "b8.conv0": [3, 8], "b8.conv1": [3, 6], "b8.torgb": [3, 6],
        "b16.conv0": [3, 6], "b16.conv1": [3, 4], "b16.torgb": [3, 4],
    }  # fmt: skip
    seen: dict[str, torch.Tensor] = {}
    for name in codes:
        affine = generator.synthesis.get_submodule(f"{name}.affine")
        affine.register_forward_hook(
            lambda _module, _inputs, out, name=name: seen.__setitem__(name, out)
        )
    generator.synthesis(ws)
    assert list(seen) == list(codes)
    for name, code in codes.items():
        torch.testing.assert_close(code, seen[name])
    with pytest.raises(ConfigError, match="ws: expected"):
        style_codes(generator.synthesis, ws[:, :3])


def test_i12_coordinates_equal_sklearn_up_to_sign() -> None:
    from sklearn.decomposition import PCA

    ws = torch.randn(12, 6, 8) * torch.linspace(3, 0.5, 8)
    found = principal_plane(ws).numpy()
    expected = PCA(2, random_state=22).fit_transform(ws.flatten(1).numpy())
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-4)
    for axis in range(2):
        assert found[np.abs(found[:, axis]).argmax(), axis] > 0
    images = [np.full((16, 16, 3), 10 * i, np.uint8) for i in range(12)]
    chart = plane_chart(torch.from_numpy(found), images, side=200, thumb=20)
    assert chart.shape == (200, 200, 3)
    lowest = int(found[:, 1].argmin())
    assert (chart[-20:] == 10 * lowest).all(2).sum() >= 300
    with pytest.raises(ConfigError, match="N >= 3"):
        principal_plane(ws[:2])
    with pytest.raises(ConfigError, match="one for each"):
        plane_chart(torch.from_numpy(found), images[:2])
