"""Which implementation runs, and what is refused."""

from __future__ import annotations

import pytest
import torch

import pyfacelat
from pyfacelat import _extension, ops
from pyfacelat.errors import DeviceError


def test_every_op_runs_its_compiled_form_on_the_cpu() -> None:
    assert _extension.load() == ""
    rows = {row["op"]: row for row in pyfacelat.backend_report() if row["device"] == "cpu"}
    assert {"bias_act", "modulated_conv2d", "upfirdn2d"} <= set(rows)
    for row in rows.values():
        assert row["used"] == "cpp", row
        assert row["available"] == ["cpp", "reference"]
        assert row["why_not_faster"] == ""


def test_rows_for_cuda_say_why_nothing_faster_runs() -> None:
    rows = [row for row in pyfacelat.backend_report() if row["device"] == "cuda"]
    assert rows
    for row in rows:
        if row["used"] == "reference" or not torch.cuda.is_available():
            assert row["why_not_faster"]


def test_a_backend_that_an_op_lacks_is_refused() -> None:
    x = torch.zeros(1, 2, 3, 4)
    for name in ("cuda", "triton"):
        message = rf"op 'bias_act' has no '{name}' backend on cpu; it has cpp, reference"
        with _extension.use_backend(name), pytest.raises(DeviceError, match=message):
            ops.bias_act(x)
    with _extension.use_backend("cpp"):
        ops.bias_act(x)


def test_the_reference_runs_although_the_library_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def reference(x: torch.Tensor, *args: object) -> torch.Tensor:
        calls.append(args)
        return x

    x = torch.zeros(3)
    with _extension.use_backend("reference"):
        assert _extension.which("bias_act", "cpu") == "reference"
        assert _extension.call("bias_act", reference, x, None) is x
    assert calls == [(None,)]


def test_an_op_whose_gpu_kernel_is_written_in_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    assert _extension.available("noise_reg", "cuda") == ["triton", "reference"]
    with _extension.use_backend("cuda"):
        assert _extension.which("noise_reg", "cuda") == "triton"
    with _extension.use_backend("triton"), pytest.raises(DeviceError, match="has no 'triton'"):
        _extension.select("bias_act", "cuda")
    monkeypatch.setattr(_extension, "_triton_missing", {"noise_reg"})
    reason = _extension._why_not_faster("noise_reg", "cuda", "reference", ["reference"], {})
    assert "Triton, which is not installed" in reason


def test_backend_names_are_checked_and_restored() -> None:
    with pytest.raises(DeviceError, match="got 'gpu'"), _extension.use_backend("gpu"):
        raise AssertionError("not reached")
    with pytest.raises(KeyError), _extension.use_backend("reference"):
        raise KeyError
    assert _extension.which("bias_act", "cpu") == "cpp"


def test_a_library_that_does_not_load_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    broken = tmp_path / "_ops.abi3.so"  # type: ignore[operator]
    broken.write_bytes(b"not a library")
    for library, reason in ((broken, "does not load"), (broken.with_name("none"), "not there")):
        monkeypatch.setattr(_extension, "LIBRARY", library)
        monkeypatch.setattr(_extension, "_attempted", False)
        monkeypatch.setattr(_extension, "_failure", "")
        assert reason in _extension.load()
        assert _extension.build_info() == {}


def test_a_gpu_without_kernels_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    info = {"cuda_archs": "80 90"}
    for capability, text in (((7, 5), "PYFACELAT_CUDA_ARCHS=75"), ((8, 6), ""), ((12, 0), "")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda c=capability: c)
        note = _extension._device_note("cuda", info)
        assert text in note and bool(note) == bool(text)
