"""`labels:` from a file to decisions: what a few of them change, and what they say of the pool."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chaffinch.filters.calibration import share_interval

ONE_ASPECT = """\
input: {pool}
output: {output}
filters:
  size: {{column: pictures.shorter_side, keep: [64, null], require: true}}
  words: {{column: captions.words, keep: [4, null], drop: [null, 2]}}
  boilerplate: {{}}
  sharpness: {{column: pictures.sharpness, keep: top 60%, drop: bottom 20%}}
  entropy: {{column: pictures.entropy, keep: top 60%, drop: bottom 10%}}
keep: {{probability: 0.5}}
run: {{max_rejected: 0.2}}
"""


@pytest.fixture
def truth(rendered, decisions):
    """Says of each decided sample that can be used whether it is good: uid -> bool."""

    def read(output):
        told = pq.read_table(rendered / "pool" / "truth.parquet")
        good = dict(
            zip(
                zip(told["shard"].to_pylist(), told["key"].to_pylist(), strict=True),
                told["keep"].to_pylist(),
                strict=True,
            )
        )
        shards = json.loads((output / "summary.json").read_text())["shards"]
        found = {}
        for shard in shards:
            rows = pq.read_table(output / "decisions" / f"{shard}.parquet")
            for uid, key, reason in zip(*(rows[name].to_pylist() for name in ("uid", "key", "reason")), strict=True):
                if not (reason or "").startswith(("rejected", "dropped: required")):
                    found[uid] = good[shard, key]
        return found

    return read


def write_labels(path, labels, drawn="random"):
    rows = "".join(f"{uid},{'true' if keep else 'false'},{drawn}\n" for uid, keep in labels.items())
    path.write_text("uid,keep,drawn\n" + rows)
    return path


@pytest.mark.parametrize("count", [20, 100])
def test_labels_give_the_prior_and_bring_probabilities_nearer_to_the_truth(
    config, run, tmp_path, decisions, truth, count
):
    path = config(ONE_ASPECT)
    assert run("run", path, "--quiet")[0] == 0
    output = tmp_path / "out"
    before, good = decisions(output), truth(output)
    chosen = np.random.default_rng(count).choice(sorted(good), count, replace=False).tolist()
    labels = write_labels(tmp_path / "labels.csv", {uid: good[uid] for uid in chosen} | {"0" * 32: True})
    status, told, said = run("decide", path, f"labels={labels}")
    assert status == 0
    low, high = share_interval(kept := sum(good[uid] for uid in chosen), count)
    assert f"; class prior {(kept + 0.5) / (count + 1):.0%} ({100 * low:.0f}-{100 * high:.0f})" in told
    assert f"labels: 1 of {count + 1} are of samples that are not in this pool" in said
    after, state = decisions(output), json.loads((output / "fitted.json").read_text())
    assert state["labels"]["samples"] == state["labels"]["at_random"] == count
    assert state["labels"]["keep_share_interval"] == list(share_interval(kept, count))
    (aspect,) = state["judgement"]["ensemble"]["aspects"].values()
    assert aspect["model"]["class_prior"] == pytest.approx((kept + 0.5) / (count + 1))
    assert state["labels"]["after"]["log_loss"] <= state["labels"]["before"]["log_loss"]

    def error(table):
        rows = [
            (probability, good[uid])
            for uid, probability in zip(table["uid"].to_pylist(), table["probability"].to_pylist(), strict=True)
            if probability is not None and uid in good and uid not in chosen
        ]
        return float(np.mean([(probability - is_good) ** 2 for probability, is_good in rows]))

    assert error(after) < error(before)

    assert run("report", path, f"labels={labels}", "--quiet")[0] == 0
    page = (output / "report.html").read_text()
    assert "What labels say" in page
    assert f"of the {count} drawn at random" in page

    again = json.loads((output / "fitted.json").read_text())
    assert run("decide", path, f"labels={labels}", "--quiet")[0] == 0
    assert json.loads((output / "fitted.json").read_text()) == again


def test_picked_labels_calibrate_but_say_nothing_of_the_share(config, run, tmp_path, truth):
    path = config(ONE_ASPECT)
    assert run("run", path, "--quiet")[0] == 0
    output = tmp_path / "out"
    good = truth(output)
    labels = write_labels(tmp_path / "labels.csv", dict(list(good.items())[:40]), "picked")
    assert run("decide", path, f"labels={labels}")[0] == 0
    state = json.loads((output / "fitted.json").read_text())
    assert (state["labels"]["at_random"], state["labels"]["keep_share"]) == (0, None)
    (aspect,) = state["judgement"]["ensemble"]["aspects"].values()
    assert aspect["model"]["class_prior"] is None
    assert state["labels"]["calibration"] != {"shift": 0.0, "slope": 1.0}


def test_labels_of_other_pools_change_nothing(config, run, tmp_path, decisions):
    path = config(ONE_ASPECT)
    assert run("run", path, "--quiet")[0] == 0
    before = decisions(tmp_path / "out")
    labels = write_labels(tmp_path / "labels.csv", {"0" * 32: True, "1" * 32: False})
    status, _, said = run("decide", path, f"labels={labels}")
    assert (status, "2 of 2 are of samples" in said) == (0, True)
    assert pa.Table.equals(decisions(tmp_path / "out"), before)


def test_a_broken_file_of_labels_starts_nothing(config, run, tmp_path):
    path = config(ONE_ASPECT)
    (tmp_path / "labels.csv").write_text("uid,keep\nzz,true\n")
    status, _, said = run("score", path, f"labels={tmp_path / 'labels.csv'}")
    assert (status, "'zz' is no uid" in said) == (2, True)
    assert not (tmp_path / "out").exists()
