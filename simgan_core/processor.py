"""What the processor is and can do, as far as the system tells; without torch, whose import takes seconds."""

from __future__ import annotations

import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
WORKERS = "SIMGAN_WORKERS"
"""Environment variable: processes side by side, where they are not to be as many as torch's threads."""


def cpu_model(cpuinfo: Path = CPUINFO) -> str:
    """The processor's name, or its architecture where the system does not tell."""
    return _first(cpuinfo, "model name") or platform.machine()


def cpu_has_bf16(cpuinfo: Path = CPUINFO) -> bool:
    """Whether this processor multiplies bf16 in hardware; False where the system does not tell."""
    return not _BF16_FLAGS.isdisjoint(_first(cpuinfo, "flags").split())


def usable_cores() -> int:
    """Cores that this process may use, or all of them where the system (macOS) has no such limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _first(cpuinfo: Path, name: str) -> str:
    """The value of the first line of that name; empty where there is none."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
