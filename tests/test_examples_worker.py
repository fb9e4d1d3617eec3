"""The script that sets a machine up for workers, as an administrator would use it, and a pool that it starts.

What takes minutes and a network, the packages that Chaffinch needs, is lent by the environment that runs the tests.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "examples" / "worker.sh"
VERSION = "0.0.9"
TIMEOUT = 60

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def write_wheel(folder: Path) -> Path:
    """This very code as a wheel, though called an older version; pip can install it without a network."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    path = folder / f"chaffinch-{VERSION}-py3-none-any.whl"
    about = f"chaffinch-{VERSION}.dist-info"
    scripts = "\n".join(f"{name} = {place}" for name, place in settings["project"]["scripts"].items())
    texts = {
        "METADATA": f"Metadata-Version: 2.1\nName: chaffinch\nVersion: {VERSION}\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "entry_points.txt": f"[console_scripts]\n{scripts}\n",
    }
    with zipfile.ZipFile(path, "w") as wheel:
        for package in settings["tool"]["setuptools"]["packages"]:
            place = Path(*package.split(".")[1:])
            for file in (ROOT / place).iterdir():
                if file.is_file():
                    wheel.write(file, Path("chaffinch") / place / file.name)
        for name, text in texts.items():
            wheel.writestr(f"{about}/{name}", text)
        names = [*wheel.namelist(), f"{about}/RECORD"]
        wheel.writestr(f"{about}/RECORD", "".join(f"{name},,\n" for name in names))
    return path


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    """(arguments, variables) -> what the script did, on a machine of its own, where it has installed Chaffinch."""
    home = tmp_path_factory.mktemp("worker")
    lent = sysconfig.get_path("purelib", "venv", {"base": str(home / "venv")})
    Path(lent).mkdir(parents=True)
    (Path(lent) / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    # Nothing of the tests' own settings; what is installed beside Chaffinch is lent by their environment.
    known = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "HF_", "PIP_"))}
    known |= {
        "HOME_OF_WORKERS": str(home),
        "SOURCE": str(write_wheel(home)),
        "PYTHON": sys.executable,
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
    }

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [str(SCRIPT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=known | variables, timeout=TIMEOUT, cwd=home)

    def start(*arguments: str, **variables: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([str(SCRIPT), *arguments], env=known | variables, cwd=home, start_new_session=True)

    run.start = start
    before = run("run", "true")
    assert before.returncode == 1
    assert "nothing is installed" in before.stderr
    done = run("install")
    assert done.returncode == 0, done.stderr
    assert f"installed: chaffinch {VERSION}" in done.stdout
    return run


def test_help_says_what_to_do(call):
    done = call()
    assert done.returncode == 2
    assert "worker.sh install" in done.stderr
    assert "OMP" not in done.stderr.splitlines()[0]


def test_another_python_is_refused(call, tmp_path):
    other = tmp_path / "python3.9"
    other.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.1" || exit 1\n')
    other.chmod(0o755)
    done = call("install", PYTHON=str(other), HOME_OF_WORKERS=str(tmp_path / "home"))
    assert done.returncode == 1
    assert "Python 3.9.1 will not do" in done.stderr
    assert not (tmp_path / "home").exists()


def test_weights_are_checked(call, tmp_path):
    (tmp_path / "b32.pt").write_bytes(b"weights")
    digests = subprocess.run(["sha256sum", "b32.pt"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    (tmp_path / "weights.sha256").write_text(digests)
    done = call("weights", str(tmp_path / "weights.sha256"))
    assert (done.returncode, done.stdout) == (0, "weights: 1 files are as listed\n")
    (tmp_path / "b32.pt").write_bytes(b"others!")
    assert call("weights", str(tmp_path / "weights.sha256")).returncode == 1
    (tmp_path / "b32.pt").unlink()
    done = call("weights", str(tmp_path / "weights.sha256"))
    assert done.returncode == 1
    assert "missing or others" in done.stderr


def test_the_environment_of_workers(call):
    show = "import json, os, sys; print(json.dumps(dict(os.environ) | {'prefix': sys.prefix}))"

    def environment(**variables: str) -> dict[str, str]:
        done = call("run", "python", "-c", show, **variables)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    cores = len(os.sched_getaffinity(0))
    found = environment(WORKERS="1")
    assert found["OMP_NUM_THREADS"] == str(cores)
    assert found["HF_HUB_OFFLINE"] == found["TRANSFORMERS_OFFLINE"] == "1"
    assert found["prefix"] == found["PATH"].partition(":")[0].removesuffix("/bin")
    assert environment(WORKERS=str(2 * cores))["OMP_NUM_THREADS"] == "1"
    assert environment(THREADS="3")["OMP_NUM_THREADS"] == "3"
    assert "HF_HUB_OFFLINE" not in environment(ONLINE="1")


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ends a process and all that it has started."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        assert process.poll() is None, "it ended"
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
            return
        time.sleep(0.1)
    pytest.fail(f"nothing answers on port {port}")


def test_a_pool_works_and_the_doctor_sees_what_is_other_there(call, tmp_path, small_pool):
    """Beam's own job server, in Python, in place of Flink's; the pool's environment holds another version."""
    pool, server = free_port(), free_port()
    config = tmp_path / "config.yaml"
    filters = {"words": {"column": "captions.words", "keep": [1, None]}}
    settings = {"input": str(small_pool(tmp_path / "pool")), "output": str(tmp_path / "out"), "filters": filters}
    config.write_text(yaml.safe_dump(settings))
    workers = call.start("start", PORT=str(pool))
    job_server = subprocess.Popen(
        [sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main", f"--job_port={server}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with ended(workers), ended(job_server):
        wait_for(pool, workers)
        wait_for(server, job_server)
        options = [f"--job_endpoint=localhost:{server}", "--runner=PortableRunner", "--environment_type=EXTERNAL"]
        command = [sys.executable, "-m", "chaffinch.jobs.main", "doctor", str(config), "--", *options]
        command.append(f"--environment_config=localhost:{pool}")
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * TIMEOUT)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert re.search(r"^ok +workers: \d+ process", done.stdout, re.MULTILINE), done.stdout
    versions = next(line for line in lines if "versions: " in line)
    assert versions.startswith("wrong ")
    assert f"and {VERSION} in process" in versions
    assert any(line.startswith("ok ") and "scorer captions: " in line for line in lines)
    offline = next(line for line in lines if "offline: " in line)
    assert offline.startswith("warning ") or os.environ.get("TRANSFORMERS_OFFLINE") == "1"
    assert "chaffinch: wrong: versions" in done.stderr
