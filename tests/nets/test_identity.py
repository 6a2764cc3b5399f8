"""The identity net: unit embeddings of images of any size, one by one."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F

from pyfacelat.nets.identity import IdentityConfig, IdentityNet


def test_embedding():
    torch.manual_seed(0)
    net = IdentityNet(IdentityConfig(embedding_dim=6, widths=(4, 4, 6, 8, 8), hidden=12)).eval()
    x = (torch.rand(3, 3, 128, 128) * 2 - 1).requires_grad_()
    found = net(x)
    assert found.shape == (3, 6)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(net(x[1:2]), found[1:2])
    torch.testing.assert_close(net.folded()(x), found, atol=1e-4, rtol=1e-3)
    found[:, 0].sum().backward()
    assert torch.isfinite(x.grad).all() and x.grad.abs().max() > 0
    with torch.no_grad():
        larger = net(F.interpolate(x, scale_factor=3, mode="nearest"))
        torch.testing.assert_close(larger, found, atol=1e-5, rtol=1e-4)
        assert net(x[..., :40, :40]).shape == (3, 6)


def test_refusals():
    with pytest.raises(ValueError, match="embedding_dim: expected integers from 2 to 65536, got 1"):
        IdentityConfig(embedding_dim=1)
    with pytest.raises(ValueError, match="stride: expected 1 or 2, got 4"):
        IdentityConfig(embedding_dim=8, stride=4)
    config = IdentityConfig(embedding_dim=8, widths=(4, 4, 4, 4, 4))
    assert IdentityConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config
    with pytest.raises(ValueError, match=r"expected shape \[N, 3, 48, 48\], got \[2, 3, 32, 48\]"):
        IdentityNet(config)(torch.zeros(2, 3, 32, 48))
