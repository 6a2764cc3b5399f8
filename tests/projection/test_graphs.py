"""Recorded steps: the logic around CUDA graphs, with a stand-in for torch.cuda on the CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import pyfacelat
from pyfacelat.projection.engine import Projector
from pyfacelat.projection.graphs import GraphCache, corresponding
from pyfacelat.projection.readback import Reading
from pyfacelat.projection.runtime import resolve_graph
from pyfacelat.projection.step import Step

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
STEPS = 6


class FakeGraph:
    """Notes the step called while it was captured; replays it."""

    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda = cuda
        self.body: Any = None

    def replay(self) -> None:
        self._cuda.calls.append("replay")
        self.body()


class FakeStream:
    def __init__(self, cuda: FakeCuda, name: str) -> None:
        self._cuda, self.name = cuda, name

    def wait_stream(self, other: FakeStream) -> None:
        self._cuda.calls.append(f"{self.name} waits for {other.name}")


class FakeCuda:
    """The few calls of torch.cuda that capturing needs. Steps report to `stepped`."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fail: Exception | None = None
        self.pools: list[object] = []
        self._capturing: FakeGraph | None = None
        self._main = FakeStream(self, "main")

    def stepped(self, step: Step, body: Any) -> None:
        if self._capturing is not None:
            self.calls.append("captured step")
            self._capturing.body = body
            if self.fail is not None:
                error, self.fail = self.fail, None
                raise error
        elif not self.calls or self.calls[-1] != "replay":
            self.calls.append("step")

    def Stream(self) -> FakeStream:  # noqa: N802 (torch's name)
        return FakeStream(self, "side")

    def current_stream(self) -> FakeStream:
        return self._main

    @contextlib.contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        self.calls.append(f"on {stream.name}")
        yield
        self.calls.append("on main")

    def graph_pool_handle(self) -> object:
        return object()

    def CUDAGraph(self) -> FakeGraph:  # noqa: N802
        return FakeGraph(self)

    @contextlib.contextmanager
    def graph(self, graph: FakeGraph, pool: object) -> Iterator[None]:
        self.pools.append(pool)
        self._capturing = graph
        try:
            yield
        finally:
            self._capturing = None

    def empty_cache(self) -> None:
        self.calls.append("empty cache")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake, original = FakeCuda(), Step.__call__

    def stepped(self: Step) -> None:
        fake.stepped(self, lambda: original(self))
        original(self)

    monkeypatch.setattr(Step, "__call__", stepped)
    return fake


@pytest.fixture
def projector(nets: dict[str, Any], cuda: FakeCuda) -> Projector:
    made = Projector(**nets, steps=STEPS, device="cpu", init="mean")
    made._graphs = GraphCache(cuda=cuda)
    return made


def captures(cuda: FakeCuda) -> int:
    return cuda.calls.count("captured step")


def test_replayed_runs_equal_eager_ones(
    nets: dict[str, Any], projector: Projector, cuda: FakeCuda, look: Tensor, pose: Tensor
) -> None:
    """The second face goes through the graphs of the first, with its own targets and start."""
    eager = Projector(**nets, steps=STEPS, device="cpu", init="mean")
    for first, second in ((look, pose), (pose, look)):
        found, expected = projector.project(first, second), eager.project(first, second)
        assert torch.equal(found.ws, expected.ws)
        for name, values in expected.losses.items():  # NaN where a stage lacks the term
            assert torch.equal(found.losses[name].nan_to_num(-1), values.nan_to_num(-1))
        assert torch.equal(found.history, expected.history)
    assert captures(cuda) == 2  # one for each stage of the preset
    assert cuda.calls.count("replay") == 2 * STEPS
    assert len(set(map(id, cuda.pools))) == 1


def test_noise_maps_are_taken_over(
    nets: dict[str, Any], cuda: FakeCuda, look: Tensor, pose: Tensor
) -> None:
    settings = {**nets, "preset": "reference", "space": "w", "steps": 4, "device": "cpu"}
    eager, graphed = Projector(**settings), Projector(**settings)
    graphed._graphs = GraphCache(cuda=cuda)
    for target in (look, pose):
        found, expected = graphed.project(target), eager.project(target)
        assert torch.equal(found.ws, expected.ws)
        assert all(torch.equal(found.noise[k], expected.noise[k]) for k in expected.noise)
    assert captures(cuda) == 1


def test_warms_up_beside_and_leaves_no_trace(
    projector: Projector, cuda: FakeCuda, look: Tensor
) -> None:
    projector.project(look)
    assert cuda.calls[:8] == [
        "side waits for main", "on side", "step", "step", "on main", "main waits for side",
        "captured step", "replay",
    ]  # fmt: skip


def test_other_shapes_are_captured_anew_and_the_oldest_forgotten(
    projector: Projector, cuda: FakeCuda, look: Tensor
) -> None:
    assert projector._graphs is not None
    for count in (1, 2, 3, 1):
        projector.project(look.expand(count, -1, -1, -1))
    assert captures(cuda) == 8
    assert len(projector._graphs) == 4


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("operation not permitted when stream is capturing"), "pass graph=False"),
        (torch.OutOfMemoryError("out of memory"), "project fewer at a time"),
    ],
)
def test_a_failed_capture_is_named_and_the_next_call_works(
    projector: Projector, cuda: FakeCuda, look: Tensor, error: Exception, message: str
) -> None:
    cuda.fail = error
    with pytest.raises(pyfacelat.DeviceError, match=message):
        projector.project(look)
    assert projector._graphs is not None and len(projector._graphs) == 0
    assert cuda.calls[-1] == "empty cache"
    assert projector.project(look).ws.isfinite().all()


def test_a_callback_sees_the_step_it_is_told_of(
    projector: Projector, look: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyfacelat.projection.loop.CHECK_EVERY", 1)
    seen: list[tuple[int, int]] = []

    def callback(info: pyfacelat.projection.loop.StepInfo) -> bool:
        seen.append((info.step, len(info.losses["total"])))
        return info.step < 3

    result = projector.project(look, callback=callback)
    assert seen == [(1, 1), (2, 1), (3, 1)]
    assert len(result.losses["total"]) == 3


def test_checks_are_settled_late_but_all_of_them(
    projector: Projector, look: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyfacelat.projection.loop.CHECK_EVERY", 1)
    order: list[str] = []
    waited, replayed = Reading.wait, pyfacelat.projection.graphs.GraphedStep.__call__

    def wait(self: Reading) -> dict[str, Tensor]:
        order.append("read")
        return waited(self)

    def replay(self: pyfacelat.projection.graphs.GraphedStep) -> None:
        order.append("step")
        replayed(self)

    monkeypatch.setattr(Reading, "wait", wait)
    monkeypatch.setattr(pyfacelat.projection.graphs.GraphedStep, "__call__", replay)
    projector.project(look)
    assert order.count("read") == order.count("step") == STEPS
    # The first stage has three steps.
    assert order[:6] == ["step", "step", "read", "step", "read", "read"]


def test_what_corresponds() -> None:
    def term(target: Tensor, size: int, **settings: Any) -> Any:
        held = {"scale": target * 2, **settings}
        return lambda x: (x - target).sum() * size + held["scale"].sum()

    a, b = torch.zeros(3), torch.ones(3)
    pairs = corresponding([term(a, 2)], [term(b, 2)])
    assert pairs is not None and len(pairs) == 2
    for old, new in pairs:
        old.copy_(new)
    assert torch.equal(a, b)
    assert corresponding(term(a, 2), term(b, 3)) is None  # another number
    assert corresponding(term(a, 2), term(torch.ones(4), 2)) is None  # another shape
    assert corresponding(term(a, 2), lambda x: x) is None  # another function
    assert corresponding(term(a, 2, odd=object()), term(b, 2, odd=object())) is None  # unknown
    linear = torch.nn.Linear(2, 2)
    assert corresponding(linear, linear) == []
    assert len(corresponding(linear, torch.nn.Linear(2, 2)) or []) == 2


def test_when_steps_are_recorded() -> None:
    assert resolve_graph("auto", CUDA, "torch") and resolve_graph(True, CUDA, "torch")
    assert not resolve_graph("auto", CPU, "torch") and not resolve_graph(False, CUDA, "torch")
    assert not resolve_graph(False, CPU, "torch") and not resolve_graph("auto", CUDA, "onnx")
    with pytest.raises(pyfacelat.errors.ConfigError, match="CUDA devices, and this is 'cpu'"):
        resolve_graph(True, CPU, "torch")
    with pytest.raises(pyfacelat.errors.ConfigError, match="onnx"):
        resolve_graph(True, CUDA, "onnx")
    with pytest.raises(pyfacelat.errors.ConfigError, match='True, False or "auto"'):
        resolve_graph("yes", CPU, "torch")
