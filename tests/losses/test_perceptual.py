"""LPIPS against the lpips package on the same random trunk and its own lin weights."""

import copy

import lpips
import pytest
import torch
from torch import nn

from pyfacelat.losses.perceptual import LPIPS, lpips_vgg16

STAGES = 5


@pytest.fixture(scope="module")
def published():
    torch.manual_seed(0)
    metric = lpips.LPIPS(net="vgg", pretrained=True, pnet_rand=True, verbose=False)
    for module in metric.net.modules():
        if isinstance(module, nn.Conv2d):  # torch's default would shrink features to nothing
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.normal_(module.bias, std=0.1)
    return metric.eval()


@pytest.fixture(scope="module")
def states(published):
    trunk = {
        f"features.{key.split('.', 1)[1]}": value
        for key, value in published.net.state_dict().items()
    }
    lins = {
        k: v for k, v in published.state_dict().items() if k.startswith("lin") and "lins" not in k
    }
    return trunk, lins


@pytest.fixture(scope="module")
def metric(states):
    return lpips_vgg16(*states)


def pair(n=3, size=64, seed=0):
    gen = torch.Generator().manual_seed(seed)
    a = torch.rand(n, 3, size, size, generator=gen) * 2 - 1
    return a, (a + 0.3 * torch.randn(a.shape, generator=gen)).clamp(-1, 1)


@pytest.mark.parametrize("size", [64, 50])
def test_s8_equals_the_lpips_package(metric, published, size):
    a, b = pair(size=size)
    truth_a, ours_a = a.clone().requires_grad_(), a.clone().requires_grad_()
    truth, ours = published(truth_a, b).flatten(), metric(ours_a, b)
    assert ours.shape == (3,)
    assert ((ours - truth) / truth).abs().max() < 1e-4
    truth.sum().backward()
    ours.sum().backward()
    error = ours_a.grad - truth_a.grad
    assert error.norm() < 1e-3 * truth_a.grad.norm()
    assert error.abs().max() < 1e-3 * truth_a.grad.abs().max()


def test_s8_equals_the_lpips_package_in_float64(published, states):
    """Without the ties of rounding, which cost either implementation 2e-3 in float32."""
    a, b = (x.double() for x in pair())
    grads = []
    for metric in (copy.deepcopy(published).double(), lpips_vgg16(*states).double()):
        leaf = a.clone().requires_grad_()
        distance = metric(leaf, b).flatten()
        distance.sum().backward()
        grads.append((distance.detach(), leaf.grad))
    assert ((grads[0][0] - grads[1][0]) / grads[0][0]).abs().max() < 1e-12
    assert (grads[0][1] - grads[1][1]).norm() < 1e-10 * grads[0][1].norm()


def test_float64_is_close_to_float32(states):
    a, b = pair(1)
    single = lpips_vgg16(*states)(a, b)
    double = lpips_vgg16(*states).double()(a.double(), b.double())
    assert ((single - double) / double).abs().max() < 1e-5


def test_s8_distance_facts(metric):
    a, b = pair()
    target = metric.embed(b)
    assert [e.shape[1] for e in target] == [64, 128, 256, 512, 512]
    for e in target:
        length = e.square().sum(1)
        assert ((length - 1).abs() < 1e-5).logical_or(length == 0).all()
    distance = metric.distance(metric.embed(a), target)
    torch.testing.assert_close(metric(a, b), distance, rtol=1e-6, atol=0)
    assert torch.equal(metric(a, a), torch.zeros(3))
    assert torch.allclose(metric(b, a), distance, rtol=1e-6)
    alone = metric(a[1:2], b[1:2])
    assert torch.allclose(alone, distance[1:2], rtol=1e-5)
    shared = metric.distance(metric.embed(a), metric.embed(b[:1]))
    assert torch.allclose(shared[:1], distance[:1], rtol=1e-5)


def test_nothing_but_the_images_gets_a_gradient(metric):
    a, b = pair(1)
    target = metric.embed(b)
    a.requires_grad_()
    metric.distance(metric.embed(a), target).sum().backward()
    assert a.grad is not None and not any(p.requires_grad for p in metric.parameters())
    assert not any(e.requires_grad for e in target) and not metric.training


def test_mask(metric):
    a, b = pair(2)
    plain = metric(a, b)
    ones = torch.ones(2, 1, 64, 64)
    assert torch.allclose(metric(a, b, ones * 0.3), plain, rtol=1e-5)
    assert torch.equal(metric(a, b, ones * 0), torch.zeros(2))
    # A change outside the mask, further away than features see, does not count.
    c = a.clone()
    c[:, :, :, 60:] += 0.5
    left = torch.zeros(1, 1, 128, 128)
    left[..., :8] = 1
    assert metric(a, c).min() > 1e-3
    shallow = LPIPS(_First(metric.trunk), [metric.lin0], [0, 0, 0], [1, 1, 1])
    assert shallow(a, c).min() > 1e-4
    assert torch.equal(shallow(a, c, left), torch.zeros(2))
    with pytest.raises(ValueError, match=r"mask: expected shape \[N, 1, H, W\]"):
        metric(a, b, ones[:, 0])


def test_gradient_is_finite_where_features_are_zero():
    class Split(nn.Module):
        """Features that are exactly zero on the left half, without a ReLU that hides it."""

        def forward(self, x):
            keep = (torch.arange(x.shape[3]) >= x.shape[3] // 2).to(x.dtype)
            return [x * keep, x]

    metric = LPIPS(Split(), [torch.ones(3), torch.ones(3)])
    b = torch.rand(1, 3, 16, 16)
    for a in (torch.zeros(1, 3, 16, 16), torch.rand(1, 3, 16, 16), b.clone()):
        a.requires_grad_()
        metric(a, b).sum().backward()
        assert torch.isfinite(a.grad).all()
    assert a.grad.abs().max() == 0  # equal images


@pytest.mark.parametrize("masked", [False, True])
def test_the_op_equals_plain_torch(states, masked):
    """`compare` against `distance`, values and gradients, in float64."""
    metric = lpips_vgg16(*states).double()
    a, b = (x.double() for x in pair(2, size=32))
    mask = torch.rand(2, 1, 24, 24, dtype=torch.float64) if masked else None
    target = metric.embed(b)
    results = []
    for distance in (metric.compare, lambda x, *rest: metric.distance(metric.embed(x), *rest)):
        leaf = a.clone().requires_grad_()
        value = distance(leaf, target, mask)
        results.append((value.detach(), *torch.autograd.grad(value.sum(), leaf)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)
    if mask is None:  # one image against two targets
        shared = metric.compare(a[:1], target)
        torch.testing.assert_close(shared, metric.distance(metric.embed(a[:1]), target))


def test_a_target_may_ask_for_a_gradient(metric):
    a, b = pair(1)
    b.requires_grad_()
    (gradient,) = torch.autograd.grad(metric(a, b).sum(), b)
    (swapped,) = torch.autograd.grad(metric(b, a).sum(), b)
    assert (gradient - swapped).norm() < 5e-3 * swapped.norm()


def test_wrong_weights_are_refused(states, metric):
    trunk, lins = states
    with pytest.raises(ValueError, match="missing tensors: features.0.weight"):
        lpips_vgg16({k: v for k, v in trunk.items() if k != "features.0.weight"}, lins)
    lpips_vgg16({**trunk, "classifier.0.weight": torch.zeros(1)}, lins)
    with pytest.raises(ValueError, match="lin_state: expected the tensors"):
        lpips_vgg16(trunk, {k: v for k, v in lins.items() if "lin4" not in k})
    with pytest.raises(ValueError, match=r"lin_state: lin0.* \[1, 64, 1, 1\], got \[1, 65, 1, 1\]"):
        lpips_vgg16(trunk, {**lins, "lin0.model.1.weight": torch.zeros(1, 65, 1, 1)})
    for bad in (torch.tensor([-1.0]), torch.tensor([float("nan")]), torch.ones(1, 1)):
        with pytest.raises(ValueError, match=r"lins\[0\]"):
            LPIPS(nn.Identity(), [bad])
    with pytest.raises(ValueError, match="trunk: expected maps of"):
        LPIPS(_First(metric.trunk), [metric.lin0, metric.lin1])(*pair(1))
    with pytest.raises(ValueError, match=r"images: expected shape \[N, 3, H, W\]"):
        metric.embed(torch.zeros(3, 64, 64))


class _First(nn.Module):
    def __init__(self, trunk):
        super().__init__()
        self.trunk = trunk

    def forward(self, x):
        return self.trunk.activations(x, [3])


def test_a_mask_reaches_maps_that_show_a_part():
    class Trunk(torch.nn.Module):
        regions = (None, (0.5, 0.25, 1.0, 0.75))

        def forward(self, x):
            return [x, x[:, :, 4:12, 8:]]

    metric = LPIPS(Trunk(), [torch.ones(3), torch.ones(3)]).double()
    rng = torch.Generator().manual_seed(0)
    x, y = (torch.rand(2, 3, 16, 16, generator=rng, dtype=torch.float64) for _ in range(2))
    u, v = (f / f.norm(dim=1, keepdim=True) for f in (x, y))
    squares = (u - v).square().sum(1)  # [N, 16, 16]
    mask = torch.rand(2, 1, 16, 16, generator=rng, dtype=torch.float64)
    whole, part = (
        (m * s).sum((1, 2)) / m.sum((1, 2))
        for m, s in ((mask[:, 0], squares), (mask[:, 0, 4:12, 8:], squares[:, 4:12, 8:]))
    )
    torch.testing.assert_close(metric(x, y, mask), whole + part)
    mask[:, :, 4:12, 8:] = 0
    whole = (mask[:, 0] * squares).sum((1, 2)) / mask.sum((1, 2, 3))
    torch.testing.assert_close(metric(x, y, mask), whole)


def test_a_map_of_one_pixel_counts():
    class Trunk(torch.nn.Module):
        def forward(self, x):
            return [x, x.mean((2, 3), keepdim=True)]

    metric = LPIPS(Trunk(), [torch.ones(3), torch.ones(3)]).double()
    rng = torch.Generator().manual_seed(0)
    x, y = (torch.rand(2, 3, 4, 4, generator=rng, dtype=torch.float64) for _ in range(2))
    unit = [[m / m.norm(dim=1, keepdim=True) for m in Trunk()(image)] for image in (x, y)]
    wanted = sum((a - b).square().sum(1).mean((1, 2)) for a, b in zip(*unit, strict=True))
    torch.testing.assert_close(metric(x, y), wanted)
    ones = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(metric(x, y, ones), wanted)
