"""Every label model by name, through `chaffinch decide`: what is kept, what is written, and what is refused."""

import contextlib
import functools
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from chaffinch.filters.cut import hash_uids
from chaffinch.filters.fitted import Fitted
from chaffinch.jobs import kinds
from chaffinch.jobs.config import load_config
from chaffinch.jobs.console import Console
from chaffinch.jobs.demo.pool import write_clean
from chaffinch.jobs.experiment import Experiment
from chaffinch.jobs.main import main
from chaffinch.pipeline.deciding.counts import CountVotes
from chaffinch.pipeline.deciding.find_cut import find_cut
from chaffinch.pipeline.deciding.learn import learn
from chaffinch.pipeline.deciding.verdicts import Decide
from chaffinch.pipeline.repeats import parse_uids
from chaffinch.pipeline.rows import Rows

CONFIG = """\
input: {folder}/pool
output: {output}
store: {store}
reference: {folder}/trusted
filters:
  size: {{column: pictures.shorter_side, keep: [64, null], require: true}}
  words: {{column: captions.words, keep: [4, null], drop: [null, 2]}}
  boilerplate: {{}}
  sharpness: {{column: pictures.sharpness, keep: top 60%, drop: bottom 20%}}
  entropy: {{column: pictures.entropy, keep: top 60%, drop: bottom 10%}}
  brightness: {{column: pictures.brightness, keep: [0.2, 0.8]}}
keep: {{fraction: 0.4}}
run: {{max_rejected: 0.2}}
"""
PICTURES = [f"filters.{name}.aspect=picture" for name in ("sharpness", "entropy", "brightness")]
SETTINGS = {
    **{
        kind: [f"ensemble.label_model={kind}"]
        for kind in (
            "all",
            "anchored",
            "auto",
            "clean_vs_pool",
            "dawid_skene",
            "flying_squid",
            "gaussian",
            "majority",
            "metal",
            "none",
            "weighted_majority",
        )
    },
    "blended": ["ensemble.blend=clean_vs_pool"],
    "blended with settings": ["ensemble.label_model=all", "ensemble.blend={label_model: gaussian, class_prior: 0.4}"],
    "aspects": [*PICTURES, "ensemble.aspects={picture: {label_model: gaussian}, quality: {label_model: anchored}}"],
    "aspects blended": [
        *PICTURES,
        "ensemble={class_prior: 0.6, blend: gaussian, aspects: {picture: {label_model: clean_vs_pool}}}",
    ],
}
SOFT = ["clean_vs_pool", "gaussian", "blended", "blended with settings", "aspects", "aspects blended"]
each_way = pytest.mark.parametrize("name", SETTINGS)


@dataclass(frozen=True)
class Scored:
    """A pool that was measured once, for all experiments.

    Attributes:
        folder: where experiments go.
        text: a config; where its output goes is to be filled in.
    """

    folder: Path
    text: str

    def config(self, name):
        """The config of one experiment."""
        path = self.folder / f"{name}.yaml"
        path.write_text(self.text.replace("<output>", str(self.folder / name)))
        return path

    @functools.cache  # noqa: B019 - lives as long as the module
    def decided(self, name):
        """The output of one way of judging, decided once; what was told and what was warned of."""
        with contextlib.redirect_stdout(io.StringIO()) as told, contextlib.redirect_stderr(io.StringIO()) as warned:
            assert main(["decide", str(self.config(name)), *SETTINGS[name]]) == 0
        return self.folder / name, told.getvalue(), warned.getvalue()

    @functools.cache  # noqa: B019 - likewise
    def looped(self, name):
        """The same without Beam, and what was learned."""
        loops = Loops.of(self.config(name), SETTINGS[name])
        return loops, loops.learned()


@pytest.fixture(scope="module")
def scored(rendered, tmp_path_factory):
    folder = tmp_path_factory.mktemp("label models")
    scored = Scored(folder, CONFIG.format(folder=rendered, output="<output>", store=folder / "store"))
    with contextlib.redirect_stderr(io.StringIO()):
        assert main(["score", str(scored.config("scored"))]) == 0
    return scored


def add_up(label, parts, function):
    """What Beam does, by a loop, the last shard first."""
    del label
    return functools.reduce(lambda total, part: total.merge(part), [function(part) for part in parts[::-1]])


@dataclass(frozen=True)
class Loops:
    """An experiment without Beam."""

    experiment: Experiment

    @classmethod
    def of(cls, path, settings):
        return cls(Experiment(load_config(str(path), list(settings)), Console(quiet=True)))

    @functools.cached_property
    def pools(self):
        sides = self.experiment.sides
        return [self.experiment.pool(side, side.found_folders()) for side in sides]

    def learned(self, frozen=None):
        return learn(add_up, *self.pools, self.experiment.judgement, frozen)

    def parts(self, learned):
        return self.pools[0].parts(learned.repeated)

    def decisions(self, learned):
        filters = learned.fitted.teach(self.experiment.judgement.filters)
        judge = Decide(self.pools[0].source, filters, learned.fitted, self.experiment.judgement.seed, "")
        return pa.concat_tables([judge.judge(part) for part in self.parts(learned)])

    def order(self, learned):
        """Of each sample whether it may be kept, and what it is ordered by; the slow way, all of it for all samples."""
        fitted, rows_of = learned.fitted, []
        for part in self.parts(learned):
            rows = Rows.read(part, self.pools[0].source, list(self.experiment.judgement.filters.values()), ["uid"])
            votes = fitted.votes(rows.scores, len(rows.usable))
            probability, soft = fitted.ensemble.by_votes(votes), None
            if fitted.ensemble.is_soft:
                soft = fitted.soft_votes(rows.scores, len(votes))
                probability = fitted.ensemble.by_scores(probability, soft)
            allowed = rows.usable & fitted.candidates(votes, probability, fitted.covered(votes, soft))
            scores = fitted.soft_scores(rows.scores, len(votes))
            ties = hash_uids(parse_uids(rows.samples["uid"].combine_chunks()), self.experiment.judgement.seed)
            rows_of += zip(allowed, zip(probability, scores, ties, strict=True), strict=True)
        return rows_of


def restored(output):
    state = json.loads((output / "fitted.json").read_text())
    return Fitted.restore(state["judgement"], lambda kind: kinds.label_models()[kind]), state


def test_every_kind_is_tried():
    assert set(kinds.label_models()) - set(SETTINGS) == {"alone"}  # for a filter by itself


@each_way
def test_what_is_kept_adds_up_and_is_the_best_by_a_plain_sort(scored, decisions, name):
    output, told, _ = scored.decided(name)
    summary, table = json.loads((output / "summary.json").read_text()), decisions(output)
    for one in (summary, *summary["shards"].values()):
        assert one["read"] == one["kept"] + one["dropped"] + one["rejected"]
    assert summary["read"] == table.num_rows == 240
    assert f"kept {summary['kept']} + dropped" in told
    usable = table["probability"].is_valid().to_numpy()
    assert usable.sum() == 240 - summary["rejected"]
    probability = table["probability"].to_numpy()[usable]
    assert ((probability >= 0) & (probability <= 1)).all()  # no NaN either

    loops, learned = scored.looped(name)
    rows = loops.order(learned)
    available = sorted((keys for allowed, keys in rows if allowed), reverse=True)
    wanted = min(round(0.4 * usable.sum()), len(available))
    best = set(available[:wanted])
    assert summary["kept"] == len(best) == wanted
    np.testing.assert_array_equal(table["keep"].to_numpy(), [allowed and keys in best for allowed, keys in rows])
    assert summary["kept"] == round(0.4 * usable.sum()) or name in ("all", "blended with settings")


@each_way
def test_beam_learns_what_plain_loops_in_another_order_learn(scored, name):
    fitted, state = restored(scored.decided(name)[0])
    _, learned = scored.looped(name)
    assert json.loads(json.dumps(learned.fitted.state())) == state["judgement"]
    assert {part: json.loads(json.dumps(learned.report[part])) for part in learned.report} == {
        part: state[part] for part in learned.report
    }
    assert fitted.state() == learned.fitted.state()


@each_way
def test_what_was_fitted_decides_the_same_when_it_is_applied(scored, decisions, name):
    output, _, _ = scored.decided(name)
    loops, _ = scored.looped(name)
    applied = loops.learned(frozen=restored(output)[0])
    assert loops.decisions(applied).equals(decisions(output))


@pytest.mark.parametrize("name", ["anchored", "aspects blended"])
def test_another_run_with_more_workers_gives_the_same_bytes(scored, run, digests, name):
    output, told, _ = scored.decided(name)
    status, out, _ = run("decide", scored.config(f"{name} again"), *SETTINGS[name], "run.workers=2")
    assert (status, out) == (0, told)
    one, other = digests(output), digests(scored.folder / f"{name} again")
    assert {part for part in one.keys() | other.keys() if one.get(part) != other.get(part)} == {"config.yaml"}


@pytest.mark.parametrize("name", ["flying_squid", "aspects blended"])
def test_fitted_numbers_are_applied_from_the_command_line(scored, run, decisions, name):
    output, _, _ = scored.decided(name)
    path = scored.config(f"{name} applied")
    status, _, said = run("decide", path, *SETTINGS[name], f"fitted={output / 'fitted.json'}")
    assert (status, "drift" in said) == (0, False)
    assert decisions(scored.folder / f"{name} applied").equals(decisions(output))


@pytest.mark.parametrize("name", ["metal", *SOFT])
def test_any_count_and_any_least_probability_cut_where_a_plain_sort_cuts(scored, name):
    loops, learned = scored.looped(name)
    parts, source, judgement = loops.parts(learned), loops.pools[0].source, loops.experiment.judgement
    patterns = add_up("", parts, CountVotes(source, judgement.filters, learned.fitted)).arrays()
    rows = loops.order(learned)
    allowed, keys = np.array([allowed for allowed, _ in rows]), [keys for _, keys in rows]
    probability, soft, tie = (np.array(column) for column in zip(*keys, strict=True))
    order = sorted(np.flatnonzero(allowed), key=keys.__getitem__, reverse=True)

    def kept(**rule):
        asked = replace(judgement, fraction=None, **rule)
        cut, how = find_cut(add_up, parts, source, asked, learned.fitted, *patterns)
        return np.flatnonzero(allowed & cut.keeps(probability, soft, tie)), how

    for count in [0, 1, 2, len(order) // 3, len(order) - 1, len(order), len(order) + 1, 10**9]:
        chosen, how = kept(count=count)
        np.testing.assert_array_equal(chosen, np.sort(order[:count]))
        assert (how["wanted"], how["available"]) == (count, len(order))
    for least in (0.0, 0.3, 1.0):
        chosen, _ = kept(probability=least)
        np.testing.assert_array_equal(chosen, np.flatnonzero(allowed & (probability >= np.float32(least))))


def test_nothing_and_everything_may_be_asked_for_on_the_command_line(scored, run, decisions):
    for rule, kept in (("{count: 0}", 0), ("{count: 1000000}", None), ("{probability: 0.5}", None)):
        status, _, err = run("decide", scored.config("asked"), *SETTINGS["aspects blended"], f"keep={rule}")
        assert status == 0, err
        summary, table = (
            json.loads((scored.folder / "asked" / "summary.json").read_text()),
            decisions(scored.folder / "asked"),
        )
        assert summary["read"] == summary["kept"] + summary["dropped"] + summary["rejected"]
        if "probability" in rule:
            kept = pc.sum(pc.greater_equal(table["probability"], 0.5)).as_py()
        elif kept is None:
            kept = 240 - summary["rejected"] - summary["reasons"]["dropped: required filter size"]
        assert summary["kept"] == pc.sum(table["keep"]).as_py() == kept


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["ensemble.label_model=anchored"], "ensemble.label_model: anchored needs a reference:"),
        (["ensemble.label_model=clean_vs_pool"], "ensemble.label_model: clean_vs_pool needs a reference:"),
        (["ensemble.blend=clean_vs_pool"], "ensemble.blend.label_model: clean_vs_pool needs a reference:"),
        (
            ["ensemble.aspects.quality={label_model: anchored}"],
            "ensemble.aspects.quality.label_model: anchored needs a reference:",
        ),
    ],
)
def test_without_a_reference_who_needs_one_is_refused(scored, run, settings, said):
    status, _, err = run("decide", scored.config("refused"), "reference=null", *settings)
    assert status == 2
    assert said in err
    assert not (scored.folder / "refused").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["ensemble.blend=metal"],
            "ensemble.blend: metal judges by votes: take one that judges by scores, clean_vs_pool",
        ),
        (["ensemble.blend=gausian"], "did you mean 'gaussian'"),
        (["ensemble.label_model=dawid_sken"], "did you mean 'dawid_skene'"),
        (["ensemble.aspects.quality={label_model: metall}"], "did you mean 'metal'"),
        (["ensemble.aspects.qualty={label_model: metal}"], "did you mean 'quality'"),
        (["ensemble.class_prior=0"], "class_prior is 0.0, but must lie strictly between 0 and 1"),
        (["ensemble.class_prior=1"], "such as 0.99"),
        (["ensemble.class_prior=1.5"], "class_prior is 1.5"),
        (["ensemble.class_prior=often"], "ensemble.class_prior"),
        (["ensemble.class_prio=0.5"], "ensemble.class_prio: unknown setting; did you mean 'class_prior'"),
        (["ensemble.label_model=metal", "ensemble.smoothing=-1"], "smoothing is -1.0"),
        (["ensemble.label_model=anchored", "ensemble.abstain=no"], "abstain"),
        (["ensemble.blend={label_model: clean_vs_pool, penalty: 0}"], "penalty is 0.0, but must be above 0"),
    ],
)
def test_settings_that_will_not_do_start_nothing_and_name_their_place(scored, run, settings, said):
    status, _, err = run("decide", scored.config("refused"), *settings)
    assert status == 2
    assert "ensemble" in err
    assert said in err
    assert not (scored.folder / "refused").exists()


@pytest.mark.parametrize(
    ("settings", "without", "said"),
    [
        (
            ["ensemble.label_model=flying_squid"],
            ["words", "entropy", "brightness"],
            "label model flying_squid of the aspect quality: triplets need three sources",
        ),
        (
            [*PICTURES[:1], *PICTURES[2:], "ensemble.aspects={picture: {label_model: gaussian}}"],
            ["entropy"],
            "label model gaussian of the aspect picture: gaussian learns from how three or more",
        ),
        (["ensemble.label_model=alone"], [], "label model alone of the aspect quality: `alone` is for one filter, not"),
    ],
)
def test_a_label_model_that_cannot_be_fitted_names_its_aspect_and_a_remedy(scored, run, settings, without, said):
    path = scored.config("unfit")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(tuple(f"  {name}:" for name in without))))
    status, _, err = run("decide", path, *settings)
    assert status == 1
    assert said in err
    assert "Traceback" not in err
    assert any(word in err for word in ("add sources", "choose a label model"))


def test_a_reference_that_is_too_small_is_refused(scored, run, tmp_path):
    write_clean(tmp_path / "few", samples=5, shard_size=5, seed=7)
    path = scored.config("few")
    assert run("score", path, f"reference={tmp_path / 'few'}", f"store={tmp_path / 'store'}")[0] == 0
    for setting in ("ensemble.label_model=anchored", "ensemble.blend=clean_vs_pool"):
        status, _, err = run("decide", path, f"reference={tmp_path / 'few'}", f"store={tmp_path / 'store'}", setting)
        assert status == 1
        assert "learns from known-good samples, but has 5: give 10 or more as `reference:`" in err


def test_a_class_prior_that_the_reference_rules_out_is_warned_of(scored, run):
    fitted = json.loads((scored.decided("anchored")[0] / "fitted.json").read_text())
    bound = fitted["judgement"]["ensemble"]["aspects"]["quality"]["model"]["class_prior_bound_"]
    for prior, warned in ((0.99, True), (round(bound, 2), False)):
        settings = ["ensemble.label_model=anchored", f"ensemble.class_prior={prior}"]
        status, _, err = run("decide", scored.config("prior"), *settings)
        assert status == 0
        assert (f"aspect quality: class_prior {prior:g} does not go with the reference" in err) == warned
