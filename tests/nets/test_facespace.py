"""The encoders of a face space (F4, F5)."""

from __future__ import annotations

import pytest
import torch

from pyfacelat.nets.facespace import FaceSpaceConfig, FaceSpaceEncoder


def encoder(kind: str = "one-hot", inputs: int = 8, num_ws: int = 18, w_dim: int = 512):  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    config = FaceSpaceConfig.published(
        faces=8, inputs=inputs, num_ws=num_ws, w_dim=w_dim, kind=kind
    )
    return FaceSpaceEncoder(config)


@pytest.mark.parametrize(
    ("kind", "inputs", "published"), [("one-hot", 8, 5.16e6), ("landmarks", 136, 10.5e6)]
)
def test_f4_f5_size_and_shape(kind: str, inputs: int, published: float) -> None:
    net = encoder(kind, inputs)
    count = sum(parameter.numel() for parameter in net.parameters())
    assert abs(count / published - 1) < 0.005
    z = torch.rand(3, inputs) + 0.1
    ws = net(z)
    assert ws.shape == (3, 18, 512)
    # Pixel norm: a positive scale of z changes nothing.
    torch.testing.assert_close(net(7.3 * z), ws, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(net(z.flip(1)), ws, atol=1e-2)


@pytest.mark.parametrize("num_ws", [10, 12, 14, 16])
def test_other_resolutions(num_ws: int) -> None:
    assert encoder(num_ws=num_ws, w_dim=128)(torch.eye(8)).shape == (8, num_ws, 128)


def test_a_layer_by_hand() -> None:
    net = encoder(inputs=2, num_ws=1, w_dim=2)
    z = torch.tensor([[3.0, 4.0]])
    x = z / (12.5 + 1e-8) ** 0.5
    for number, layer in enumerate(net.layers):
        if number:
            x = torch.where(x > 0, x, 0.2 * x)
        x = (2 / x.shape[1]) ** 0.5 * x @ layer.weight.T + layer.bias
    torch.testing.assert_close(net.normalised(z)[:, 0], x)
    net.mean.copy_(torch.tensor([5.0, -5.0]))
    net.spread.fill_(3.0)
    torch.testing.assert_close(net(z)[:, 0], 3 * x + net.mean)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"z: expected \[N, 8\]"):
        encoder()(torch.zeros(2, 7))
    with pytest.raises(ValueError, match="kind"):
        FaceSpaceConfig.published(faces=1, inputs=1, num_ws=1, w_dim=1, kind="both")
    with pytest.raises(ValueError, match="inputs"):
        FaceSpaceConfig.published(faces=1, inputs=0, num_ws=1, w_dim=1)
