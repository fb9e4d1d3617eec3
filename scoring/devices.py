"""Devices: which class a run will measure on, which of several GPUs is meant by cuda, and what a lack of memory is.

Torch is imported only where a GPU beyond the first is used, or GPUs are to be described.
"""

import contextlib
import gc
import glob
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

# What a lack of memory is called where an error's class does not tell: by CUDA's libraries, onnxruntime and torch.
_SHORTAGES = (
    "out of memory",
    "alloc_failed",
    "failed to allocate memory",
    "can't allocate memory",
    "not enough memory",
    "bad allocation",
    "bad_alloc",
)

_position: ContextVar[int] = ContextVar("gpu", default=0)


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


@dataclass(frozen=True)
class Gpu:
    """A GPU as torch sees it.

    Attributes:
        name: its model.
        memory: bytes.
        free: bytes that nobody uses now.
        driver: version of the NVIDIA driver, "" where nvidia-smi does not tell.
    """

    name: str
    memory: int
    free: int
    driver: str


def describe_gpus() -> list[Gpu]:
    """The GPUs that torch can use in this process; none where it cannot use any, for whatever reason."""
    import torch

    if not torch.cuda.is_available():
        return []
    program, driver = shutil.which("nvidia-smi"), ""
    if program:
        query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
        lines = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split()
        driver = lines[0] if lines else ""
    found = []
    for position in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(position)
        found.append(Gpu(torch.cuda.get_device_name(position), total, free, driver))
    return found


def gpu_position() -> int:
    """Which of the GPUs that this process sees is meant by "cuda" in this thread: 0 for the first."""
    return _position.get()


@contextlib.contextmanager
def on_gpu(position: int | None) -> Iterator[None]:
    """Lets "cuda" mean one of several GPUs, in this thread and inside the block.

    Scorers are told "cuda", not "cuda:1": torch goes by its current device, and other libraries by `gpu_position`.

    Args:
        position: place among the GPUs that this process sees; None where no GPU is used.

    Raises:
        RuntimeError: torch sees no such GPU.
    """
    if not position:  # the first is the one that is meant anyway, and torch takes seconds to import
        yield
        return
    import torch

    token = _position.set(position)
    try:
        with torch.cuda.device(position):
            yield
    finally:
        _position.reset(token)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was short, on a GPU or on the host, whatever library raised it."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    if error.__cause__ is not None and is_out_of_memory(error.__cause__):
        return True
    library = type(error).__module__.partition(".")[0] in ("torch", "onnxruntime") or isinstance(error, RuntimeError)
    return library and any(word in str(error).lower() for word in _SHORTAGES)


def free_memory() -> None:
    """Gives back what nothing holds any more; torch would keep it for its own next use."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
