"""Which device, and which number format pays there.

bf16 autocast is two to three times *faster* than fp32 on processors with bf16 units and three to four times *slower*
on those that emulate it, so 'auto' looks before it chooses.
"""

from __future__ import annotations

import torch

from simgan_core.config import Precision
from simgan_core.processor import cpu_has_bf16


def resolve_device(device: str) -> torch.device:
    """The torch device for a setting; 'auto' is CUDA where there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device is {device!r}; expected 'auto', 'cpu', 'cuda' or 'cuda:0'.") from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but torch finds no CUDA here; use 'auto' or 'cpu'.")
    return resolved


def autocast(device: torch.device) -> torch.autocast:
    """bf16 autocast where `device` computes in bf16; elsewhere a context that changes nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=resolve_precision("auto", device) == "bf16")


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """'fp32' or 'bf16' for a setting on a device; 'auto' picks bf16 only where the hardware has it."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp32"
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "fp32"
