"""A small decided pool with its report."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from chaffinch.jobs.demo.pool import write_pool
from chaffinch.jobs.main import main

CONFIG = """
input: {pool}
output: {output}
store: {store}
filters:
  size: {{column: pictures.shorter_side, keep: [64, null], require: true}}
  shape: {{column: pictures.aspect_ratio, keep: [null, 3], require: true}}
  sharpness: {{column: pictures.sharpness, keep: top 60%, drop: bottom 15%, aspect: picture}}
  contrast: {{column: pictures.contrast, keep: top 70%, drop: bottom 10%, aspect: picture}}
  english: {{kind: language, languages: [en], keep: [0.7, null], drop: [null, 0.3], aspect: language}}
  words: {{column: captions.words, keep: [4, null], drop: [null, 2], aspect: length}}
keep: {{fraction: 0.5}}
run: {{max_rejected: 0.5}}
"""

# What could run as code marks the page, and a browser's test looks for the mark.
MARK = "document.documentElement.dataset.owned = 'yes'"
HOSTILE = {
    "script": f"<script>{MARK}</script>",
    "image": f'"><img src=x onerror="{MARK}">',
    "comment": "<!-- ]]> </style></main> {{ 7 * 7 }} {% raw %} &amp; \u2028 \u202e",
    """it's "q" <b> & 'q' onload=1""": "a plain caption",
    "long": "x" * 5000,
    "control": "\x00\x1b[31m\ufffd",
}
HOSTILE_CONFIG = """
input: {pool}
output: {output}
store: {store}
filters:
  words: {{column: captions.words, keep: [1, null]}}
  length: {{column: captions.characters, keep: top 50%, drop: bottom 20%}}
keep: {{probability: 0}}
run: {{max_rejected: 1}}
"""


@dataclass(frozen=True)
class Decided:
    """An experiment on disk.

    Attributes:
        config: its config file.
        pool: its input.
        output: its folder.
    """

    config: Path
    pool: Path
    output: Path

    @property
    def page(self) -> str:
        return (self.output / "report.html").read_text(encoding="utf-8")

    @property
    def summary(self) -> dict:
        return json.loads((self.output / "summary.json").read_text())


def _write_config(folder, pool, text=CONFIG, **places):
    places = {"pool": pool, "output": folder / "output", "store": folder / "store"} | places
    config = folder / "config.yaml"
    config.write_text(text.format(**places))
    return Decided(config, pool, places["output"])


@pytest.fixture(scope="session")
def write_config():
    """(folder, pool, text, output=, store=) -> a config on disk, nothing run."""
    return _write_config


@pytest.fixture(scope="session")
def rendered_pool(tmp_path_factory):
    """A rendered pool of 120 samples in two shards."""
    folder = tmp_path_factory.mktemp("report-pool") / "pool"
    write_pool(folder, samples=120, shard_size=60, seed=1)
    return folder


@pytest.fixture(scope="session")
def decided(tmp_path_factory, rendered_pool):
    """That pool, run from beginning to end; to be read only."""
    one = _write_config(tmp_path_factory.mktemp("report-run"), rendered_pool)
    assert main(["run", str(one.config), "--quiet"]) == 0
    return one


@pytest.fixture(scope="session")
def hostile_captions():
    """Key -> caption of the hostile pool."""
    return HOSTILE


@pytest.fixture(scope="session")
def hostile(tmp_path_factory, write_shard, sample):
    """A run on a pool whose captions, keys, pictures and shard's name try to be markup; to be read only."""
    folder = tmp_path_factory.mktemp("hostile")
    members = [member for key, caption in HOSTILE.items() for member in sample(key, len(key), caption)]
    members += [("page.jpg", b"<script>alert(1)"), ("page.txt", b"fine"), ("cut.txt", b"no picture")]
    write_shard(folder / "pool" / "<i>shard.tar", members)
    one = _write_config(folder, folder / "pool", HOSTILE_CONFIG)
    assert main(["run", str(one.config), "--quiet"]) == 0
    return one
