"""Tells which device class a run will measure on, without importing torch."""

import glob
import os


def device_class(setting: str) -> str:
    """Turns the setting `run.device` into a device class, which is part of the fingerprint of some scorers.

    Args:
        setting: "auto", "cpu" or "cuda"; auto is cuda where this machine has an NVIDIA device that
            CUDA_VISIBLE_DEVICES does not hide.

    Returns:
        "cpu" or "cuda".

    Raises:
        ValueError: the setting is none of the three.
    """
    if setting not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device {setting!r} is unknown: use auto, cpu or cuda")
    if setting != "auto":
        return setting
    # CUDA reads the list up to the first entry that names no device, so that one at its start hides them all.
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    hidden = first in ("", "-1", "NoDevFiles")
    return "cuda" if not hidden and glob.glob("/dev/nvidia[0-9]*") else "cpu"
