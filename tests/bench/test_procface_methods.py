"""How methods are named, and what the names come to."""

from __future__ import annotations

import pytest

from bench.procface.drive import follow
from bench.procface.methods import BASELINES, LayerSwap, Projection, parse
from pyfacelat.errors import ConfigError, LandmarkError
from pyfacelat.faces.groups import GROUPS
from pyfacelat.projection import make_config


def one(text: str) -> Projection:
    (method,) = parse(text)
    assert isinstance(method, Projection)
    return method


def test_presets_and_landmark_weights() -> None:
    assert one("balanced").config == make_config("balanced")
    assert one("preset:reference").config == make_config("reference")
    assert one("reference:0.05").config == make_config("reference", loss_weights={"landmark": 0.05})
    assert one("reference").config.space == "w"


def test_overrides() -> None:
    config = one("preset:balanced:steps=30:space=w:pixel=2:outer_lip=3").config
    assert config.steps == 30 and config.space == "w"
    assert config.stages[0].weights["pixel"] == 2
    assert one("balanced:pose=keep").config.pose == "keep"
    base = make_config("balanced").group_weights
    for i in range(68):
        assert config.group_weights[i] == (3 if i in GROUPS["outer_lip"] else base[i])


def test_coordinates_are_landmarks_too() -> None:
    method = one("reference:landmark=0:coordinate=1")
    assert method.tasks[-2:] == ("T5", "T6")
    assert len(follow(method.config, 3).stages) == 1


def test_look_only_has_no_landmark_term_and_no_landmark_tasks() -> None:
    method = one("wplus-look-only:steps=5")
    assert method.config.space == "w+" and method.config.steps == 5
    assert all(stage.weights["landmark"] == 0 for stage in method.config.stages)
    assert method.tasks == ("T1", "T2", "T6")
    with pytest.raises(ConfigError, match="no landmark term"):
        follow(method.config, 10)


def test_baselines_parse_and_weights_of_one_preset_are_a_family() -> None:
    methods = parse(",".join(BASELINES))
    assert [m.label for m in methods] == list(BASELINES)
    assert [m.family for m in methods[:3]] == ["reference"] * 3
    assert methods[3].family == "wplus-look-only"


def test_layer_swap() -> None:
    (swap,) = parse("layer-swap")
    assert isinstance(swap, LayerSwap) and (swap.psi, swap.rows) == (0.5, "3-10")
    assert all(stage.weights.get("landmark", 0) == 0 for stage in swap.invert.stages)
    assert swap.steps == 2 * swap.invert.steps
    (other,) = parse("layer-swap:psi=0:rows=0-18")
    assert isinstance(other, LayerSwap) and (other.psi, other.rows) == (0, "0-18")
    assert swap.settings() != other.settings()


def test_following_frames_keep_to_the_landmark_stages() -> None:
    config = follow(make_config("balanced"), 7)
    assert config.steps == 7
    assert [stage.name for stage in config.stages] == ["move"]
    assert config.stages[0].latent_noise == 0


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "expected at least one"),
        ("blanced", "did you mean 'balanced'"),
        ("balanced,balanced", "given twice"),
        ("balanced:stesp=3", "did you mean 'steps'"),
        ("balanced:steps=many", "steps: expected a whole number, got 'many'"),
        ("balanced:steps=0", "steps"),
        ("balanced:pixel=-1", "pixel"),
        ("balanced:space=z", "space"),
        ("reference:heavy", "landmark: expected a number, got 'heavy'"),
        ("layer-swap:rows=5-2", "at least one"),
        ("layer-swap:rows=0-30", "within 18 rows"),
        ("layer-swap:psi=half", "psi: expected a number"),
        ("layer-swap:steps=5", "expected psi= or rows="),
    ],
)
def test_wrong_methods(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(text)


def test_a_negative_group_weight() -> None:
    with pytest.raises(LandmarkError, match="-1"):
        parse("balanced:jaw=-1")
