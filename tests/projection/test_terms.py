"""Every loss term in a projection: on by weight, off without, with the targets it needs."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pyfacelat
from pyfacelat.errors import ConfigError, LandmarkError
from pyfacelat.faces.landmarks import points_to_heatmaps
from pyfacelat.faces.transfer import STABLE
from pyfacelat.losses.objective import Candidate
from pyfacelat.losses.perceptual import LPIPS
from pyfacelat.nets.discriminator import Discriminator, DiscriminatorConfig
from pyfacelat.nets.vgg import VGG16Features
from pyfacelat.projection import ProjectionConfig, make_config
from pyfacelat.projection.config import TEMPORAL, TERMS, Stage
from pyfacelat.projection.landmark_term import landmark_term
from pyfacelat.projection.networks import load_networks
from pyfacelat.projection.space import LatentSpace, measure
from pyfacelat.projection.targets import make_targets
from pyfacelat.projection.terms import Terms

from ..faces import scenes
from .conftest import SIZE

LATENT = ("fidelity", "delta", "gaussianised", "prior", "spread", "pull")


class Embedder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(3 * 64, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(nn.functional.adaptive_avg_pool2d(x, 8).flatten(1))


def extras() -> dict[str, Any]:
    torch.manual_seed(3)
    config = DiscriminatorConfig(img_resolution=SIZE, channel_base=256, channel_max=16)
    return {"identity": Embedder(), "discriminator": Discriminator(config)}


def only(config: ProjectionConfig, steps: int, weights: dict[str, float], **stage: Any) -> Any:
    stages = (Stage("only", steps, weights, latent_noise=0.0, **stage),)
    return dataclasses.replace(config, stages=stages)


@pytest.mark.parametrize(
    "term", [t for t in TERMS if t not in ("noise", "vgg", *LATENT, *TEMPORAL)]
)
def test_look_and_landmark_terms_fall_alone(
    nets: dict[str, Any], look: Tensor, pose: Tensor, term: str
) -> None:
    config = only(make_config("balanced"), 25, {term: 1.0}, keep_best=False)
    result = pyfacelat.project(look, pose, **nets, **extras(), preset=config)
    values = result.losses[term][:, 0]
    assert set(result.losses) == {term, "total"}
    assert torch.isfinite(values).all() and values[-1] < 0.95 * values[0]


@pytest.mark.parametrize("term", [t for t in LATENT if t not in ("pull", "delta", "spread")])
def test_latent_terms_lead_back_to_the_mean(nets: dict[str, Any], look: Tensor, term: str) -> None:
    """fidelity, prior and gaussianised, from far out."""
    config = only(make_config("balanced"), 25, {term: 1.0}, keep_best=False)
    mapping = nets["network"].mapping
    mean = mapping(torch.randn(500, 16), None).mean(0)
    start = mean + 4 * (mapping(torch.randn(1, 16), None) - mean)
    result = pyfacelat.project(look, **nets, preset=config, init=start)
    values = result.losses[term][:, 0]
    assert values[-1] < 0.7 * values[0]


@pytest.mark.parametrize("term", ["delta", "spread"])
def test_terms_that_hold_the_rows_together(nets: dict[str, Any], look: Tensor, term: str) -> None:
    config = only(make_config("balanced"), 25, {term: 1.0}, keep_best=False)
    rows = nets["network"].mapping(torch.randn(nets["network"].num_ws, 16), None)[:, 0]
    result = pyfacelat.project(look, **nets, preset=config, init=rows[None])
    values = result.losses[term][:, 0]
    assert values[-1] < 0.7 * values[0]


def test_vgg_term_uses_the_look_terms_trunk(nets: dict[str, Any], look: Tensor) -> None:
    torch.manual_seed(0)
    trunk = VGG16Features()
    metric = LPIPS(trunk, [torch.ones(c) for c in trunk.channels])
    config = only(make_config("balanced"), 4, {"vgg": 1.0, "perceptual": 0.1})
    config = dataclasses.replace(config, vgg_layers=(3, 6))
    result = pyfacelat.project(look, **{**nets, "perceptual": metric}, preset=config)
    assert torch.isfinite(result.losses["vgg"]).all()


@pytest.mark.parametrize("term", ["identity", "discriminator"])
def test_a_term_without_its_network_is_refused(
    nets: dict[str, Any], look: Tensor, term: str
) -> None:
    with pytest.raises(ConfigError, match=f"{term}: .* term is on; give"):
        pyfacelat.project(look, **nets, loss_weights={term: 1.0}, steps=4)


def test_discriminator_of_another_size(nets: dict[str, Any], look: Tensor) -> None:
    config = DiscriminatorConfig(img_resolution=16, channel_base=256, channel_max=16)
    with pytest.raises(ConfigError, match="is for 16 px, the generator for 32"):
        pyfacelat.project(
            look, **nets, loss_weights={"discriminator": 1.0}, discriminator=Discriminator(config)
        )


def test_terms_at_the_start_equal_their_formulas_for_each_image_alone(
    nets: dict[str, Any], look: Tensor, pose: Tensor
) -> None:
    """Step 0 of a batch of two, every term on, against batches of one."""
    weights = {term: 1.0 for term in TERMS if term not in ("noise", "vgg", *TEMPORAL)}
    config = only(make_config("balanced"), 1, weights)
    values = [
        pyfacelat.project(each, pose, **nets, **extras(), preset=config).losses
        for each in (look, pose, [look, pose])
    ]
    for term in weights:
        alone = torch.cat([values[0][term][0], values[1][term][0]])
        torch.testing.assert_close(values[2][term][0], alone, rtol=1e-4, atol=1e-5)


def test_moving_weights(nets: dict[str, Any], look: Tensor, pose: Tensor) -> None:
    """The schedule from coordinates to heat maps; the total says what was minimised."""
    weights = {"coordinate": (1.0, 0.2), "landmark": (0.0, 1.0)}
    config = only(make_config("balanced"), 11, {"pixel": 1.0})
    config = make_config(config, loss_weights={"pixel": 0.0, **weights})
    result = pyfacelat.project(look, pose, **nets, preset=config)
    t = torch.linspace(0, 1, 11)
    losses = {name: values[:, 0] for name, values in result.losses.items()}
    expected = (1 - 0.8 * t) * losses["coordinate"] + t * losses["landmark"]
    torch.testing.assert_close(losses["total"], expected)
    assert "pixel" not in losses
    # The best step is the one with the least total under the final weights.
    final = 0.2 * losses["coordinate"] + losses["landmark"]
    best = int(final.argmin())
    before = result.history[best - 1] if best else None
    if before is not None:
        assert torch.equal(result.ws, before)


def test_landmark_and_coordinate_share_one_run_of_the_network(
    nets: dict[str, Any], look: Tensor
) -> None:
    calls = []
    nets["landmarker"].register_forward_hook(lambda *_: calls.append(1))
    counts = []
    for weights in ({"landmark": 1.0}, {"landmark": 1.0, "coordinate": 1.0}):
        calls.clear()
        pyfacelat.project(look, **nets, preset=only(make_config("balanced"), 3, weights))
        counts.append(len(calls))
    assert counts[0] == counts[1]


def test_rows_open_coarse_to_fine(nets: dict[str, Any], look: Tensor) -> None:
    config = only(
        make_config("balanced"), 20, {"pixel": 1.0}, delta_opening=(0.25, 0.5, 0.75),
        keep_best=False, ramp_up=0.0, ramp_down=0.0,
    )  # fmt: skip
    result = pyfacelat.project(look, **nets, preset=config, init="mean")
    rows = result.history[:, 0]  # [steps,num_ws,D]; num_ws is 8 at 32 px
    apart = (rows - rows[:, :1]).abs().amax(-1)
    assert apart[4].max() < 1e-6
    assert apart[9, 1:4].min() > 1e-4 and apart[9, 4:].max() < 1e-6
    assert apart[14, 4:8].min() > 1e-4
    # Until they open they move, as one: more than the first row alone would.
    assert rows[4, 5].ne(rows[0, 5]).any()


def test_heat_maps_as_target(nets: dict[str, Any], look: Tensor, pose: Tensor) -> None:
    """L12: decoded for the points, used as they are where the preset takes maps."""
    points = 0.2 + 0.6 * torch.rand(1, 68, 2)
    maps = points_to_heatmaps(points, (24, 24), sigma=1.5)
    result = pyfacelat.project(look, maps[0], **nets, steps=4)
    assert (result.target_landmarks / SIZE - points).abs().max() < 0.02
    net = nets["landmarker"]
    own = net((pose[None] + 1) / 2)[-1].detach()
    runs = [
        pyfacelat.project(look, target, **nets, preset="reference", space="w", steps=3)
        for target in (own, pose)
    ]
    torch.testing.assert_close(*(r.losses["landmark"] for r in runs), rtol=1e-4, atol=1e-5)
    for bad, words in (
        (torch.zeros(68, 8, 8), "no peak"),
        (torch.full((68, 8, 8), torch.nan), "finite heat maps"),
        (torch.rand(3, 68, 8, 8), "expected 1 or 1 stacks"),
    ):
        with pytest.raises(LandmarkError, match=words):
            pyfacelat.project(look, bad, **nets, steps=2)


def test_pose_keep(nets: dict[str, Any], look: Tensor) -> None:
    """Points of a tilted, smaller head are brought onto the look's nose and eyes."""
    projector = pyfacelat.Projector(**nets, pose="keep", steps=2)
    seen, _ = projector.landmarker.points(look[None])
    turn = torch.tensor([[0.8, -0.3], [0.3, 0.8]])
    other = (seen[0] - 0.5) @ turn.T * 0.7 + 0.5
    result = projector.project(look, other * SIZE)
    torch.testing.assert_close(result.target_landmarks / SIZE, seen, rtol=0, atol=1e-4)
    opened = other.clone()
    opened[57, 1] += 0.1
    result = projector.project(look, opened * SIZE)
    moved = (result.target_landmarks[0] / SIZE - seen[0]).norm(dim=-1)
    assert moved[57] > 0.1 and moved[list(STABLE)].max() < 1e-4


def make_terms(nets: dict[str, Any], config: ProjectionConfig) -> Terms:
    loaded = load_networks(
        config, **nets, init="mean", identity="auto", discriminator="auto", encoder="auto",
        device=torch.device("cpu"), dtype=torch.float32,
    )  # fmt: skip
    space = LatentSpace(measure(loaded.generator, samples=50), "w+", "whitened", 8)
    term = landmark_term(config, loaded.landmarker, device=torch.device("cpu"), dtype=torch.float32)
    return Terms(config, loaded, space, term)


@pytest.mark.parametrize("mask", ["face", "landmarks"])
def test_masked_look_term_ignores_the_region(nets: dict[str, Any], look: Tensor, mask: str) -> None:
    config = only(make_config("balanced", perceptual_mask=mask), 1, {"perceptual": 1.0})
    terms = make_terms(nets, config)
    points = torch.from_numpy(scenes.face(256)[1] / 256).float()[None]
    targets = make_targets(
        config, terms._nets.landmarker, look[None], points=points, maps=None, image=None
    )
    assert targets.look_points is not None
    targets = dataclasses.replace(targets, look_points=points)
    term = terms(config.stages[0], torch.zeros(1, 8, 16), targets)["perceptual"]

    def distance(image: Tensor) -> float:
        fields = {"whitened": torch.zeros(1), "ws": torch.zeros(1), "noise": {}}
        return float(term(Candidate(image[None], **fields)))

    inside, outside = look.clone(), look.clone()
    x, y = (points[0, 60:68].mean(0) * SIZE).long().tolist()  # in the mouth
    inside[:, y, x] *= -1
    outside[:, 1, 1] *= -1
    assert distance(look) == 0
    assert distance(inside) < 0.05 * distance(outside)


def test_confidence(nets: dict[str, Any], look: Tensor) -> None:
    config = dataclasses.replace(make_config("balanced"), confidence=True)
    landmarker = make_terms(nets, config)._nets.landmarker
    maps = points_to_heatmaps(torch.full((1, 68, 2), 0.51), (16, 16), sigma=1.0)
    maps[0, 3] *= 0.5
    maps[0, 4] *= 0.1
    targets = make_targets(config, landmarker, look[None], points=None, maps=maps, image=None)
    assert targets.confidence is not None
    sure = targets.confidence[0]
    assert sure[3] == pytest.approx(0.5 * float(sure[0])) and sure[4] == 0
    result = pyfacelat.project(look, **nets, preset=config, steps=4)
    assert result.confidence.shape == (1, 68) and torch.isfinite(result.losses["total"]).all()


def test_config_round_trip_and_checks() -> None:
    config = make_config(
        "balanced", pose="keep", perceptual_mask="face",
        loss_weights={"coordinate": (1, 0.2), "delta": 0.01},
    )  # fmt: skip
    first = dataclasses.replace(config.stages[0], delta_opening=(0, 0.5, 1))
    stages = (first, *config.stages[1:])
    config = dataclasses.replace(config, stages=stages, vgg_layers=(3, 8), target_sigma=2.0)
    assert ProjectionConfig.from_json(config.to_json()) == config
    assert config.stages[-1].weights["coordinate"] == 1
    assert config.stages[-1].weight_ends == {"coordinate": 0.2}
    assert not config.stages[0].uses("coordinate") and config.uses("delta")
    again = make_config(config, loss_weights={"coordinate": 0.5})
    assert again.stages[-1].weight_ends == {}
    for change, words in (
        ({"pose": "hold"}, "pose: expected one of take, keep"),
        ({"perceptual_mask": "eyes"}, "perceptual_mask"),
        ({"loss_weights": {"pixel": (1, 2, 3)}}, "a number or two"),
        ({"loss_weights": {"pixel": (1, -2)}}, ">= 0"),
    ):
        with pytest.raises(ConfigError, match=words):
            make_config("balanced", **change)
    with pytest.raises(ConfigError, match="three shares"):
        Stage("s", 5, {"pixel": 1.0}, delta_opening=(0.5,))
    with pytest.raises(ConfigError, match="not among the stage's weights"):
        Stage("s", 5, {"pixel": 1.0}, weight_ends={"prior": 1.0})
    for bad in ({"target_sigma": 0.0}, {"pixel_size": 0}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            dataclasses.replace(config, **bad)
