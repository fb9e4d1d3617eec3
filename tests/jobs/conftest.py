import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chaffinch.jobs.demo.pool import write_clean, write_pool
from chaffinch.jobs.main import main

CONFIG = """\
input: {pool}
output: {output}
reference: {trusted}
filters:
  size: {{column: pictures.shorter_side, keep: [64, null], require: true}}
  words: {{column: captions.words, keep: [4, null], drop: [null, 2]}}
  english: {{kind: language, languages: [en], keep: [0.7, null], drop: [null, 0.3], aspect: language}}
  boilerplate: {{}}
  sharpness: {{column: pictures.sharpness, keep: above reference 5%, drop: below reference 1%}}
  entropy: {{column: pictures.entropy, keep: top 60%, drop: bottom 10%}}
keep: {{fraction: 0.4}}
emit: {{samples_per_shard: 40}}
run: {{max_rejected: 0.2}}
"""


def _digests(folder: Path) -> dict[str, str]:
    """Every file below a folder but the timings, and what it holds."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "timings.json"
    }


def _decisions(output: Path) -> pa.Table:
    shards = json.loads((output / "summary.json").read_text())["shards"]
    return pa.concat_tables([pq.read_table(output / "decisions" / f"{shard}.parquet") for shard in shards])


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """A noisy pool of 240 scenes in four shards with its truth, and 60 trusted ones."""
    folder = tmp_path_factory.mktemp("rendered")
    write_pool(folder / "pool", samples=240, shard_size=60, seed=7)
    write_clean(folder / "trusted", samples=60, shard_size=60, seed=7)
    return folder


@pytest.fixture(scope="session")
def config_text():
    """The text of a config; pool, output and trusted are to be filled in."""
    return CONFIG


@pytest.fixture
def config(rendered, tmp_path):
    """Writes a config for the rendered pool and returns its path."""

    def write(text: str = CONFIG, output: str = "out", name: str = "config.yaml", pool: Path | None = None) -> Path:
        path = tmp_path / name
        settings = {"pool": pool or rendered / "pool", "trusted": rendered / "trusted", "output": tmp_path / output}
        path.write_text(text.format(**settings))
        return path

    return write


@pytest.fixture
def run(capsys):
    """Runs a command as the console script does: exit status, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse ends so
            status = int(stop.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def digests():
    return _digests


@pytest.fixture(scope="session")
def decisions():
    return _decisions
