import pytest
import torch

from enpar.model import device

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _asked_anew():
    device._fast_in_bf16.cache_clear()
    yield
    device._fast_in_bf16.cache_clear()


@pytest.mark.parametrize(
    ("flags", "best"),
    [("fpu avx512f avx512_bf16 amx_bf16 amx_tile", "bf16"), ("fpu avx512f avx512_bf16", "fp32"), ("", "fp32")],
)
def test_auto_is_bf16_where_the_cpu_has_amx(monkeypatch, flags: str, best: str):
    monkeypatch.setattr(device, "_cpuinfo", {"flags": flags}.get)
    assert device.precision_on(CPU, "auto") == best
    assert [device.precision_on(CPU, name) for name in ("bf16", "fp32")] == ["bf16", "fp32"]


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_a_context_computes_in_its_precision(precision: str, dtype: torch.dtype):
    with device.autocast(precision, CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
