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
    ("vendor", "flags", "best"),
    [
        ("GenuineIntel", "fpu avx512f avx512_bf16 amx_bf16 amx_tile", "bf16"),
        ("GenuineIntel", "fpu avx512f avx512_bf16", "fp32"),
        ("AuthenticAMD", "fpu avx512f avx512_bf16", "bf16"),
        ("AuthenticAMD", "fpu avx2", "fp32"),
        ("", "", "fp32"),
    ],
)
def test_auto_is_bf16_where_that_is_faster(monkeypatch, vendor: str, flags: str, best: str):
    monkeypatch.setattr(device, "_cpuinfo", {"vendor_id": vendor, "flags": flags}.get)
    assert device.precision_on(CPU, "auto") == best
    assert [device.precision_on(CPU, name) for name in ("bf16", "fp32")] == ["bf16", "fp32"]


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40", 181e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA A1000", None),
    ],
)
def test_a_gpus_peak_is_known_by_its_whole_name(name: str, peak: float | None):
    assert device.peak_of(name) == peak


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_a_context_computes_in_its_precision(precision: str, dtype: torch.dtype):
    with device.autocast(precision, CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
