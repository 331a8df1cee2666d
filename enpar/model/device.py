"""The device that a process computes on: its CPUs, its name, its memory, what it does best in which precision."""

import os
import platform
import re
import resource
from functools import cache
from pathlib import Path

import torch

# Dense bf16 FLOP/s by what the name of the GPU begins with (NVIDIA's data sheets).
_PEAKS = {
    "NVIDIA H200 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100": 989e12,
    "NVIDIA A100": 312e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA L40": 181e12,
    "NVIDIA L4": 121e12,
    "NVIDIA A10G": 70e12,
}


# oneDNN keeps what it has compiled for each shape of its operands, 1,024 of them by default: with sentences of many
# lengths that is over a gigabyte, for no gain in speed. Large tensors in huge pages save torch a tenth of the time.
# With a heap for each of a process' threads, glibc keeps 0.4 GiB more.
ALLOCATOR = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32", "THP_MEM_ALLOC_ENABLE": "1", "MALLOC_ARENA_MAX": "1"}


def use_cpus(threads: int | None) -> None:
    """Let torch use this many threads (one a CPU by default), and keep its memory in bounds.

    This comes before any computation: each library reads its part of the environment at first use.
    """
    for name, value in ALLOCATOR.items():
        os.environ.setdefault(name, value)
    torch.set_num_threads(threads or os.cpu_count() or 1)


def device_name(device: torch.device) -> str:
    """What a person calls the device, such as `NVIDIA H100 80GB HBM3`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_cpuinfo('model name') or platform.processor() or platform.machine()}, {os.cpu_count()} CPUs"


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context in which a model computes on a device with a precision of auto, bf16 or fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision_on(device, precision) == "bf16")


def precision_on(device: torch.device, precision: str) -> str:
    """What a precision of auto, bf16 or fp32 comes to on a device: bf16 or fp32."""
    return ("bf16" if _fast_in_bf16(device.type) else "fp32") if precision == "auto" else precision


@cache
def _fast_in_bf16(kind: str) -> bool:
    """Whether bf16 is faster than fp32. AVX-512's bf16 doubles the speed on AMD's CPUs, and halves it on Intel's."""
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = _cpuinfo("flags").split()
    return "amx_bf16" in flags or ("avx512_bf16" in flags and _cpuinfo("vendor_id") == "AuthenticAMD")


def _cpuinfo(field: str) -> str:
    """What Linux says of the first CPU; nothing elsewhere."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == field), "")


def peak_flops(device: torch.device) -> float | None:
    """The device's dense bf16 FLOP/s at best; None where it is not known."""
    return peak_of(device_name(device))


def peak_of(name: str) -> float | None:
    """The same by the device's name; an L4 is no L40."""
    return next((peak for prefix, peak in _PEAKS.items() if re.match(rf"{re.escape(prefix)}\b", name)), None)


def peak_memory(device: torch.device) -> int:
    """The most memory so far, in bytes: the tensors' on a GPU, else all that the process had resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
