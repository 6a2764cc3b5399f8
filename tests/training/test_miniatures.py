"""A miniature of each sample net, trained for seconds on crude faces, sees its loss fall."""

from __future__ import annotations

import json

import pytest
import torch

from pyfacelat.nets.discriminator import DiscriminatorConfig
from pyfacelat.nets.fan import FANConfig
from pyfacelat.nets.identity import IdentityConfig
from pyfacelat.nets.sample_encoder import SampleEncoderConfig
from pyfacelat.nets.stylegan2 import GeneratorConfig
from pyfacelat.training import loop, models
from pyfacelat.training.data import FaceSource, face_set, other_latents
from pyfacelat.training.discriminator_task import DiscriminatorTask
from pyfacelat.training.encoder_task import EncoderTask
from pyfacelat.training.fan_task import FANTask
from pyfacelat.training.fast_generator import FastGenerator
from pyfacelat.training.generator_task import GeneratorTask
from pyfacelat.training.identity_task import IdentityTask
from pyfacelat.training.loop import Phase
from tests.training import crude


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    return tuple(
        face_set(folder, split, 512, 32, source=crude.source()) for split in ("train", "val")
    )


def small_generator():
    config = GeneratorConfig(
        z_dim=crude.Z_DIM,
        w_dim=32,
        img_resolution=32,
        num_mapping_layers=2,
        mapping_lr_multiplier=1.0,
        channels={4: 32, 8: 32, 16: 32, 32: 16},
    )
    return models.new_generator(config, 1)


def rendered(z):
    """Crude faces as a generator gives images, [N, 3, 32, 32] in [-1, 1]."""
    return torch.from_numpy(crude.render(z.numpy(), 32)[0]).permute(0, 3, 1, 2) / 127.5 - 1


def train(task, folder):
    """Numbers before and after."""
    with torch.no_grad():
        folder.mkdir()
        before = task.check(task.phases[-1], folder, "start")
    after = loop.run(task, folder, seed=1, say=lambda line: None)
    assert list(folder.glob("sheet_*.png")) or task.name in ("encoder", "identity")
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == task.phases[-1].steps
    return before, after


def test_generator(faces, tmp_path):
    phases = [
        Phase("16px", batch=16, steps=60, resolution=16, final=0.1),
        Phase("32px", batch=8, steps=50, resolution=32),
    ]
    task = GeneratorTask(small_generator(), *faces, phases, held_count=32)
    before, after = train(task, tmp_path / "run")
    assert after["psnr"] > before["psnr"] + 8 and after["psnr"] > 24


def test_landmark_net(faces, tmp_path):
    net = models.new_fan(FANConfig(num_stacks=1, width=16, depth=1, input_size=32, stem="half"), 1)
    phases = [
        Phase("renders", batch=8, steps=120, final=0.1),
        Phase("generated", batch=8, steps=10, flat=0.0),
    ]
    asked = []

    def generate(z):
        asked.append(len(z))
        return rendered(z)

    task = FANTask(net, *faces, phases, generate=generate, held_count=32, lr=6e-3)
    before, after = train(task, tmp_path / "run")
    assert after["nme"] < 0.5 * before["nme"]
    assert after["nme_generated"] < 2 * after["nme"] and asked.count(3) == 10


def test_generated_faces_need_a_generator(faces, tmp_path):
    net = models.new_fan(FANConfig(num_stacks=1, width=8, depth=1, input_size=32, stem="half"), 1)
    task = FANTask(net, *faces, [Phase("generated", batch=4, steps=1)], held_count=8)
    with pytest.raises(ValueError, match="needs a trained generator"):
        loop.run(task, tmp_path, say=lambda line: None)


def test_encoder(faces, tmp_path):
    config = SampleEncoderConfig(
        z_dim=crude.Z_DIM, input_size=32, widths=(8, 8, 16, 16, 16), hidden=32, window_width=4
    )
    task = EncoderTask(
        models.new_encoder(config, 1),
        *faces,
        [Phase("renders", batch=16, steps=110)],
        held_count=64,
    )
    before, after = train(task, tmp_path / "run")
    # Two of the eight entries of z are invisible, and mirroring hides none.
    assert after["r2_median"] > 0.5 > before["r2_median"]


def test_a_grown_generator_makes_the_same_images():
    small = small_generator()
    config = GeneratorConfig(
        z_dim=crude.Z_DIM + 2,
        w_dim=32,
        img_resolution=64,
        num_mapping_layers=2,
        mapping_lr_multiplier=1.0,
        channels={4: 48, 8: 40, 16: 32, 32: 24, 64: 16},
    )
    large = models.new_generator(config, 2)
    places = [i + (i >= 3) for i in range(crude.Z_DIM)]
    large.load_state_dict(models.grow_generator(small.state_dict(), large, places))
    z = torch.randn(3, crude.Z_DIM, generator=torch.Generator().manual_seed(0))
    z = z / z.square().mean(1, keepdim=True).sqrt()
    wide = torch.ones(3, crude.Z_DIM + 2)  # of the same second moment
    wide[:, places] = z
    with torch.no_grad():
        before, after = FastGenerator(small)(z), FastGenerator(large)(wide, 32)
    torch.testing.assert_close(after, before, rtol=0, atol=2e-5 * float(before.std()) + 1e-5)
    with pytest.raises(ValueError, match="does not fit"):
        models.grow_generator(large.state_dict(), small)


def test_identity_net(faces, tmp_path):
    own = [3, 4, 5]  # the colours of a crude face

    def again(z, size):
        other = other_latents(z)
        other[:, own] = z[:, own]
        return crude.render(other, size)

    source = FaceSource(z_dim=crude.Z_DIM, render=again)
    again_sets = [face_set(tmp_path, split, 256, 32, source=source) for split in ("train", "val")]
    config = IdentityConfig(
        embedding_dim=3,
        input_size=32,
        widths=(8, 8, 16, 16, 16),
        hidden=32,
        stride=1,
        window_width=4,
    )
    task = IdentityTask(
        models.new_identity(config, 1),
        *faces,
        *again_sets,
        own,
        [Phase("pairs", batch=12, steps=90)],
        held_count=64,
    )
    before, after = train(task, tmp_path / "run")
    assert after["r2"] > 0.5 > before["r2"]
    assert after["auc"] > 0.9 and after["same"] > 0.8 > after["other"] + 0.5


def test_discriminator(faces, tmp_path):
    config = DiscriminatorConfig(
        img_resolution=32, channels={4: 16, 8: 16, 16: 16, 32: 8}, mbstd_num_channels=0
    )

    def soft(z):
        return torch.nn.functional.avg_pool2d(rendered(z), 3, 1, 1, count_include_pad=False)

    task = DiscriminatorTask(
        models.new_discriminator(config, 1),
        *faces,
        soft,
        [Phase("pairs", batch=8, steps=60)],
        held_count=64,
    )
    before, after = train(task, tmp_path / "run")
    assert before["accuracy"] < 0.7 and after["accuracy"] > 0.9
