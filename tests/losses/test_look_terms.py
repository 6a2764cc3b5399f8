"""MS-SSIM, VGG layers, identity and realism: values, gradients, one image at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pytorch_msssim
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyfacelat.losses.features import FeatureDistance
from pyfacelat.losses.identity import CROP, IdentityDistance
from pyfacelat.losses.realism import RealismLoss
from pyfacelat.losses.structure import WEIGHTS, ms_ssim, ms_ssim_distance, num_scales
from pyfacelat.nets.discriminator import Discriminator, DiscriminatorConfig
from pyfacelat.nets.vgg import VGG16Features


def images(side: int, count: int = 2, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Smooth random pictures in [-1, 1]."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=rng, dtype=torch.float64) * 2 - 1
    fine = torch.rand(count, 3, side, side, generator=rng, dtype=torch.float64) - 0.5
    smooth = F.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False)
    return (smooth + 0.3 * fine).clamp(-1, 1).to(dtype)


def check_gradient(function, x: Tensor, step: float = 1e-6, rel: float = 1e-4) -> None:
    """The derivative along three directions, against central differences, in float64."""
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(x).sum(), x)
    rng = torch.Generator().manual_seed(9)
    for _ in range(3):
        d = torch.randn(x.shape, generator=rng, dtype=x.dtype) + gradient / gradient.norm() * 30
        with torch.no_grad():
            difference = function(x + step * d).sum() - function(x - step * d).sum()
        assert float(difference) / (2 * step) == pytest.approx(float((gradient * d).sum()), rel=rel)


def plain_ms_ssim(x: Tensor, y: Tensor) -> float:
    """One image [3,H,W] in [-1, 1], numpy, a loop over channels and scales."""
    taps = np.array([math.exp(-((i - 5) ** 2) / (2 * 1.5**2)) for i in range(11)])
    taps /= taps.sum()

    def blur(a: np.ndarray) -> np.ndarray:
        rows = np.apply_along_axis(lambda r: np.convolve(r, taps, "valid"), 0, a)
        return np.apply_along_axis(lambda r: np.convolve(r, taps, "valid"), 1, rows)

    scales = num_scales(*x.shape[-2:])
    weights = np.array(WEIGHTS[:scales]) * sum(WEIGHTS) / sum(WEIGHTS[:scales])
    total = 0.0
    for c in range(3):
        a, b = (x[c].numpy() + 1) / 2, (y[c].numpy() + 1) / 2
        product = 1.0
        for scale, weight in enumerate(weights):
            if scale:
                a, b = (
                    (m[0::2, 0::2] + m[1::2, 0::2] + m[0::2, 1::2] + m[1::2, 1::2]) / 4
                    for m in (a, b)
                )
            mean_a, mean_b = blur(a), blur(b)
            va, vb = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
            cov = blur(a * b) - mean_a * mean_b
            part = (2 * cov + 9e-4) / (va + vb + 9e-4)
            if scale == scales - 1:
                part = part * (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
            product *= max(part.mean(), 0.0) ** weight
        total += product
    return total / 3


class TestMsSsim:
    @pytest.mark.parametrize("side", [16, 64, 192])
    def test_plain_formula(self, side: int) -> None:
        x, y = images(side), images(side, seed=1) * 0.3 + images(side) * 0.7
        found = ms_ssim(x, y)
        for n in range(2):
            assert float(found[n]) == pytest.approx(plain_ms_ssim(x[n], y[n]), abs=1e-10)

    def test_equals_the_package(self) -> None:
        x, y = images(256, dtype=torch.float32), images(256, seed=1, dtype=torch.float32)
        expected = pytorch_msssim.ms_ssim(
            (x + 1) / 2, (y + 1) / 2, data_range=1.0, size_average=False
        )
        torch.testing.assert_close(ms_ssim(x, y), expected, rtol=0, atol=1e-5)

    def test_equal_images_and_no_image(self) -> None:
        x = images(64)
        assert ms_ssim_distance(x, x).abs().max() < 1e-12
        assert ms_ssim_distance(x[:0], x[:0]).shape == (0,)

    def test_scales(self) -> None:
        sides = (11, 20, 21, 40, 41, 160, 161, 1024)
        assert [num_scales(side, 2000) for side in sides] == [1, 1, 2, 2, 3, 4, 5, 5]
        with pytest.raises(ValueError, match="at least 11 pixels, got 10 x 64"):
            ms_ssim(torch.zeros(1, 3, 10, 64), torch.zeros(1, 3, 10, 64))

    def test_gradient(self) -> None:
        target = images(47, 1, seed=1)
        check_gradient(lambda x: ms_ssim_distance(x, target), images(47, 1))

    def test_opposite_images_have_a_finite_gradient(self) -> None:
        x = images(32).requires_grad_()
        (gradient,) = torch.autograd.grad(ms_ssim_distance(x, -x.detach()).sum(), x)
        assert torch.isfinite(gradient).all()

    def test_batch_independence(self) -> None:
        x, y = images(40, 3), images(40, 3, seed=1)
        alone = torch.cat([ms_ssim(x[i : i + 1], y[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(ms_ssim(x, y), alone, rtol=0, atol=1e-14)


@pytest.fixture(scope="module")
def trunk() -> VGG16Features:
    torch.manual_seed(0)
    return VGG16Features().double()


class TestFeatures:
    def test_plain_formula(self, trunk: VGG16Features) -> None:
        x, y = images(32), images(32, seed=1)
        distance = FeatureDistance(trunk, (3, 6)).double()
        mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)[:, None, None]
        std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)[:, None, None]
        # Layers 3 (relu1_2) and 6 (relu2_1), by hand.
        layers = trunk.features
        expected = torch.zeros(2, dtype=torch.float64)
        a, b = (((image + 1) / 2 - mean) / std for image in (x, y))
        for number in range(7):
            a, b = (F.relu(m) if number in (1, 3, 6) else layers[number](m) for m in (a, b))
            if number in (3, 6):
                expected += (a - b).square().mean((1, 2, 3))
        torch.testing.assert_close(distance(x, y), expected, rtol=1e-5, atol=0)

    @pytest.mark.parametrize("layer", range(0, 16, 5))
    def test_layers(self, trunk: VGG16Features, layer: int) -> None:
        distance = FeatureDistance(trunk, (layer,), size=16).double()
        x, y = images(32, 3), images(32, 3, seed=1)
        found = distance(x, y)
        assert (found > 0).all()
        assert distance(x, x).tolist() == [0, 0, 0]
        alone = torch.cat([distance(x[i : i + 1], y[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(found, alone)

    def test_gradient(self, trunk: VGG16Features) -> None:
        distance, target = FeatureDistance(trunk, (3, 11)).double(), images(16, 1, seed=1)
        # A step so small that hardly any unit passes its kink.
        check_gradient(lambda x: distance(x, target), images(16, 1), step=1e-7, rel=1e-3)

    @pytest.mark.parametrize("layers", [(), (5, 5), (7, 3), (30,), (-1,)])
    def test_wrong_layers(self, trunk: VGG16Features, layers: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="layers"):
            FeatureDistance(trunk, layers)


class Embedder(nn.Module):
    """Stands for a recognition network: keeps what it is given; an affine map of it."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(3 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return self.dense(F.adaptive_avg_pool2d(x, 4).flatten(1))


class TestIdentity:
    @pytest.fixture
    def identity(self) -> IdentityDistance:
        torch.manual_seed(3)
        return IdentityDistance(Embedder().double())

    def test_plain_formula(self, identity: IdentityDistance) -> None:
        x, y = images(256), images(256, seed=1)
        found = identity(x, y)
        for n in range(2):
            a, b = (
                identity.net(F.adaptive_avg_pool2d(m[n : n + 1, :, 35:223, 32:220], 112))[0]
                for m in (x, y)
            )
            expected = 1 - float(a @ b) / (float(a.norm()) * float(b.norm()))
            assert float(found[n]) == pytest.approx(expected)
        assert identity(x, x).abs().max() < 1e-12

    @pytest.mark.parametrize("side", [32, 200, 512])
    def test_every_resolution_shows_the_same_part_of_the_face(
        self, identity: IdentityDistance, side: int
    ) -> None:
        across = torch.linspace(0, 1, side + 1, dtype=torch.float64)
        ramp = (across[:-1] + across[1:]) / 2
        identity.embed(ramp.expand(1, 3, side, side))
        seen = identity.net.seen
        assert seen.shape == (1, 3, 112, 112)
        left, right = CROP[0] / 256, CROP[2] / 256
        assert float(seen[0, 0, 5, 0]) == pytest.approx(left + (right - left) / 224, abs=3e-3)
        assert float(seen[0, 0, 5, -1]) == pytest.approx(right - (right - left) / 224, abs=3e-3)

    def test_gradient_and_batch_independence(self, identity: IdentityDistance) -> None:
        x, y = images(24, 3), images(24, 3, seed=1)
        check_gradient(lambda a: identity(a, y), x)
        alone = torch.cat([identity(x[i : i + 1], y[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(identity(x, y), alone)

    def test_no_crop_own_size_and_frozen(self) -> None:
        identity = IdentityDistance(Embedder().double(), size=20, crop=None)
        x = images(20)
        identity.embed(x)
        assert identity.net.seen.shape == (2, 3, 20, 20)
        assert not any(p.requires_grad for p in identity.parameters())
        with pytest.raises(ValueError, match="crop"):
            IdentityDistance(Embedder(), crop=(0, 0, 300, 10))


class TestRealism:
    @pytest.fixture
    def discriminator(self) -> Discriminator:
        torch.manual_seed(4)
        config = DiscriminatorConfig(img_resolution=16, channel_base=256, channel_max=16)
        return Discriminator(config).double()

    def test_plain_formula_one_image_at_a_time(self, discriminator: Discriminator) -> None:
        x = images(16, 3)
        found = RealismLoss(discriminator)(x)
        for n in range(3):
            logit = float(discriminator(x[n : n + 1]))
            assert float(found[n]) == pytest.approx(math.log1p(math.exp(-logit)))
        assert RealismLoss(discriminator)(x[:0]).shape == (0,)
        # In one batch, the minibatch standard deviation would let them see each other.
        assert not torch.allclose(found, F.softplus(-discriminator(x))[:, 0])

    def test_gradient(self, discriminator: Discriminator) -> None:
        check_gradient(RealismLoss(discriminator), images(16, 2), rel=1e-3)
        assert not any(p.requires_grad for p in discriminator.parameters())
