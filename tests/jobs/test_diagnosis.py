"""What a run tells of its ensemble: on the terminal, in summary.json and fitted.json, and on the report's page."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chaffinch.jobs.decide import show
from chaffinch.jobs.diagnosis import tell_accuracy, tell_aspects, tell_misfits
from chaffinch.jobs.main import main

CONFIG = """\
input: {pool}
output: {output}
store: {store}
metadata: beside
filters:
  size: {{column: pictures.shorter_side, keep: [8, null], require: true}}
  clip: {{column: metadata.clip, keep: top 50%}}
  again: {{column: metadata.again, keep: top 50%}}
  l14: {{column: metadata.l14, keep: top 50%}}
  boxes: {{column: metadata.boxes, keep: top 50%}}
  duplicates: {{column: metadata.repeats, keep: [null, 0]{own}}}
keep: {{fraction: 0.4}}
"""
SAMPLES = 1200


@pytest.fixture(scope="module")
def pool(tmp_path_factory, write_shard, sample):
    """A pool whose scores are beside it: four see the match, two of them nearly the same; duplicates look clean."""
    folder = tmp_path_factory.mktemp("diagnosed") / "pool"
    keys = [f"{number:05d}" for number in range(SAMPLES)]
    write_shard(folder / "00000.tar", [member for key in keys for member in sample(key, int(key), f"words of {key}")])
    generator = np.random.default_rng(0)
    repeats = generator.random(SAMPLES) < 0.15
    match = ((generator.random(SAMPLES) < 0.5) | repeats).astype(float)
    columns = {name: match + generator.normal(0, spread, SAMPLES) for name, spread in (("clip", 0.5), ("l14", 0.6))}
    columns |= {"boxes": match + generator.normal(0, 0.7, SAMPLES)}
    columns |= {"again": columns["clip"] + generator.normal(0, 0.05, SAMPLES), "repeats": repeats.astype(float)}
    table = {name: pa.array(values, pa.float32()) for name, values in columns.items()}
    pq.write_table(pa.table({"key": keys, **table}), folder / "00000.parquet")
    return folder


@pytest.fixture(scope="module")
def store(pool):
    return pool.parent / "store"


def decide(config, capsys):
    assert main(["run", str(config)]) == 0
    return capsys.readouterr()


def write(tmp_path, pool, store, own=""):
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(pool=pool, output=tmp_path / "out", store=store, own=own))
    return path


def test_a_run_tells_how_sure_it_is_and_what_stands_wrong(pool, store, tmp_path, capsys, parse):
    path = write(tmp_path, pool, store)
    said = decide(path, capsys)
    warnings = [line for line in said.err.splitlines() if line.startswith("warning: filter ")]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: filter duplicates, aspect quality: ")
    assert "give it `aspect: duplicates`, or `require: true`" in warnings[0]
    lines = said.out.splitlines()
    assert lines[0].split()[-2:] == ["accuracy", "weight"]
    clip = next(line for line in lines if line.startswith("clip "))
    assert re.search(r" \d+% \(\d+-\d+\) ", clip)
    sources = next(line for line in lines if line.startswith("aspect quality: "))
    assert float(re.search(r"5 filters count as ([\d.]+) independent", sources)[1]) < 4.5
    assert "clip and again 0." in sources
    assert re.search(r"; class prior \d+% \(\d+-\d+\)", sources)
    assert "1 filter does not belong where it stands: see the warnings" in lines

    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    state = json.loads((tmp_path / "out" / "fitted.json").read_text())
    assert show(summary) + "\n" == said.out
    assert summary["findings"] == state["diagnosis"]["findings"]
    assert summary["filters"]["clip"]["accuracy_interval"][0] < summary["filters"]["clip"]["accuracy"]
    assert state["order"]["wanted"] == round(0.4 * SAMPLES)

    again = main(["decide", str(path)]), capsys.readouterr().err
    assert again[0] == 0
    assert again[1].count("warning: filter duplicates") == 1  # said again, although nothing was fitted again

    page = parse((tmp_path / "out" / "report.html").read_text())
    section = next(one for one in page.find("section") if one.attributes["id"] == "ensemble")
    assert "duplicates does not belong to the aspect quality" in section.find("p", "finding")[0].words
    rows = section.find("table", "patterns")[0].find("tbody")[0].find("tr")
    patterns = state["diagnosis"]["patterns"]["patterns"]
    assert [row.find("td")[-2].words for row in rows] == [f"{one['samples']:,}" for one in patterns[:40]]
    assert [row.find("td")[-1].words for row in rows] == [f"{one['probability']:.3f}" for one in patterns[:40]]
    sure = section.find("table", "sureness")[0].find("tbody")[0].find("tr")
    assert [row.find("th")[0].text.strip() for row in sure] == list(summary["filters"])
    assert sum(len(row.find("span", "range")) for row in sure) == 5
    assert section.find("div", "chart")[0].attributes["id"] == "chart-beyond-chance"
    figures = json.loads(next(one.text for one in page.find("script") if one.attributes.get("id")))["figures"]
    assert figures["beyond-chance"]["data"][0]["x"] == ["clip", "again", "l14", "boxes", "duplicates"]


def test_with_its_own_aspect_nothing_is_found_any_more(pool, store, tmp_path, capsys):
    said = decide(write(tmp_path, pool, store, ", aspect: duplicates"), capsys)
    assert "warning: filter" not in said.err
    assert "does not belong" not in said.out
    fitted = tmp_path / "out" / "fitted.json"
    assert json.loads(fitted.read_text())["diagnosis"]["findings"] == []
    # Numbers that come from elsewhere are not judged again, and the page does without.
    status = main(["run", str(tmp_path / "config.yaml"), f"fitted={fitted}", f"output={tmp_path / 'other'}"])
    said = capsys.readouterr()
    assert status == 0
    assert "duplicates" in said.out
    assert 'id="ensemble"' not in (tmp_path / "other" / "report.html").read_text()


def test_a_class_prior_is_told_with_how_sure_it_is():
    described = {"filters": ["a", "b"], "effective_sources": 2.0, "correlated": [], "class_prior": 0.4}
    for given, interval, told in [
        (True, None, "; class prior 40%, given"),
        (False, [0.32, 0.481], "; class prior 40% (32-48)"),
        (False, None, "; class prior 40% (not known: two are not enough)"),
    ]:
        how = {"class_prior_given": given, "class_prior_interval": interval, "class_prior_note": "two are not enough"}
        assert tell_aspects({"aspects": {"x": described | how}})[0].endswith(told)
    assert "class prior" not in tell_aspects({"aspects": {"x": described | how | {"class_prior": None}}})[0]


@pytest.mark.parametrize(("prior", "reference", "warned"), [(0.62, 100, True), (0.58, 100, False), (0.62, 30, False)])
def test_a_class_prior_above_its_bound_is_warned_of_unless_chance_explains_it(prior, reference, warned):
    anchored = {"class_prior": prior, "class_prior_bound_": 0.5, "n_reference_": reference}
    told = tell_misfits({"one": anchored, "other": {"chosen_": anchored}, "third": {"class_prior": 0.9}})
    assert [line.split(":")[0] for line in told] == ["aspect one", "aspect other"] * warned
    assert not tell_misfits({"one": anchored | {"class_prior": None}})


def test_what_is_not_estimated_is_not_made_up():
    assert tell_accuracy({"accuracy": 0.841, "accuracy_interval": [0.822, 0.861]}) == "84% (82-86)"
    assert tell_accuracy({"accuracy": 0.9, "accuracy_interval": None}) == "90% (?)"
    assert tell_accuracy({"accuracy": None}) == "n/a"
    assert tell_accuracy({}) == ""
