"""The labelling page in a real browser: keys and buttons, what is kept, what is saved, and what cannot run."""

import json
import re

import pytest

from chaffinch.jobs.labels import read_labels

PRESS = "const press = (key, more) => dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, ...more}));"
# What is seen goes to an attribute of the page, which the browser prints in the end.
TELL = "const tell = (seen) => { document.documentElement.dataset.told = JSON.stringify(seen); };"
SEE = """const see = () => ({
    place: document.getElementById('place').textContent, count: document.getElementById('count').textContent,
    answer: document.getElementById('answer').textContent, file: document.getElementById('file').value,
    caption: document.getElementById('caption').textContent, said: document.getElementById('said').textContent,
    review: document.getElementById('review').hidden ? '' : document.getElementById('review').innerText,
    forgetful: !document.getElementById('forgetful').hidden});"""


@pytest.fixture
def act(browse, probe):
    """(page, script, before) -> what the script tells; `before` runs ahead of the page's own script."""

    def run(page, script, before="", *flags):
        file = probe(page.replace("<style>", f"<script>{before}</script><style>", 1), PRESS + TELL + SEE + script)
        shown = browse(file, "--dump-dom", *flags)
        assert "data-owned" not in shown
        (told,) = re.findall(r'data-told="([^"]*)"', shown)
        return json.loads(told.replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))

    return run


def line(question, keep):
    return f"{question['uid']},{keep},{question['drawn']}"


def test_as_it_is_no_rule_is_broken_and_nothing_runs_that_is_not_its_own(decided, browse):
    page = browse(decided.output / "label.html", "--dump-dom")
    assert "data-owned" not in page
    assert re.search(r'id="picture"[^>]*src="data:image/jpeg', page)


def test_keys_answer_go_back_and_undo(decided, data, act):
    questions = data(decided.page)["questions"]
    seen = act(
        decided.page,
        """
        const seen = [see()];
        for (const key of ['k', 'D', 'k', 'u', 'ArrowLeft', 'd', 'ArrowRight']) { press(key); seen.push(see()); }
        press('k', {ctrlKey: true}); press('x'); seen.push(see());
        tell(seen);
        """,
    )
    total = len(questions)
    assert [int(one["place"].split()[1]) for one in seen] == [1, 2, 3, 4, 3, 2, 3, 4, 4]
    assert [one["count"] for one in seen] == [f"{n} of {total} answered" for n in (0, 1, 2, 3, 2, 2, 2, 2, 2)]
    assert seen[5]["answer"] == "Your answer: drop"
    assert "taken back" in seen[4]["said"]
    assert seen[-1]["file"].split() == ["uid,keep,drawn", line(questions[0], "true"), line(questions[1], "false")]
    assert seen[0]["caption"].startswith(questions[0]["caption"].strip()[:20])
    assert not any(one["review"] for one in seen)


def test_what_is_saved_is_what_labels_are_read_from(decided, data, act, tmp_path):
    questions = data(decided.page)["questions"]
    # The file is what the browser would write to disk: the object that the save button makes an address of.
    saved = act(
        decided.page,
        """
        let blob, name;
        URL.createObjectURL = (one) => { blob = one; return '#'; };
        HTMLAnchorElement.prototype.click = function () { name = this.download; };
        const buttons = ['keep', 'drop', 'drop'].map((id) => document.getElementById(id));
        const bar = document.getElementById('bar');
        for (let turn = 0; bar.value < bar.max; turn += 1) buttons[turn % 3].click();
        document.getElementById('save').click();
        blob.text().then((text) => tell({text, name, ...see()}));
        """,
    )
    assert saved["name"] == "labels.csv"
    file = tmp_path / "labels.csv"
    file.write_text(saved["text"])
    labels = read_labels(str(file))
    found = {
        f"{high:016x}{low:016x}": (keep, at_random)
        for (high, low), keep, at_random in zip(
            labels.uids.tolist(), labels.keep.tolist(), labels.at_random.tolist(), strict=True
        )
    }
    assert found == {one["uid"]: (turn % 3 == 0, one["drawn"] == "random") for turn, one in enumerate(questions)}
    # Only now the filters' votes are shown.
    assert "sharpness: " in saved["review"]
    assert "P(keep) " in saved["review"]


def test_captions_are_shown_as_text(decided, data, act, hostile_captions):
    seen = act(
        decided.page,
        f"""
        const captions = [];
        for (let turn = 0; turn < {len(data(decided.page)["questions"])}; turn += 1) {{
            captions.push(document.getElementById('caption').textContent);
            press('ArrowRight');
        }}
        tell(captions.filter((one) => one.includes('<')));
        """,
    )
    for caption in hostile_captions:
        assert caption in seen or "<" not in caption


def test_answers_are_there_again_when_the_page_is_opened_again(decided, data, act):
    questions = data(decided.page)["questions"]
    name = data(decided.page)["name"]
    kept = json.dumps([[questions[2]["uid"], False], ["not of this page", True], [questions[0]["uid"], True]])
    seen = act(decided.page, "tell(see());", f"localStorage.setItem('{name}', {kept!r});")
    assert seen["place"].startswith("Sample 2 of")
    assert seen["file"].split()[1:] == [line(questions[0], "true"), line(questions[2], "false")]
    script = f"press('k'); press('d'); tell({{kept: JSON.parse(localStorage.getItem('{name}')), ...see()}});"
    seen = act(decided.page, script)
    assert seen["kept"] == [[questions[0]["uid"], True], [questions[1]["uid"], False]]
    assert not seen["forgetful"]
    assert act(decided.page, "tell(see());", f"localStorage.setItem('{name}', 'spoilt');")["count"].startswith("0 of")


def test_without_storage_it_works_from_memory_and_says_so(decided, act):
    deny = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }});"
    seen = act(decided.page, "press('k'); press('d'); tell(see());", deny)
    assert seen["count"].startswith("2 of")
    assert len(seen["file"].split()) == 3
    assert seen["forgetful"]


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_is_wider_than_the_screen_and_the_answers_are_in_reach(decided, browse, probe, tmp_path, width):
    measure = """
        const edges = ['keep', 'drop', 'next'].map((id) => document.getElementById(id).getBoundingClientRect());
        parent.postMessage([innerWidth, document.documentElement.scrollWidth,
            Math.ceil(Math.max(...edges.map((one) => one.bottom)))].join(" "), "*");
    """
    listen = "addEventListener('message', (event) => { document.documentElement.dataset.widths = event.data; });"
    frame = f'<iframe src="{probe(decided.page, measure)}" style="width:{width}px;height:800px;border:0"></iframe>'
    outer = tmp_path / "frame.html"
    outer.write_text(f"<!DOCTYPE html><script>{listen}</script>{frame}")
    page = browse(outer, "--window-size=1600,1000", "--dump-dom")
    inner, scroll, bottom = map(int, re.search(r'data-widths="(\d+) (\d+) (\d+)"', page).groups())
    assert inner == width >= scroll
    assert bottom <= 800
