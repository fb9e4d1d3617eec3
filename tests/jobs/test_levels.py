"""Scorers that wait for others, through the command line."""

import json

import pyarrow.parquet as pq
import pytest

from chaffinch.jobs.main import main

CONFIG = """\
input: {pool}
output: {output}
store: {output}-store
scorers:
  pictures: {{where: required}}
filters:
  words: {{column: captions.words, keep: WORDS, require: true}}
  entropy: {{column: pictures.entropy, keep: top 60%}}
  size: {{column: pictures.shorter_side, keep: [64, null], require: true}}
keep: {{fraction: 0.4}}
run: {{max_rejected: 0.2}}
"""


def measured(path, output):
    """The rows of the pool that have a picture score, and the folder of the tables."""
    store = path.parent / f"{output}-store" / "scores"
    folders = [folder for folder in store.iterdir() if folder.name.startswith("pictures-")]
    tables = {}
    for folder in folders:
        found = [pq.read_table(file) for file in sorted(folder.glob("*.parquet"))]
        tables[folder.name] = [value for table in found for value in table["entropy"].is_valid().to_pylist()]
    return tables


def words(path, output):
    files = sorted((path.parent / f"{output}-store" / "scores").glob("captions-*/*.parquet"))
    return [value for file in files for value in pq.read_table(file)["words"].to_pylist()]


@pytest.mark.parametrize("bounds", ["[5, null]", "top 50%"])
def test_a_scorer_skips_what_required_filters_drop(config, bounds):
    path = config(CONFIG.replace("WORDS", bounds))
    assert main(["run", str(path), "--quiet"]) == 0
    (rows,) = measured(path, "out").values()
    counts = words(path, "out")
    least = 5 if bounds.startswith("[") else min(count for row, count in zip(rows, counts, strict=True) if row)
    usable = [count is not None for count in counts]
    # Pictures that cannot be measured are rejected; they would have passed.
    assert all(not row or count >= least for row, count in zip(rows, counts, strict=True))
    skipped = sum(good and not row for good, row in zip(usable, rows, strict=True))
    assert 0 < skipped < sum(usable)
    before = json.loads((path.parent / "out" / "summary.json").read_text())
    assert main(["run", str(path), "scorers.pictures.where=all", "--quiet"]) == 0
    after = json.loads((path.parent / "out" / "summary.json").read_text())
    assert {name: after[name] for name in ("read", "rejected")} == {name: before[name] for name in ("read", "rejected")}


def test_a_wider_gate_measures_what_is_new(config):
    path = config(CONFIG.replace("WORDS", "[7, null]"))
    assert main(["score", str(path), "--quiet"]) == 0
    (first,) = measured(path, "out")
    assert main(["score", str(path), "filters.words.keep=[5, null]", "--quiet"]) == 0
    tables = measured(path, "out")
    assert len(tables) == 2
    assert sum(tables[first]) < sum(next(rows for name, rows in tables.items() if name != first))
    assert main(["score", str(path), "filters.entropy.keep=top 10%", "--quiet"]) == 0
    assert measured(path, "out").keys() == tables.keys()


def test_circles_and_unknown_columns_are_refused_before_anything_starts(config, capsys):
    path = config("input: {pool}\noutput: {output}\nscorers:\n  pictures: {{where: sometimes}}\n")
    assert main(["run", str(path)]) == 2
    assert "config.yaml:4: scorers.pictures.where" in capsys.readouterr().err


def test_a_share_of_metadata_gates_scorers_that_wait_for_nothing_else(config):
    """Which samples there are has to be known before the share of a column that was made elsewhere is."""
    path = config(CONFIG.replace("WORDS", "top 50%").replace("captions.words", "metadata.original_width"))
    assert main(["run", str(path), "--quiet"]) == 0
    (rows,) = measured(path, "out").values()
    assert 0 < sum(rows) < len(rows)
