from __future__ import annotations

import math

import pytest
import torch

from pyfacelat.nets.sample_encoder import SampleEncoderConfig
from pyfacelat.nets.stylegan2 import GeneratorConfig
from pyfacelat.training import loop, models
from pyfacelat.training.data import face_set
from pyfacelat.training.encoder_task import EncoderTask
from pyfacelat.training.generator_task import GeneratorTask
from pyfacelat.training.loop import Phase
from tests.training import crude


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    return tuple(
        face_set(folder, split, 256, 32, source=crude.source()) for split in ("train", "val")
    )


def generator_task(faces, phases):
    config = GeneratorConfig(
        z_dim=crude.Z_DIM,
        w_dim=16,
        img_resolution=32,
        num_mapping_layers=2,
        mapping_lr_multiplier=1.0,
        channels={4: 16, 8: 16, 16: 8, 32: 8},
    )
    return GeneratorTask(models.new_generator(config, 1), *faces, phases, held_count=16)


def encoder_task(faces, phases):
    config = SampleEncoderConfig(
        z_dim=crude.Z_DIM, input_size=32, widths=(4, 8, 8, 8, 8), hidden=16
    )
    return EncoderTask(models.new_encoder(config, 1), *faces, phases, held_count=32)


PHASES = [
    Phase("16px", batch=4, steps=6, resolution=16),
    Phase("32px", batch=4, steps=6, resolution=32),
]


@pytest.mark.parametrize("make", [generator_task, encoder_task])
@pytest.mark.parametrize("killed_at", [3, 6])
def test_a_killed_run_ends_with_the_same_bits(faces, tmp_path, make, killed_at):
    whole = make(faces, PHASES)
    numbers = loop.run(whole, tmp_path / "whole", seed=5, say=lambda line: None)

    first = make(faces, PHASES)
    if killed_at == 6:
        loop.run(first, tmp_path / "cut", seed=5, stop_after="16px", say=lambda line: None)
    else:
        loop.run(
            first,
            tmp_path / "cut",
            seed=5,
            checkpoint_seconds=0,
            stop_at_step=killed_at,
            say=lambda line: None,
        )
    resumed = make(faces, PHASES)
    again = loop.run(resumed, tmp_path / "cut", seed=5, say=lambda line: None)
    assert again == numbers
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name
    ema, history = loop.load_ema(tmp_path / "whole")
    assert [(part["phase"], part["steps"], part["images"]) for part in history] == [
        ("16px", 6, 24),
        ("32px", 6, 24),
    ]
    cut, _ = loop.load_ema(tmp_path / "cut")
    assert all(torch.equal(value, cut[name]) for name, value in ema.items())


def test_another_plan_is_refused(faces, tmp_path):
    loop.run(generator_task(faces, PHASES[:1]), tmp_path, seed=5, say=lambda line: None)
    with pytest.raises(ValueError, match="use another folder"):
        loop.run(generator_task(faces, PHASES[:1]), tmp_path, seed=6, say=lambda line: None)


def test_a_loss_that_is_not_finite_stops_the_run(faces, tmp_path):
    task = generator_task(faces, PHASES)
    with torch.no_grad():
        task.net.synthesis.b4.const.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="not finite at step 1 of 16px"):
        loop.run(task, tmp_path, say=lambda line: None)


def test_nothing_trained_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="run this stage's training first"):
        loop.load_ema(tmp_path)


def test_schedule():
    phase = Phase("a", batch=1, steps=100, flat=0.5, final=0.1, warmup=10)
    rates = [phase.rate(s, phase.progress(s, 0.0)) for s in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[10] == rates[50] == 1.0
    assert rates[75] == pytest.approx(0.55) and rates[100] == pytest.approx(0.1)
    timed = Phase("b", batch=1, minutes=2.0)
    assert timed.progress(7, 60.0) == 0.5
    with pytest.raises(ValueError, match="either steps or minutes"):
        Phase("c", batch=1)
    with pytest.raises(ValueError, match="either steps or minutes"):
        Phase("d", batch=1, steps=1, minutes=1.0)
