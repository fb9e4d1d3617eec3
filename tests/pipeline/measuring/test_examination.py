"""The doctor and the plan where nothing is local: input, store and output on an object store."""

import contextlib
import io
import json

import pytest
import yaml

from chaffinch.jobs.main import main


@pytest.fixture
def config(remote, tmp_path, small_pool):
    """A config whose pool lies on the object store; a function of the output."""
    remote.upload(small_pool(tmp_path / "pool", shards=2, samples=4), "pool")

    def write(output: str) -> str:
        filters = {"words": {"column": "captions.words", "keep": [1, None]}}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({"input": "s3://bucket/pool", "output": output, "filters": filters}))
        return str(path)

    return write


def told(*arguments: str) -> tuple[int, str]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        return main([*arguments]), out.getvalue()


def test_the_doctor_writes_and_cleans_up_on_an_object_store(remote, config):
    status, out = told("doctor", config("s3://bucket/out"), "--json", "--", *remote.options)
    checks = {check["name"]: check for check in json.loads(out)["checks"]}
    assert status == 0, out
    assert {check["status"] for check in checks.values()} == {"ok"}
    assert "free" not in checks["folder s3://bucket/out"]["message"]
    assert remote.content("out") == {}


def test_a_bucket_that_is_not_there(remote, config):
    status, out = told("doctor", config("s3://nobodys/out"), "--", *remote.options)
    assert status == 1
    line = next(line for line in out.splitlines() if "folder s3://nobodys/out:" in line)
    assert line.startswith("wrong ")
    assert "cannot be written to" in line


def test_a_plan_leaves_nothing_there(remote, config):
    status, out = told("plan", config("s3://bucket/out"), "sample=1", "--json", "--", *remote.options)
    assert status == 0
    assert json.loads(out)["samples"] == {"input": 8}
    assert json.loads(out)["output_bytes"]["shards"] > 0
    assert remote.content("out") == {}
