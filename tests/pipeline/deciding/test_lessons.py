"""Filters that learn from the pool: pass after pass, and not one for those that do not."""

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import chaffinch.filters
from chaffinch.filters.column import Column
from chaffinch.jobs import experiment, kinds
from chaffinch.jobs.demo.pool import write_clean
from chaffinch.jobs.main import main
from chaffinch.pipeline.deciding.judgement import Pool
from chaffinch.pipeline.deciding.lessons import Lessons, teach
from chaffinch.pipeline.metadata import Metadata
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.store import Store

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "extending.md").read_text()


def test_filters_that_do_not_learn_cost_nothing(tmp_path):
    def count(label, parts, function):
        raise AssertionError(label)

    filters = {"words": Column(column="captions.words", keep=(1, None))}
    pool = Pool([], Source(Store(str(tmp_path)), {}, Metadata("none")))
    assert teach(count, pool, filters) == filters


class Numbers:
    """Adds up numbers."""

    def __init__(self, number):
        self.number = number

    def merge(self, other):
        return Numbers(self.number + other.number)


def test_lessons_add_up_filter_by_filter():
    total = Lessons({"a": Numbers(1), "b": Numbers(10)}).merge(Lessons({"a": Numbers(2), "b": Numbers(20)}))
    assert {name: part.number for name, part in total.counted.items()} == {"a": 3, "b": 30}


@pytest.fixture
def unusual_length(tmp_path, monkeypatch):
    """Installs the example of the page, as it stands or changed, and returns a function that decides by it."""
    folder = tmp_path / "filters"
    folder.mkdir()
    monkeypatch.setattr(chaffinch.filters, "__path__", [*chaffinch.filters.__path__, str(folder)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    code = re.search(r"```python\n(# filters/unusual_length.py\n.*?)```", PAGE, re.DOTALL)[1]
    write_clean(tmp_path / "pool", samples=30, shard_size=10, seed=0)
    path = tmp_path / "config.yaml"
    path.write_text(f"input: {tmp_path / 'pool'}\noutput: {tmp_path / 'out'}\nfilters:\n  unusual_length: {{}}\n")

    def forget():
        for cached in (kinds._classes, experiment._code):
            cached.cache_clear()
        sys.modules.pop("chaffinch.filters.unusual_length", None)
        importlib.invalidate_caches()

    def run(*changes):
        changed = code
        for old, new in changes:
            assert old in changed
            changed = changed.replace(old, new)
        (folder / "unusual_length.py").write_text(changed)
        forget()
        return main(["run", str(path), "--quiet"])

    yield run
    forget()


def test_the_example_of_the_page_learns(unusual_length, tmp_path):
    assert unusual_length() == 0
    tables = sorted((tmp_path / "out" / "store" / "scores").glob("captions-*/*.parquet"))
    words = np.concatenate([pq.read_table(path)["words"].to_numpy() for path in tables])
    state = json.loads((tmp_path / "out" / "fitted.json").read_text())
    assert state["judgement"]["learned"] == {"unusual_length": {"mean": words.sum() / 30}}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["filters"]["unusual_length"]["retained"] == (np.abs(words - words.mean()) <= 10).mean()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("return Lengths(", "return 1 / 0 * Lengths("), r"filter kind unusual_length on shard \d+: ZeroDivisionError"),
        (
            ('return {"mean"', 'raise ValueError("no words")\n        return {"mean"'),
            r"filter unusual_length of kind unusual_length: no words",
        ),
    ],
)
def test_a_filter_that_fails_while_it_learns_is_named(unusual_length, capsys, change, problem):
    assert unusual_length(change) == 1
    assert re.search(problem, capsys.readouterr().err)
