import subprocess
import sys

import pytest

from chaffinch.scoring import devices


@pytest.mark.parametrize(
    ("visible", "files", "expected"),
    [
        (None, ["/dev/nvidia0"], "cuda"),
        (None, [], "cpu"),
        ("0,1", ["/dev/nvidia0", "/dev/nvidia1"], "cuda"),
        ("GPU-1a2b", ["/dev/nvidia3"], "cuda"),
        ("0", [], "cpu"),
        ("", ["/dev/nvidia0"], "cpu"),
        (" ", ["/dev/nvidia0"], "cpu"),
        ("-1", ["/dev/nvidia0"], "cpu"),
        ("-1,0", ["/dev/nvidia0"], "cpu"),
        ("NoDevFiles", ["/dev/nvidia0"], "cpu"),
    ],
)
def test_auto_is_cuda_where_a_device_shows(monkeypatch, visible, files, expected):
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(devices.glob, "glob", lambda pattern: files if pattern == "/dev/nvidia[0-9]*" else [])
    assert devices.device_class("auto") == expected
    assert devices.device_class("cpu") == "cpu"
    assert devices.device_class("cuda") == "cuda"


def test_other_settings_are_refused():
    with pytest.raises(ValueError, match="use auto, cpu or cuda"):
        devices.device_class("cuda:0")


def test_torch_is_not_imported():
    program = (
        "import sys; from chaffinch.scoring.devices import device_class; device_class('auto')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
