"""Mimic scores at two steps, made elsewhere: learned, decided on, reported, applied unchanged to another pool."""

import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from chaffinch.filters.binarising import Binariser, fit_binariser

MIMIC = {"kind": "mimic_steps", "column": "metadata.mimic_score", "binariser": "two_means"}


def write_scores(pool, spread=1.0):
    """Two steps' scores beside each shard, around 20 for good samples and 10 for the others; in the second, one group.

    The last sample of a shard was never seen.
    """
    rng = np.random.default_rng(0)
    found = []
    for tar in sorted(pool.glob("*.tar")):
        with tarfile.open(tar) as archive:
            keys = list(dict.fromkeys(name.partition(".")[0] for name in archive.getnames()))
        good = rng.random(len(keys)) < 0.7
        scores = rng.normal(np.where(good, 20, 10), spread).astype(np.float32)
        rows = [
            [score, 5 + float(draw)] for score, draw in zip(scores.tolist(), rng.normal(size=len(keys)), strict=True)
        ]
        rows[-1] = None
        pq.write_table(
            pa.table({"key": keys, "mimic_score": pa.array(rows, pa.list_(pa.float32()))}),
            tar.with_suffix(".parquet"),
        )
        found += list(zip(keys, rows, good.tolist(), strict=True))
    return found


@pytest.fixture
def pool(tmp_path, small_pool):
    """160 samples in four shards, and key, row of scores and goodness of each."""
    small_pool(tmp_path / "pool", shards=4, samples=40)
    return write_scores(tmp_path / "pool")


@pytest.fixture
def config(tmp_path, pool):
    """Writes a config whose filters are given."""

    def write(output="out", **sections):
        content = {
            "input": str(tmp_path / "pool"),
            "output": str(tmp_path / output),
            "store": str(tmp_path / "store"),
            "filters": {"mimic": MIMIC},
        }
        path = tmp_path / f"{output}.yaml"
        path.write_text(yaml.safe_dump(content | sections))
        return path

    return write


def kept(folder):
    tables = [pq.read_table(path) for path in sorted((folder / "decisions").glob("*.parquet"))]
    table = pa.concat_tables(tables)
    return table.filter(table["keep"])["key"].to_pylist()


def test_the_pool_decides_what_each_step_keeps(config, run, pool, tmp_path):
    status, out, err = run("run", config(filters={"mimic": MIMIC | {"steps": [0, 0]}}))
    assert status == 0, err
    assert kept(tmp_path / "out") == [key for key, row, good in pool if good and row]
    state = json.loads((tmp_path / "out" / "fitted.json").read_text())
    (step,) = state["judgement"]["learned"]["mimic"]["steps"]
    first = np.array([row[0] if row else np.nan for _, row, _ in pool])[:, None]
    (rule,) = fit_binariser(first, Binariser("two_means"))
    assert (step["kind"], step["threshold"], step["judged"]) == ("two_means", rule.threshold, 156)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["filters"]["mimic"]
    good = sum(good for _, row, good in pool if row)
    assert summary["retained"] == pytest.approx(good / 156)
    assert summary["steps_retained"] == [good / 156]
    assert f"quality by mimic: {good / 156:.1%} retained\n" in out
    assert (tmp_path / "out" / "report.html").is_file()
    beside = pq.read_table(tmp_path / "out" / "shards" / "00000000.parquet")
    first = next(row for _, row, good in pool if good and row)
    assert beside["metadata.mimic_score"].to_pylist()[0] == pytest.approx(first, rel=1e-6)


def test_a_step_with_one_group_is_told(config, run, tmp_path):
    status, out, _ = run("run", config())
    assert status == 0
    assert "(steps: 6" in out or "(steps: 7" in out
    assert "100.0%); by the sign at step 1: one group" in out
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["filters"]["mimic"]["steps_by_sign"] == {
        "1": "one group"
    }


@pytest.mark.parametrize(
    ("binariser", "aggregate"),
    [("sign", "majority"), ("share", "mean"), ("softmax", "label_model"), ("mixture", "label_model")],
)
def test_every_way_runs_and_again_changes_nothing(config, run, tmp_path, digests, binariser, aggregate):
    mimic = MIMIC | {"binariser": binariser, "aggregate": aggregate} | ({"share": 0.5} if binariser == "share" else {})
    filters = {"mimic": mimic, "words": {"column": "captions.words", "keep": [2, None]}}
    path = config(filters=filters, keep={"fraction": 0.3}, ensemble={"label_model": "majority"})
    assert run("run", path)[0] == 0
    before = digests(tmp_path / "out")
    assert run("decide", path)[0] == 0
    assert digests(tmp_path / "out").items() >= {k: v for k, v in before.items() if k != "timings.json"}.items()
    for folder in ("decisions", "fitted.json"):
        (tmp_path / "out" / folder).rename(tmp_path / f"old {folder}")
    assert run("decide", path, "run.workers=2")[0] == 0
    assert (tmp_path / "out" / "fitted.json").read_bytes() == (tmp_path / "old fitted.json").read_bytes()
    assert digests(tmp_path / "out" / "decisions") == digests(tmp_path / "old decisions")


def test_a_veto_spares_scorers_what_it_drops(config, run, pool, tmp_path):
    scorers = {"pictures": {"where": "required"}}
    filters = {
        "words": {"column": "captions.words", "keep": [1, None], "require": True},
        "mimic": MIMIC | {"require": True, "steps": [0, 0]},
        "size": {"column": "pictures.shorter_side", "keep": [1, None]},
    }
    status, _, err = run("run", config(scorers=scorers, filters=filters))
    assert status == 0, err
    bad = {key for key, row, good in pool if row and not good}
    assert set(kept(tmp_path / "out")) == {key for key, _, _ in pool} - bad
    (folder,) = (tmp_path / "store" / "scores").glob("pictures-*")
    samples = pa.concat_tables(pq.read_table(p) for p in sorted((tmp_path / "store" / "samples").glob("*.parquet")))
    measured = pa.concat_tables(pq.read_table(p) for p in sorted(folder.glob("*.parquet")))
    skipped = samples["key"].filter(pc.is_null(measured["shorter_side"])).to_pylist()
    assert set(skipped) == bad


def test_ranges_may_lean_on_a_reference_scored_by_what_the_pool_taught(config, run, small_pool, tmp_path):
    small_pool(tmp_path / "trusted", shards=1, samples=30)
    trusted = write_scores(tmp_path / "trusted")
    mimic = {"kind": "mimic_steps", "column": "metadata.mimic_score", "aggregate": "mean", "steps": [0, 0]}
    path = config(reference=str(tmp_path / "trusted"), filters={"mimic": mimic | {"keep": "above reference 20%"}})
    status, _, err = run("run", path)
    assert status == 0, err
    scores = sorted(row[0] for _, row, _ in trusted if row)
    state = json.loads((tmp_path / "out" / "fitted.json").read_text())["judgement"]
    assert state["ranges"]["mimic"]["keep"] == [pytest.approx(scores[5]), None]  # of 29, the sixth
    assert state["learned"]["mimic"]["steps"][0]["judged"] == 156


def test_fitted_numbers_are_applied_unchanged(config, run, tmp_path, small_pool):
    path = config(filters={"mimic": MIMIC | {"steps": [0, 0]}})
    assert run("run", path)[0] == 0
    small_pool(tmp_path / "other", shards=1, samples=30)
    new = write_scores(tmp_path / "other", spread=0.0)  # 10 or 20: another cut would do, but is not looked for
    fitted = tmp_path / "out" / "fitted.json"
    settings = (f"input={tmp_path / 'other'}", f"output={tmp_path / 'new'}", f"store={tmp_path / 'new store'}")
    assert run("score", path, *settings)[0] == 0
    status, out, err = run("decide", path, *settings, f"fitted={fitted}")
    assert status == 0, err
    assert kept(tmp_path / "new") == [key for key, row, good in new if good and row]
    before, after = (json.loads(file.read_text()) for file in (fitted, tmp_path / "new" / "fitted.json"))
    assert after["judgement"]["learned"] == before["judgement"]["learned"]
    good = sum(good for _, row, good in new if row)
    assert f"quality by mimic: {good / 29:.1%} retained\n" in out  # of the new pool
    status, _, err = run("decide", path, *settings, f"fitted={fitted}", "filters.mimic.aggregate=mean")
    assert status == 2
    assert "its numbers for mimic were learned with other settings" in err


def test_what_is_wrong_with_a_column_is_told(config, run):
    status, _, err = run("run", config(filters={"mimic": {"column": "metadata.mimic_score", "keep": "top 30%"}}))
    assert status == 2
    assert "filters.mimic.column: column 'metadata.mimic_score' holds list" in err
    assert "not one number per sample" in err
    assert "kind: mimic_steps" in err
    status, _, err = run("run", config(filters={"mimic": MIMIC | {"column": "captions.text"}}))
    assert status == 2
    assert "filters.mimic.column: column 'captions.text' holds string: name one with a mimic score per sample" in err
    status, _, err = run("run", config(filters={"mimic": MIMIC | {"binariser": "share"}}))
    assert status == 2
    assert "filters.mimic: binariser: share needs share:" in err
    status, _, err = run("run", config(filters={"mimic": MIMIC | {"steps": [7, 9]}}))
    assert status == 1
    assert "steps: [7, 9]: column 'metadata.mimic_score' has but 2, counted from 0" in err
