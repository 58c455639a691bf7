"""Which devices this machine has, by the names that torch gives them."""

from __future__ import annotations

import torch

from stoker.errors import ConfigError

__all__ = ["available_devices", "resolve_device"]


def available_devices() -> list[str]:
    """The devices that can be computed on, such as ``["cpu", "cuda:0", "cuda:1"]``."""
    if not torch.accelerator.is_available():
        return ["cpu"]
    accelerator = torch.accelerator.current_accelerator()
    kind = "cuda" if accelerator is None else accelerator.type
    return ["cpu", *(f"{kind}:{index}" for index in range(torch.accelerator.device_count()))]


def resolve_device(device: str | torch.device) -> torch.device:
    """The device of that name (``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, ...), known to be there.

    Raises:
        ConfigError: The name is malformed or this machine has no such device.
    """
    available = available_devices()
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"{device!r} does not name a device; available: {', '.join(available)}") from error
    wanted = "cpu" if resolved.type == "cpu" else f"{resolved.type}:{resolved.index or 0}"
    if wanted not in available:
        raise ConfigError(f"device {str(device)!r} is not available here; available: {', '.join(available)}")
    return resolved
