"""Label models by themselves are quick to import: whoever has votes in numpy waits for nothing else."""

import subprocess
import sys

SLOW = ("apache_beam", "pandas", "pyarrow", "pydantic", "scipy", "torch")


def test_nothing_slow_is_loaded_before_it_is_needed():
    program = f"import sys, chaffinch.filters.label_models; print([m for m in {SLOW} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
