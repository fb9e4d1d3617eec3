"""`chaffinch label` from the command line to the file, and back as `labels:`."""

import re

import pyarrow.parquet as pq

from chaffinch.jobs.labels import read_labels
from chaffinch.jobs.main import main


def decisions(one):
    return {
        row["uid"]: row
        for path in sorted((one.output / "decisions").rglob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
        if not (row["reason"] or "").startswith("rejected")
    }


def test_it_asks_about_what_was_decided(own_copy, data, capsys):
    assert main(["label", str(own_copy.config)]) == 0
    told = capsys.readouterr()
    assert "60 samples to label, 20 of them drawn at random" in told.err + told.out
    questions, decided = data(own_copy.page)["questions"], decisions(own_copy)
    words, names = {1: "keep", 0: "abstains", -1: "drop"}, ("shape", "sharpness", "contrast", "english")
    assert len({one["uid"] for one in questions}) == 60
    assert sum(one["drawn"] == "random" for one in questions) == 20
    for one in questions:
        row = decided[one["uid"]]
        assert row["vote_shape"] != -1
        assert one["votes"] == [[name, words[row[f"vote_{name}"]]] for name in names]
        assert one["probability"] == f"{row['probability']:.3f}"
        assert row["key"] in one["where"]
        assert one["picture"].startswith("data:image/jpeg;base64,")
        assert one["caption"]


def test_all_that_can_be_judged_may_be_asked_about(decided, data):
    usable = {uid for uid, row in decisions(decided).items() if row["vote_shape"] != -1}
    assert len(usable) < len(decisions(decided))
    assert {one["uid"] for one in data(decided.page)["questions"]} == usable


def test_the_same_input_and_config_give_the_same_bytes_and_another_seed_other_samples(own_copy, data):
    assert main(["label", str(own_copy.config), "label.samples=12", "--quiet"]) == 0
    before = (own_copy.output / "label.html").read_bytes()
    assert main(["label", str(own_copy.config), "label.samples=12", "run.workers=2", "--quiet"]) == 0
    assert (own_copy.output / "label.html").read_bytes() == before
    assert main(["label", str(own_copy.config), "label.samples=12", "label.seed=1", "--quiet"]) == 0
    other = data(own_copy.page)["questions"]
    assert len(other) == 12
    assert [one["uid"] for one in other] != [one["uid"] for one in data(before.decode())["questions"]]


def test_a_second_round_asks_something_new_and_its_file_takes_the_place_of_the_first(own_copy, data, tmp_path):
    assert main(["label", str(own_copy.config), "label.samples=30", "--quiet"]) == 0
    first = data(own_copy.page)["questions"]
    file = tmp_path / "labels.csv"
    rows = [f"{one['uid']},{str(number % 3 > 0).lower()},{one['drawn']}" for number, one in enumerate(first)]
    file.write_text("\n".join(["uid,keep,drawn", *rows]))
    setting = f"labels={file}"
    assert main(["label", str(own_copy.config), setting, "label.samples=30", "--quiet"]) == 1  # decided without them
    assert main(["decide", str(own_copy.config), setting, "--quiet"]) == 0
    assert main(["label", str(own_copy.config), setting, "label.samples=30", "--quiet"]) == 0
    second = data(own_copy.page)
    assert not {one["uid"] for one in first} & {one["uid"] for one in second["questions"]}
    before = read_labels(str(file))
    file.write_text("\n".join(["uid,keep,drawn", *second["earlier"]]))
    after = read_labels(str(file))
    assert after.uids.tolist() == before.uids.tolist()
    assert after.keep.tolist() == before.keep.tolist()
    assert (after.at_random >= before.at_random).all()
    assert after.at_random.sum() > before.at_random.sum()  # so small a pool that the draw comes upon picks


def test_what_a_pool_holds_is_data_and_never_markup(decided, data, parse, hostile_captions):
    tree = parse(decided.page)
    assert len(tree.find("script")) == 2
    assert not tree.find("i")
    assert not tree.find("b")
    questions = data(decided.page)["questions"]
    captions = {one["caption"] for one in questions}
    for caption in hostile_captions:
        assert caption[:2000] in captions
    (long,) = [one for one in questions if one["caption"].startswith("xxx")]
    assert long["bytes"] == 5000
    assert any("<b>hostile" in one["where"] and "<i>script" in one["where"] for one in questions)


def test_it_needs_no_other_file_and_no_network(decided, parse):
    tree = parse(decided.page)
    (policy,) = [one for one in tree.find("meta") if one.attributes.get("http-equiv") == "Content-Security-Policy"]
    rules = policy.attributes["content"]
    assert rules.startswith("default-src 'none'; img-src data:; ")
    assert "http" not in rules
    for element in tree.find():
        assert element.tag not in {"link", "iframe", "object", "embed", "base", "form"}
        assert not {"src", "href", "action"} & element.attributes.keys()
        assert not any(name.startswith("on") for name in element.attributes)
    style = tree.find("style")[0].text
    assert "url(" not in style
    assert "@import" not in style


def test_before_the_answers_nothing_tells_what_the_filters_think(decided, parse):
    """What is shown without the script's doing names no filter and no probability of a sample."""
    tree = parse(decided.page)
    shown = " ".join(one.words for one in tree.find("header") + tree.find("main"))
    assert not re.search(r"sharpness|contrast|english|\b0\.\d", shown)
    (review,) = tree.find("section")
    assert "hidden" in review.attributes
    assert not tree.find("ul")[0].children


def test_controls_have_names_and_say_their_keys(decided, parse):
    tree = parse(decided.page)
    shortcuts = {one.attributes["id"]: one.attributes.get("aria-keyshortcuts") for one in tree.find("button")}
    wanted = {"keep": "k", "drop": "d", "undo": "u", "previous": "ArrowLeft", "next": "ArrowRight", "save": None}
    assert shortcuts == wanted
    assert all(one.words and one.attributes["type"] == "button" for one in tree.find("button"))
    assert tree.find("html")[0].attributes["lang"] == "en"
    (said,) = tree.find("p", "said")
    assert said.attributes["role"] == "status"


def test_what_has_to_be_done_before_is_said(decided, label_pool, tmp_path, capsys):
    assert main(["label", str(decided.config), f"output={tmp_path / 'none'}", "--quiet"]) == 1
    assert "run `chaffinch decide`" in capsys.readouterr().err
    assert not (tmp_path / "none" / "label.html").exists()
    assert main(["label", str(decided.config), "keep.fraction=0.3", "--quiet"]) == 1
    assert "another config" in capsys.readouterr().err
    assert main(["label", str(decided.config), "label.sample=3", "--quiet"]) == 2
    assert "did you mean 'samples'" in capsys.readouterr().err
    assert main(["label", str(decided.config), "label.samples=0", "--quiet"]) == 2


def test_when_all_have_labels_there_is_nothing_to_ask(own_copy, tmp_path, capsys):
    file = tmp_path / "labels.csv"
    file.write_text("\n".join(["uid,keep", *(f"{uid},{'yes' if uid < '8' else 'no'}" for uid in decisions(own_copy))]))
    assert main(["decide", str(own_copy.config), f"labels={file}", "--quiet"]) == 0
    assert main(["label", str(own_copy.config), f"labels={file}", "--quiet"]) == 1
    assert "no sample is left to ask about" in capsys.readouterr().err
