"""A small decided pool with its labelling page."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from chaffinch.jobs.demo.pool import write_pool
from chaffinch.jobs.main import main

CONFIG = """
input: {pool}
output: {output}
filters:
  shape: {{column: pictures.aspect_ratio, keep: [null, 3], require: true}}
  sharpness: {{column: pictures.sharpness, keep: top 60%, drop: bottom 15%, aspect: picture}}
  contrast: {{column: pictures.contrast, keep: top 70%, drop: bottom 10%, aspect: picture}}
  english: {{kind: language, languages: [en], keep: [0.7, null], drop: [null, 0.3], aspect: language}}
keep: {{fraction: 0.5}}
run: {{max_rejected: 0.5}}
"""

# What could run as code marks the page, and a browser's test looks for the mark.
MARK = "document.documentElement.dataset.owned = 'yes'"
HOSTILE = {
    "script": f"</script><script>{MARK}</script>",
    "image": f'"><img src=x onerror="{MARK}">',
    "comment": "<!-- <script> ]]> {{ 7 * 7 }} {% raw %} &amp; \u2028 \u202e\x00\x1b[31m",
    "long": "x" * 5000,
}


@dataclass(frozen=True)
class Labelled:
    """An experiment on disk.

    Attributes:
        config: its config file.
        output: its folder.
    """

    config: Path
    output: Path

    @property
    def page(self) -> str:
        return (self.output / "label.html").read_text(encoding="utf-8")


def _data(page: str) -> dict:
    _, _, rest = page.partition('<script type="application/json" id="data">')
    return json.loads(rest.partition("</script>")[0])


@pytest.fixture(scope="session")
def data():
    """(page) -> what it was made of."""
    return _data


@pytest.fixture(scope="session")
def hostile_captions():
    """Captions of the pool that try to be markup."""
    return [*HOSTILE.values()]


@pytest.fixture(scope="session")
def label_pool(tmp_path_factory, write_shard, sample):
    """Rendered scenes in two shards, and samples whose captions and keys try to be markup."""
    pool = tmp_path_factory.mktemp("label-pool") / "pool"
    write_pool(pool, samples=120, shard_size=60, seed=1)
    members = [member for key, text in HOSTILE.items() for member in sample(f"<i>{key}", len(key), text)]
    write_shard(pool / "<b>hostile.tar", members)
    return pool


@pytest.fixture(scope="session")
def decided(tmp_path_factory, label_pool):
    """That pool, decided and asked about as a whole; to be read only."""
    folder = tmp_path_factory.mktemp("label-run")
    one = Labelled(folder / "config.yaml", folder / "output")
    one.config.write_text(CONFIG.format(pool=label_pool, output=one.output))
    for command in (["score"], ["decide"], ["label", "label.samples=2000"]):
        assert main([command[0], str(one.config), *command[1:], "--quiet"]) == 0
    return one


@pytest.fixture
def own_copy(decided, label_pool, tmp_path):
    """The same experiment with an output of its own and the same store, to be labelled anew."""
    one = Labelled(tmp_path / "config.yaml", tmp_path / "output")
    text = CONFIG.format(pool=label_pool, output=one.output) + f"store: {decided.output / 'store'}\n"
    one.config.write_text(text)
    assert main(["decide", str(one.config), "--quiet"]) == 0
    return one
