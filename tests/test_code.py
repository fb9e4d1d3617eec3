"""ruff and mypy, so that the test command is one command."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def check(*command, cwd=ROOT):
    done = subprocess.run([sys.executable, "-m", *map(str, command)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing():
    check("ruff", "check", ".")


def test_the_code_is_formatted():
    check("ruff", "format", "--check", ".")


def test_mypy_finds_nothing(tmp_path):
    # mypy does not know that the package's folders lie at the top level: it gets a place where they do not.
    (tmp_path / "chaffinch").symlink_to(ROOT)
    packages = [part for name in ("scoring", "filters", "pipeline", "jobs") for part in ("-p", f"chaffinch.{name}")]
    check("mypy", "--config-file", ROOT / "pyproject.toml", "--cache-dir", os.devnull, *packages, cwd=tmp_path)
