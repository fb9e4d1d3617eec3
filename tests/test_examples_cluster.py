"""The Slurm scripts and Kubernetes manifests: they parse, and their commands, run on a small pool, curate it.

A stand-in for `chaffinch` writes down how it was called; the calls are then made in this process, in that order.
"""

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from chaffinch.jobs.demo.pool import write_pool
from chaffinch.jobs.main import main

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted((EXAMPLES / "slurm").glob("*.sh"))
# Runs every task of an array at once, as Slurm might, and tells a number as `sbatch --parsable` does.
SBATCH = """\
#!/bin/bash
echo "sbatch $*" >> "$LOG"
array=0-0
for word in "$@"; do
    case "$word" in
        --array=*) array=${word#--array=}; array=${array%\\%*}; shift ;;
        --*) shift ;;
        *) break ;;
    esac
done
for ((task = ${array%-*}; task <= ${array#*-}; task++)); do
    if [[ "$array" = 0-0 ]]; then bash "$@"; else SLURM_ARRAY_TASK_ID=$task bash "$@"; fi
done
echo 4711
"""
CHAFFINCH = '#!/bin/bash\nprintf "%q " chaffinch "$@" >> "$LOG"\necho >> "$LOG"\n'


@pytest.fixture
def play(tmp_path):
    """(command, variables) -> what was called, in order."""
    for name, text in (("sbatch", SBATCH), ("chaffinch", CHAFFINCH)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    log = tmp_path / "log"

    def call(command, **variables):
        log.write_text("")
        environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "LOG": str(log)} | variables
        subprocess.run([str(part) for part in command], env=environment, check=True, stdout=subprocess.DEVNULL)
        return [shlex.split(line) for line in log.read_text().splitlines()]

    return call


@pytest.fixture
def config(tmp_path):
    write_pool(tmp_path / "pool", samples=40, shard_size=8, seed=3)
    path = tmp_path / "web.yaml"
    settings = {
        "input": str(tmp_path / "pool"),
        "output": str(tmp_path / "out"),
        "scorers": {"pictures": {"where": "required"}},  # behind a share of the pool: left by the first slices
        "filters": {
            "words": {"column": "captions.words", "keep": "top 60%", "require": True},
            "entropy": {"column": "pictures.entropy", "keep": "top 60%"},
        },
        "run": {"max_rejected": 1},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def curates(calls, output):
    """Makes the calls and checks that the pool was curated."""
    for call in calls:
        assert main([*call[1:], "--quiet"]) == 0, call
    assert json.loads((output / "summary.json").read_text())["read"] == 40
    assert (output / "shards" / "meta.json").exists()
    assert (output / "report.html").exists()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_stop_at_the_first_failure(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert "set -euo pipefail" in script.read_text()


def test_slurm(play, config):
    calls = play([EXAMPLES / "slurm" / "submit.sh", config, "3", "2"])
    submitted = [call for call in calls if call[0] == "sbatch"]
    assert [[word for word in call if word.startswith(("--array", "--dependency"))] for call in submitted] == [
        ["--array=0-2%2"],
        ["--dependency=afterok:4711"],
        ["--dependency=afterok:4711"],
    ]
    made = [call for call in calls if call[0] == "chaffinch"]
    slices = [["chaffinch", "score", str(config), f"run.slice={number}/3"] for number in range(3)]
    assert made[:4] == [*slices, ["chaffinch", "score", str(config)]]
    assert [call[1] for call in made[4:]] == ["decide", "emit", "report"]
    curates([[*call[:3], *call[3:4]] if call[1] == "score" else call[:3] for call in made], config.parent / "out")


def test_kubernetes(play, config):
    score, curate = (
        yaml.safe_load((EXAMPLES / "kubernetes" / name).read_text()) for name in ("score.yaml", "curate.yaml")
    )
    for job in (score, curate):
        assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
        pod = job["spec"]["template"]["spec"]
        assert pod["restartPolicy"] == "Never"
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    assert score["spec"]["completionMode"] == "Indexed"
    (container,) = score["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": "SLICES", "value": str(score["spec"]["completions"])}]
    pod = curate["spec"]["template"]["spec"]
    steps = [(container, {"JOB_COMPLETION_INDEX": str(index), "SLICES": "2"}) for index in range(2)]
    steps += [(pod["initContainers"][0], {}), (pod["containers"][0], {"WORKERS": "1"})]
    calls = []
    for step, variables in steps:
        calls += play([part.replace("/config/web.yaml", str(config)) for part in step["command"]], **variables)
    assert [call[1] for call in calls] == ["score", "score", "score", "decide", "emit", "report"]
    assert [call[3:] for call in calls[:3]] == [["run.slice=0/2"], ["run.slice=1/2"], []]
    curates(calls, config.parent / "out")
