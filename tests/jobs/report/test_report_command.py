"""`chaffinch report` from the command line to the file: its numbers, its bytes, what it says when something is gone."""

import json
import re
import shutil

import pytest

from chaffinch.jobs.main import main


def tile_numbers(tree):
    return {
        tile.find("dt")[0].words.lower(): int(tile.find("dd")[0].words.replace(",", ""))
        for tile in tree.find("dl", "tiles")[0].children
    }


def table_rows(table):
    return [[cell.words for cell in row.children] for row in table.find("tbody")[0].find("tr")]


def test_its_numbers_are_those_of_the_summary(decided, parse):
    tree, summary = parse(decided.page), decided.summary
    assert tile_numbers(tree) == {part: summary[part] for part in ("read", "kept", "dropped", "rejected")}
    losses, label_model = tree.find("table")[0], tree.find("table", "wide")[0]
    *dropped, rejected = table_rows(losses)
    assert rejected[1] == str(summary["rejected"])
    told = {row[0]: int(row[1]) for row in dropped}
    dropped = {f"dropped: {reason}": count for reason, count in told.items() if count}
    assert dropped == {reason: count for reason, count in summary["reasons"].items() if reason.startswith("dropped")}
    for row in table_rows(label_model):
        numbers = summary["filters"][row[0]]
        shares = [f"{numbers[part]:.1%}" for part in ("keep", "drop", "coverage", "overlap", "conflict")]
        assert row[2:7] == shares
        assert row[7] == ("n/a" if numbers.get("accuracy") is None else f"{numbers['accuracy']:.1%}")
        assert row[8] == ("n/a" if "weight" not in numbers else f"{numbers['weight']:.2f}")
        assert row[9] == str(numbers["only_drop"])
    assert [row[0] for row in table_rows(label_model)] == list(summary["filters"])


def test_the_funnel_ends_with_what_was_kept(decided, parse):
    data = json.loads(next(one.text for one in parse(decided.page).find("script") if one.attributes.get("id")))
    funnel, summary = data["figures"]["funnel"]["data"][0], decided.summary
    assert funnel["y"] == ["read", "usable", "past size", "past shape", "kept"]
    assert funnel["x"][0] == summary["read"]
    assert funnel["x"][1] == summary["read"] - summary["rejected"]
    assert funnel["x"][-1] == summary["kept"]
    assert funnel["x"] == sorted(funnel["x"], reverse=True)


def test_histograms_hold_every_usable_sample_once_under_its_vote(decided, parse):
    data = json.loads(next(one.text for one in parse(decided.page).find("script") if one.attributes.get("id")))
    summary = decided.summary
    usable = summary["read"] - summary["rejected"]
    for name, found in summary["filters"].items():
        bars = {bar["name"]: sum(bar["y"]) for bar in data["figures"][f"score-{name}"]["data"]}
        assert bars.get("keep", 0) == round(found["keep"] * usable)
        assert bars.get("drop", 0) == round(found["drop"] * usable)
        assert sum(bars.values()) == usable


def test_rejected_samples_are_shown_by_reason(decided, parse):
    section = next(one for one in parse(decided.page).find("section") if one.attributes["id"] == "rejects")
    reasons = {
        reason.removeprefix("rejected: "): count
        for reason, count in decided.summary["reasons"].items()
        if reason.startswith("rejected: ")
    }
    shown = {}
    for block in section.find("div", "block"):
        title = block.find("h3")[0]
        shown[title.text.strip()] = int(title.find("span")[0].words.split()[0])
        assert len(block.find("article", "rejected")) == min(shown[title.text.strip()], 5)
    assert {" ".join(reason.split()): count for reason, count in reasons.items()} == {
        " ".join(reason.split()): count for reason, count in shown.items()
    }
    assert [*shown.values()] == sorted(shown.values(), reverse=True)
    assert any("<!DOCTYPE html>" in reason for reason in shown)  # as text: the parser met no such element
    broken = [card for card in section.find("article") if card.find("p", "placeholder")]
    assert broken
    assert section.find("img")  # a repeated uid has a picture to show


def test_galleries_show_what_they_say(decided, parse):
    tree = parse(decided.page)
    blocks = {block.find("h3")[0].words: block for block in tree.find("div", "block") if block.find("h3")}
    kept = blocks["Surest kept"].find("article")
    assert len(kept) == 10
    assert all("kept" in card.attributes["class"] for card in kept)
    dropped = blocks["Surest dropped"].find("article")
    assert all("dropped" in card.attributes["class"] for card in dropped)
    for card in blocks["Most disputed"].find("article"):
        votes = card.find("ul", "votes")[0]
        assert votes.find("li", "keep")
        assert votes.find("li", "drop")
    for filter_ in tree.find("div", "filter"):
        name = filter_.attributes["id"].removeprefix("filter-")
        last_kept, first_dropped = filter_.find("div", "block")
        for side, vote in ((last_kept, "keep"), (first_dropped, "drop")):
            for card in side.find("article"):
                (about,) = card.find("li", "about")
                assert about.find("span")[0].words.split()[1] == name
                assert vote in about.attributes["class"]
    words = next(one for one in tree.find("div", "filter") if one.attributes["id"] == "filter-words")
    last_kept = words.find("div", "block")[0]
    assert {card.find("li", "about")[0].find("b")[0].words for card in last_kept.find("article")} <= {"4", "5", "6"}


def test_every_card_has_picture_or_reason_and_caption_scores_and_votes(decided, parse):
    cards = parse(decided.page).find("article", "card")
    assert len(cards) > 50
    for card in cards:
        assert len(card.find("img")) + len(card.find("p", "placeholder")) == 1
        assert card.find("p", "caption")
        if "rejected" not in card.attributes["class"]:
            names = [vote.find("span")[0].words.split()[1] for vote in card.find("li")]
            assert names == list(decided.summary["filters"])


def test_the_same_input_and_config_give_the_same_bytes(decided, write_config, tmp_path):
    before = (decided.output / "report.html").read_bytes()
    assert main(["report", str(decided.config), "--quiet"]) == 0
    assert (decided.output / "report.html").read_bytes() == before
    # Everything anew, from a copy of the pool in another place.
    pool = tmp_path / decided.pool.name
    shutil.copytree(decided.pool, pool)
    other = write_config(tmp_path, pool)
    assert main(["run", str(other.config), "--quiet"]) == 0
    assert (other.output / "report.html").read_bytes() == before


def test_it_needs_no_other_file_and_no_network(decided, parse):
    def walk(element):
        yield element
        for child in element.children:
            yield from walk(child)

    elements = list(walk(parse(decided.page)))
    for element in elements:
        assert element.tag not in {"link", "iframe", "object", "embed", "base", "form"}
        for name, value in element.attributes.items():
            if name in {"src", "srcset", "poster", "data", "action", "background"}:
                assert value.startswith("data:image/jpeg;base64,"), (element.tag, value[:60])
            if name == "href":
                assert value.startswith("#")
            assert not name.startswith("on")
    style = " ".join(element.text for element in elements if element.tag == "style")
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = [one for one in elements if one.attributes.get("http-equiv") == "Content-Security-Policy"]
    rules = policy.attributes["content"]
    assert rules.startswith("default-src 'none'; img-src data:; ")
    assert "http" not in rules
    assert decided.page.count("plotly.js v") == 1
    assert len(decided.page) < 8_000_000


def test_it_holds_no_times_and_no_places(decided):
    page = re.sub(r"<script>.*?</script>", "", decided.page, flags=re.DOTALL)
    assert str(decided.output) not in page
    assert str(decided.pool.parent) not in page
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", page)


def test_without_decisions_it_says_what_to_do(decided, rendered_pool, write_config, tmp_path, capsys):
    one = write_config(tmp_path, rendered_pool)
    assert main(["report", str(one.config), "--quiet"]) == 1
    assert "run `chaffinch decide`" in capsys.readouterr().err
    assert not (one.output / "report.html").exists()
    # Decisions of another config are none of this one's.
    assert main(["report", str(decided.config), "keep.fraction=0.4", "--quiet"]) == 1
    assert "another config" in capsys.readouterr().err


@pytest.fixture
def own_copy(decided, write_config, tmp_path):
    """The decided experiment and its pool, to be spoiled."""
    pool = tmp_path / "pool"
    shutil.copytree(decided.pool, pool)
    one = write_config(tmp_path, pool)
    assert main(["run", str(one.config), "--quiet"]) == 0
    return one


def test_a_shard_that_vanished_is_told_not_fatal(own_copy, parse, capsys):
    first = sorted(own_copy.summary["shards"])[0]
    (own_copy.pool / f"{first}.tar").unlink()
    assert main(["report", str(own_copy.config), "--quiet"]) == 0
    assert first in capsys.readouterr().err
    tree = parse(own_copy.page)
    (note,) = [one.words for one in tree.find("p", "note") if "vanished" in one.words]
    assert first in note
    assert tile_numbers(tree)["read"] == 120
    cards = tree.find("article", "card")
    gone = [card for card in cards if "vanished" in card.words]
    assert gone
    assert all(f"shard {first}" in card.words for card in gone)
    assert any(card.find("img") for card in cards)
    # That a shard is gone does not let another config's decisions pass.
    assert main(["report", str(own_copy.config), "keep.fraction=0.4", "--quiet"]) == 1


def test_tables_that_vanished_are_told_not_fatal(own_copy, parse, capsys):
    first = sorted(own_copy.summary["shards"])[0]
    (own_copy.output.parent / "store" / "samples" / f"{first}.parquet").unlink()
    assert main(["report", str(own_copy.config), "--quiet"]) == 0
    assert "tables that cannot be read" in capsys.readouterr().err
    tree = parse(own_copy.page)
    assert tile_numbers(tree)["read"] == 120
    assert "from 1 of 2 shards" in tree.find("header")[0].words


def test_a_pool_without_filters_has_a_report_too(rendered_pool, write_config, tmp_path, parse):
    text = "input: {pool}\noutput: {output}\nstore: {store}\nkeep: {{probability: 0.5}}\nrun: {{max_rejected: 0.5}}\n"
    one = write_config(tmp_path, rendered_pool, text)
    assert main(["run", str(one.config), "--quiet"]) == 0
    tree = parse(one.page)
    assert tile_numbers(tree)["kept"] == one.summary["kept"] > 0
    assert not tree.find("table", "wide")
