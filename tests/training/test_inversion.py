"""E4, P3 and P7: encoders trained on generated faces."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pyfacelat
from pyfacelat import zoo
from pyfacelat.checkpoints import write_safetensors
from pyfacelat.edits.dataset import write_dataset
from pyfacelat.edits.sampling import SampleConfig
from pyfacelat.errors import CheckpointError, ConfigError
from pyfacelat.losses.identity import IdentityDistance
from pyfacelat.nets.e4e import E4E, E4EConfig
from pyfacelat.nets.image_to_latent import ImageToLatent, ImageToLatentConfig
from pyfacelat.nets.stylegan2 import Generator
from pyfacelat.training import loop
from pyfacelat.training.distributed import World, average_gradients, joined
from pyfacelat.training.e4e_task import E4ELosses, E4ETask, Stages
from pyfacelat.training.finder_task import FinderTask, centre_last_layer
from pyfacelat.training.generated import GeneratedFaces
from pyfacelat.training.inversion import EncoderPlan, train_encoder
from pyfacelat.training.loop import Phase
from pyfacelat.training.optimisers import Ranger, Together

from ..projection.conftest import make_generator


@pytest.fixture(scope="module")
def generator() -> Generator:
    return make_generator()


@pytest.fixture(scope="module")
def data(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    return write_dataset(generator, 72, folder, SampleConfig(truncation=1.0))


def tiny_e4e(generator: Generator) -> E4E:
    torch.manual_seed(0)
    config = E4EConfig(
        blocks=(1, 1, 1, 1),
        widths=(8, 8, 16, 16),
        reduction=4,
        num_ws=generator.num_ws,
        w_dim=generator.w_dim,
        input_size=32,
    )
    net = E4E(config)
    net.latent_avg.copy_(generator.mapping.w_avg.expand(generator.num_ws, -1))
    return net


def tiny_finder(generator: Generator) -> ImageToLatent:
    torch.manual_seed(0)
    config = ImageToLatentConfig(
        blocks=(1, 1, 1, 1),
        width=8,
        input_size=32,
        reduced=16,
        hidden=32,
        num_ws=generator.num_ws,
        w_dim=generator.w_dim,
    )
    net = ImageToLatent(config)
    centre_last_layer(net, generator.mapping.w_avg, 0.5)
    return net


def e4e_task(generator: Generator, data: Path, steps: int, **more: Any) -> E4ETask:
    faces = GeneratedFaces.split(data, 32, 8 / 72)
    phases = [Phase("train", batch=4, steps=steps, flat=1.0, warmup=1)]
    return E4ETask(tiny_e4e(generator), generator, *faces, phases, **more)


def quiet(_line: str) -> None:
    pass


def test_e4_stage_schedule() -> None:
    """Row 0 alone for 20,000 steps, then another row every 2,000."""
    stages = Stages()
    table = {0: 0, 19_999: 0, 20_000: 1, 21_999: 1, 22_000: 2, 24_000: 3, 52_000: 17, 300_000: 17}
    assert {step: stages.at(step, 18) for step in table} == table
    assert Stages(2, 1).at(9, 8) == 7
    assert E4ELosses() == E4ELosses(1.0, 0.8, 0.1, 0.1, 2e-4, 10.0, 16)


def test_e4_twenty_steps_of_a_tiny_encoder(
    generator: Generator, data: Path, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    look = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(),
                               torch.nn.Linear(48, 8))  # fmt: skip
    identity = IdentityDistance(look, size=16, crop=None)
    task = e4e_task(
        generator, data, 20, lr=5e-3, stages=Stages(10, 2), identity=identity, scale=0.5
    )
    with torch.no_grad():
        before = task.check(task.phases[0], tmp_path, "start")
    after = loop.run(task, tmp_path / "run", say=quiet)
    assert set(after) == {"held_l2", "held_identity"}
    assert after["held_l2"] < 0.98 * before["held_l2"]
    assert int(task.extra["pooled"]) == 50  # the pool of the discriminator filled up
    assert list((tmp_path / "run").glob("sheet_*.png"))
    # The stage is what the step says, and rows above it are row 0's.
    images = task.train.images(np.arange(2))
    codes = task.encoder.eval().codes(images, 2)
    assert torch.equal(codes[:, 5], codes[:, 0]) and not torch.equal(codes[:, 2], codes[:, 0])


def test_e4_every_term_reaches_what_it_should(generator: Generator, data: Path) -> None:
    """The adversarial term moves the encoder only, the discriminator's loss itself only."""
    task = e4e_task(generator, data, 4, stages=Stages(0, 1), scale=0.5)
    losses = task.losses(task.phases[0], loop.Draw(0, 0, 3))
    assert float(losses["stage"]) == 4 and float(losses["delta"].detach()) > 0
    (losses["adversarial"]).backward(retain_graph=True)
    assert all(p.grad is None for p in task.discriminator.parameters())
    assert any(p.grad is not None for p in task.encoder.parameters())
    task.net.zero_grad(set_to_none=True)
    losses["discriminator"].backward()
    assert all(p.grad is None for p in task.encoder.parameters())
    assert all(p.grad is not None for p in task.discriminator.parameters())
    assert float(losses["loss"].detach()) == pytest.approx(
        float(losses["l2"] + 0.1 * losses["adversarial"] + 2e-4 * losses["delta"])
        + float(losses["discriminator"]), rel=1e-5)  # fmt: skip


def test_e4_a_killed_run_ends_with_the_same_bits(
    generator: Generator, data: Path, tmp_path: Path
) -> None:
    """Ranger's slow weights, the pool and the discriminator are part of the state."""
    make = lambda: e4e_task(generator, data, 9, stages=Stages(3, 2), lr=1e-3)  # noqa: E731
    whole = make()
    numbers = loop.run(whole, tmp_path / "whole", seed=5, say=quiet)
    loop.run(make(), tmp_path / "cut", seed=5, checkpoint_seconds=0, stop_at_step=7, say=quiet)
    resumed = make()
    assert loop.run(resumed, tmp_path / "cut", seed=5, say=quiet) == numbers
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name


def test_p7_validation_loss_falls_and_p3_it_is_a_better_start_than_zeros(
    tmp_path: Path,
) -> None:
    """On 64 faces of a generator whose faces lie on a circle."""
    generator = make_generator(z_dim=2)
    data = write_dataset(generator, 72, tmp_path / "data", SampleConfig(truncation=1.0))
    faces = GeneratedFaces.split(data, 32, 8 / 72)
    assert [len(part) for part in faces] == [64, 8]
    phases = [Phase("train", batch=32, steps=80, flat=1.0, warmup=1, ema=0.9)]
    task = FinderTask(tiny_finder(generator), generator, *faces, phases, scale=0.5, lr=3e-3)
    with torch.no_grad():
        before = task.check(phases[0], tmp_path, "start")
    after = loop.run(task, tmp_path / "run", say=quiet)
    assert after["held_loss"] < 0.8 * before["held_loss"]

    weights, _ = loop.load_ema(tmp_path / "run")
    task.net.load_state_dict(weights)
    images = faces[1].images(np.arange(8))
    ws = pyfacelat.encode(images, task.net, network=generator)
    zeros = loss(generator, torch.zeros_like(ws), images)
    assert float(loss(generator, ws, images).mean()) < float(zeros.mean())


def loss(generator: Generator, ws: Tensor, images: Tensor) -> Tensor:
    return (generator.synthesis(ws) - images).square().mean((1, 2, 3))


def test_train_encoder_writes_what_encode_reads(
    generator: Generator, data: Path, tmp_path: Path
) -> None:
    for kind in ("e4e", "image-to-latent"):
        plan = EncoderPlan(kind=kind, size="small", steps=2, batch=2, perceptual="none")
        said: list[str] = []
        path = train_encoder(data, tmp_path / kind, plan, network=generator, say=said.append)
        net = zoo.load_any_encoder(path)
        assert net.config.num_ws == generator.num_ws and said
        ws = pyfacelat.encode(torch.zeros(3, 32, 32), path, network=generator)
        assert ws.shape == (1, generator.num_ws, generator.w_dim)
        # Within the generator's own latents from the start: the mean and its spread.
        w = generator.mapping(torch.randn(500, generator.z_dim), None)[:, 0]
        assert (ws[0] - w.mean(0)).abs().max() < 8 * float(w.std())
    log = (tmp_path / "e4e" / "log.jsonl").read_text().splitlines()
    assert "held_l2" in json.loads(log[-1])
    # Again: it is finished, and stays what it is.
    content = path.read_bytes()
    assert train_encoder(data, tmp_path / kind, plan, network=generator, say=quiet) == path
    assert path.read_bytes() == content


def test_refusals(generator: Generator, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="kind: expected one of e4e"):
        EncoderPlan(kind="psp")
    with pytest.raises(ConfigError, match="steps: expected at least 1"):
        EncoderPlan(steps=0)
    with pytest.raises(CheckpointError, match="no latents"):
        train_encoder(tmp_path, tmp_path / "x", network=generator)
    other = make_generator(w_dim=8)
    with pytest.raises(ConfigError, match="data: its latents are"):
        train_encoder(data, tmp_path / "x", EncoderPlan(size="small"), network=other)
    with pytest.raises(ConfigError, match="held: 1 of 72"):
        GeneratedFaces.split(data, 32, 1)
    np.save(tmp_path / "wp.npy", np.zeros((3, 8, 16), np.float32))
    with pytest.raises(CheckpointError, match="000002.png.*is missing"):
        GeneratedFaces(tmp_path, 32)


def test_ranger_by_hand() -> None:
    """Two steps of plain RAdam, then the slow weights follow half-way, and the fast ones return."""
    plain = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    ranger = torch.nn.Parameter(plain.detach().clone())
    radam = torch.optim.RAdam([plain], 0.1, betas=(0.95, 0.999), eps=1e-5)
    ours = Ranger([ranger], 0.1, every=2)
    for step in range(2):
        for p in (plain, ranger):
            p.grad = torch.tensor([1.0, 0.5]) * (step + 1)
        radam.step()
        ours.step()
        if step == 0:
            assert torch.equal(plain, ranger)
    start = torch.tensor([1.0, -2.0])
    torch.testing.assert_close(ranger.detach(), start + 0.5 * (plain.detach() - start))


def test_scales_multiply_every_rate() -> None:
    p, q = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    both = Together(torch.optim.SGD([p], 1.0), torch.optim.SGD([q], 2.0))
    both.scale = 0.25
    p.grad, q.grad = torch.ones(1), torch.ones(1)
    both.step()
    assert (float(p), float(q)) == (0.75, 0.5)


def test_alone_nothing_is_shared() -> None:
    with joined(torch.device("cpu")) as (world, device):
        assert world == World() and world.first and device.type == "cpu"
    net = torch.nn.Linear(1, 1)
    assert float(average_gradients(net, {"loss": torch.ones(())}, World())["loss"]) == 1
    assert net.weight.grad is None


SCRIPT = """
import sys
from pathlib import Path
import torch
from pyfacelat import zoo
from pyfacelat.training.inversion import EncoderPlan, train_encoder
torch.set_num_threads(1)
data, out, network, steps = sys.argv[1:]
plan = EncoderPlan(kind="image-to-latent", size="small", steps=int(steps), batch=2)
train_encoder(data, out, plan, network=network, checkpoint_seconds=0, say=print)
"""


def test_two_processes_train_as_one(generator: Generator, data: Path, tmp_path: Path) -> None:
    """Gloo: both go on with equal weights, the first alone writes, and a later run goes on."""
    network = tmp_path / "g.safetensors"
    import dataclasses

    write_safetensors(
        network, "stylegan2-generator", dataclasses.asdict(generator.config), generator.state_dict()
    )
    said = two(data, tmp_path / "run", network, 3)
    assert "image-to-latent train" in said[0] and not said[1].strip()
    assert (tmp_path / "run" / "encoder.safetensors").exists()
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert state["history"][-1]["steps"] == 3
    alone = EncoderPlan(kind="image-to-latent", size="small", steps=3, batch=2)
    train_encoder(data, tmp_path / "alone", alone, network=generator, say=quiet)
    other = torch.load(tmp_path / "alone" / "state.pt", weights_only=True)
    # Another batch beside its own: not what one process alone arrives at.
    name = "dense1.weight"
    assert not torch.equal(state["net"][name], other["net"][name])


def two(data: Path, out: Path, network: Path, steps: int) -> list[str]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    base = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", SCRIPT, *map(str, (data, out, network, steps))]
    started = [
        subprocess.Popen(
            command, env=base | {"RANK": str(rank)}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    ended = [process.communicate(timeout=600) for process in started]
    assert [process.returncode for process in started] == [0, 0], ended[0][1] + ended[1][1]
    return [out for out, _ in ended]


def test_averaged_gradients_equal_those_of_one_batch(tmp_path: Path) -> None:
    """Two processes with half a batch each: gradients and losses of the whole."""
    script = """
import os, sys, torch
from pyfacelat.training.distributed import average_gradients, joined, share
with joined(torch.device("cpu")) as (world, _):
    torch.manual_seed(world.rank)
    net = torch.nn.Linear(3, 2)
    share(net, world)
    x = torch.arange(12.0).reshape(4, 3)[world.rank * 2 :][:2]
    loss = net(x).square().mean()
    loss.backward()
    found = average_gradients(net, {"loss": loss}, world)
    torch.save([net.weight.data, net.weight.grad, found["loss"]], sys.argv[1] + str(world.rank))
"""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    base = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "r")], env=base | {"RANK": str(rank)}
        )
        for rank in range(2)
    ]
    assert [process.wait(600) for process in started] == [0, 0]
    first, second = (torch.load(tmp_path / f"r{rank}", weights_only=True) for rank in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2)
    assert torch.equal(net.weight, first[0])
    whole = net(torch.arange(12.0).reshape(4, 3)).square().mean()
    whole.backward()
    torch.testing.assert_close(net.weight.grad, first[1])
    torch.testing.assert_close(whole.detach(), first[2])
