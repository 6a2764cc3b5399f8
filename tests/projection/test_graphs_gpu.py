"""On a GPU: a recorded step gives the eager loop's bits, and no step waits for the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from pyfacelat.projection.engine import Projector
from pyfacelat.projection.graphs import GraphCache, GraphedStep
from pyfacelat.projection.step import Step

pytestmark = pytest.mark.gpu

PRESETS = ["balanced", "reference"]


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    yield
    torch.backends.cudnn.deterministic = before


@pytest.mark.parametrize("preset", PRESETS)
def test_replay_equals_the_eager_loop(
    nets: dict[str, Any], look: Tensor, pose: Tensor, preset: str
) -> None:
    """Two faces, so that the second takes the first one's graphs over."""
    settings: dict[str, Any] = {**nets, "preset": preset, "steps": 45, "device": "cuda"}
    eager, graphed = Projector(**settings, graph=False), Projector(**settings, graph=True)
    for first, second in ((look, pose), (pose, look)):
        expected, found = eager.project(first, second), graphed.project(first, second)
        assert torch.equal(found.ws, expected.ws)
        assert torch.equal(found.history, expected.history)
        for name, values in expected.losses.items():
            assert torch.equal(found.losses[name].nan_to_num(-1), values.nan_to_num(-1))
        for name, values in expected.noise.items():
            assert torch.equal(found.noise[name], values)
    assert graphed._graphs is not None and len(graphed._graphs) == len(graphed.config.stages)


@pytest.mark.parametrize("preset", PRESETS)
def test_no_step_waits_for_the_host(
    nets: dict[str, Any], look: Tensor, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (Step, GraphedStep):
        original = kind.__call__

        def strict(self: Any, original: Any = original) -> None:
            if torch.cuda.is_current_stream_capturing():
                return original(self)
            torch.cuda.set_sync_debug_mode("error")
            try:
                return original(self)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        monkeypatch.setattr(kind, "__call__", strict)
    for graph in (False, True):
        Projector(
            **nets, preset=preset, steps=4, device="cuda", graph=graph
        ).project(look)  # fmt: skip


def test_a_step_that_waits_is_refused_and_the_next_call_works(
    nets: dict[str, Any], look: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyfacelat

    projector = Projector(**nets, steps=4, device="cuda", graph=True)
    original = Step.__call__

    def waits(self: Step) -> None:
        original(self)
        self.buffers.counter.item()

    with monkeypatch.context() as patch:
        patch.setattr(Step, "__call__", waits)
        with pytest.raises(pyfacelat.DeviceError, match="graph=False"):
            projector.project(look)
    assert projector.project(look).ws.isfinite().all()


def test_a_replay_is_one_launch(nets: dict[str, Any], look: Tensor) -> None:
    """The host makes one call a step; the kernels in it are counted by `bench.gpu_step`."""
    calls: list[Step] = []
    projector = Projector(**nets, steps=4, device="cuda", graph=True)
    projector.project(look)
    original = Step.__call__

    def counted(self: Step) -> None:
        calls.append(self)
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Step, "__call__", counted)
        projector.project(look)
    assert calls == []
    cache = projector._graphs
    assert isinstance(cache, GraphCache)
