"""The perceptual metric's channel weights: the fit by hand, and that a metric gets better by it."""

from __future__ import annotations

import pytest
import torch

from pyfacelat import procface
from pyfacelat.losses.perceptual import LPIPS
from pyfacelat.nets.sample_encoder import FeatureTrunk, SampleEncoderConfig
from pyfacelat.training import models
from pyfacelat.training.calibrate import (
    UNRELATED,
    calibrate,
    fit_weights,
    measure,
    rank_correlation,
    render_pairs,
)


def test_weights_make_what_is_heard_alike():
    # Channel c changes by loudness[c] per unit of parameter c, so the weights are 1 / loudness.
    loudness = torch.tensor([4.0, 0.05, 1.0])
    steps = torch.rand(60, generator=torch.Generator().manual_seed(0)) + 0.5
    which = torch.arange(60) % 3
    changes = torch.zeros(60, 3)
    changes[torch.arange(60), which] = steps * loudness[which]
    found = fit_weights(changes, steps, torch.ones(60), steps=2000)
    torch.testing.assert_close(found, 1 / loudness, rtol=0.02, atol=0)
    # A share of nothing has no say.
    found = fit_weights(changes, steps, (which != 1).float(), steps=2000)
    torch.testing.assert_close(found[[0, 2]], 1 / loudness[[0, 2]], rtol=0.02, atol=0)
    assert found[1] < 2


def test_rank_correlation():
    a = torch.tensor([0.1, 0.2, 0.9, 0.4])
    assert rank_correlation(a, a.exp()) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    # Ranks 0 1 3 2 against 0 2 3 1: 1 - 6 * (1 + 1) / (4 * 15).
    assert rank_correlation(a, torch.tensor([1.0, 3, 4, 2])) == pytest.approx(0.8)


def test_pairs_differ_as_they_say():
    pairs = render_pairs(3, 2, 16)
    count = procface.Z_DIM
    assert len(pairs.images) == 2 * (1 + count + 8) and len(pairs.first) == 2 * (count + 8)
    assert pairs.images.shape[1:] == (3, 16, 16) and pairs.images.abs().max() <= 1
    assert pairs.first.unique().tolist() == [0, 1 + count + 8]
    assert pairs.parameter[:count].tolist() == list(range(count)) and pairs.unrelated.sum() == 2
    one = pairs.distance[pairs.parameter >= 0]
    assert one.min() >= 0 and 0.3 < one.mean() < 2
    steps = pairs.distance[pairs.parameter < 0].reshape(2, 8)
    assert (steps[:, -1] > 20).all() and (steps.diff(dim=1) > -2).all()
    again = render_pairs(3, 1, 16)
    assert torch.equal(again.images, pairs.images[: 1 + count + 8])


def test_a_fitted_metric_is_better():
    config = SampleEncoderConfig(
        z_dim=4, input_size=32, widths=(8, 8, 8, 8, 8), hidden=8, window_width=4
    )
    encoder = models.new_encoder(config, 1).eval()
    train, held = (render_pairs(seed, 4, 32) for seed in (1, 2))
    lins, numbers = calibrate(encoder, train, held)
    assert [len(lin) for lin in lins] == [8] * 5 + [4] * 9 and min(lin.min() for lin in lins) >= 0
    equal, fitted = numbers["equal"], numbers["fitted"]
    assert fitted["rank"] > equal["rank"] and fitted["rank_one"] > equal["rank_one"]
    assert sum(fitted["seen"].values()) == pytest.approx(procface.Z_DIM)
    assert fitted["deaf"] == min(fitted["seen"].values()) > numbers["stages"]["deaf"]

    metric = LPIPS(FeatureTrunk(encoder), lins)
    assert measure(metric, held)["rank"] == pytest.approx(fitted["rank"], abs=1e-3)
    a, b = train.first[train.unrelated], train.second[train.unrelated]
    apart = metric(train.images[a], train.images[b]).mean()
    assert apart.item() == pytest.approx(UNRELATED, rel=1e-3)
