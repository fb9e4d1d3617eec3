import pytest

from chaffinch.jobs.config import load_config
from chaffinch.jobs.demo.pool import write_pool
from chaffinch.jobs.documents import ConfigError

GOOD = """\
input: POOL
output: OUT
filters:
  words: {column: captions.words, keep: [4, null], drop: [null, 2]}
  english: {kind: language, languages: [en, no], keep: [0.7, null], drop: [null, 0.3]}
  sharpness:
    column: pictures.sharpness
    keep: top 30%
    drop: bottom 40%
ensemble: {label_model: dawid_skene}
keep: {fraction: 0.3}
"""


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("config") / "pool"
    write_pool(folder, samples=60, shard_size=30, seed=3)
    return folder


@pytest.fixture
def load(pool, tmp_path):
    def read(text, *settings):
        path = tmp_path / "config.yaml"
        path.write_text(text.replace("POOL", str(pool)).replace("OUT", str(tmp_path / "out")))
        return load_config(str(path), list(settings))

    return read


def test_a_good_config(load):
    config = load(GOOD)
    assert list(config.filters) == ["words", "english", "sharpness"]
    assert config.filters["english"].languages == ("en", "no")  # `no` is Norwegian, not false
    assert sorted(config.scorers) == ["captions", "pictures"]
    assert config.sections.keep.fraction == 0.3
    assert [shard.name for shard in config.shards] == sorted(shard.name for shard in config.shards)


def test_what_is_dumped_loads_again_as_the_same(load, tmp_path):
    config = load(GOOD)
    again = tmp_path / "again.yaml"
    again.write_text(config.dump())
    other = load_config(str(again), [])
    assert other.filters == config.filters
    assert other.scorers == config.scorers
    assert other.models == config.models
    assert other.dump() == config.dump()


def test_settings_from_the_command_line_win(load):
    config = load(GOOD, "keep.fraction=0.2", "filters.words.keep=[8, null]", "run.batch_size=7", "store=/tmp/elsewhere")
    assert config.sections.keep.fraction == 0.2
    assert config.filters["words"].keep == (8.0, None)
    assert config.sections.run.batch_size == 7
    assert config.store == "/tmp/elsewhere"


def test_one_range_given_is_the_other_ones_complement_whatever_the_kind_prefers(load):
    config = load(GOOD, "filters.english={kind: language, languages: [en], drop: [null, 0.3]}")
    assert config.filters["english"].keep is None
    assert load(GOOD, "filters.english={kind: language, languages: [en]}").filters["english"].keep == (0.5, None)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("keep: {fraction: 0.3}", "keep: {fractoin: 0.3}", r":11: keep\.fractoin: .*did you mean 'fraction'"),
        ("keep: {fraction: 0.3}", "keep: {fraction: 1.3}", r":11: keep\.fraction: .*less than or equal to 1, not 1\.3"),
        ("keep: {fraction: 0.3}", "keep: {fraction: some}", r":11: keep\.fraction: .*number.*'some'"),
        ("keep: {fraction: 0.3}", "keep: {fraction: 0.3, count: 7}", r":11: .*not fraction and count"),
        ("keep: {fraction: 0.3}", "keep: 0.3", r":11: keep: "),
        ("output: OUT\n", "", r"output: is missing"),
        ("output: OUT", "outptu: OUT", r":2: outptu: .*did you mean 'output'"),
        (
            "captions.words",
            "captions.word",
            r":4: filters\.words\.column: no scorer writes .*did you mean 'captions\.words'",
        ),
        ("captions.words", "captions.languages", r":4: filters\.words\.column: .*not one number"),
        (
            "captions.words",
            "metadata.clip_score",
            r":4: filters\.words\.column: no scorer writes 'metadata\.clip_score'",
        ),
        ("kind: language", "kind: langauge", r":5: filters\.english\.kind: .*did you mean 'language'"),
        ("languages: [en, no]", "languages: [english]", r":5: filters\.english: .*english"),
        ("languages: [en, no]", "languages: 3", r":5: filters\.english\.languages: "),
        ("languages: [en, no]", "language: [en]", r":5: filters\.english\.languag"),
        ("drop: [null, 2]", "drop: [null, 5]", r":4: filters\.words: .*overlap between 4 and 5"),
        ("drop: bottom 40%", "drop: bottom 80%", r":6: filters\.sharpness: .*more than 100%"),
        ("keep: top 30%", "keep: best 30%", r":6: filters\.sharpness: 'best 30%' is no range"),
        ("keep: top 30%", "keep: above reference 30%", r":8: filters\.sharpness\.keep: .*needs a reference"),
        (
            "label_model: dawid_skene",
            "label_model: dawid_skeen",
            r":10: ensemble\.label_model: .*did you mean 'dawid_skene'",
        ),
        ("label_model: dawid_skene", "label_model: dawid_skene, class_prior: 1.5", r":10: ensemble: .*class_prior"),
        ("label_model: dawid_skene", "label_model: dawid_skene, prior: 0.5", r":10: ensemble\.prior: .*class_prior"),
        ("label_model: dawid_skene", "aspects: {langauge: {}}", r":10: ensemble\.aspects\.langauge: no filter has"),
        ("output: OUT", "output: OUT\noutput: OUT", r":3: output: is written twice"),
        ("output: OUT", "output: [OUT", r"not valid YAML"),
        ("output: OUT", "output: POOL/curated", r":2: output: .*lies inside the input"),
        ("input: POOL", "input: POOL/nowhere", r":1: input: no \.tar shards"),
        ("input: POOL", "input: []", r":1: input: "),
        ("input: POOL", "input: gopher://pool", r":1: input: "),
        ("output: OUT", "output: OUT\nreference: POOL/nowhere", r":3: reference: no \.tar shards"),
        ("output: OUT", "output: OUT\nscorers: {metadata: {kind: captions}}", r":3: scorers\.metadata: "),
        (
            "output: OUT",
            "output: OUT\nscorers: {b32: {kind: clip}}",
            r":3: scorers\.b32\.(model|pretrained): is missing",
        ),
        (
            "output: OUT",
            "output: OUT\nscorers: {b32: {kind: clip, model: ViT-B-32, pretrained: /nowhere/b32.pt}}",
            r":3: scorers\.b32: .*/nowhere/b32\.pt",
        ),
        (
            "output: OUT",
            "output: OUT\nscorers: {b32: {kind: clip, model: ViT-B32, pretrained: openai}}",
            r":3: scorers\.b32: .*ViT-B-32",
        ),
        ("output: OUT", "output: OUT\nrun: {runner: dask}", r":3: run\.runner: "),
        ("output: OUT", "output: OUT\nrun: {batch_size: 0}", r":3: run\.batch_size: .*not 0"),
        (
            "filters:\n",
            "filters:\n  phrases: {kind: boilerplate, phrases: /nowhere.yaml}\n",
            r":4: filters\.phrases: .*/nowhere\.yaml",
        ),
    ],
)
def test_every_error_names_its_place_and_a_remedy(load, old, new, expected):
    assert old in GOOD
    with pytest.raises(ConfigError, match=expected):
        load(GOOD.replace(old, new))


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("keep.fractoin=0.2", r"command line: keep\.fractoin=0\.2: .*did you mean 'fraction'"),
        ("keep", r"no setting; write key=value"),
        ("=3", r"no setting; write key=value"),
        ("output.name=x", r"holds no settings"),
        ("keep.fraction=[1", r"not valid YAML"),
    ],
)
def test_errors_on_the_command_line(load, setting, expected):
    with pytest.raises(ConfigError, match=expected):
        load(GOOD, setting)


def test_all_that_is_wrong_is_said_at_once(load):
    with pytest.raises(ConfigError) as caught:
        load(GOOD.replace("keep: {fraction: 0.3}", "keep: {fractoin: 0.3}\nemit: {samples_per_shard: -1}"))
    assert "fractoin" in str(caught.value)
    assert "samples_per_shard" in str(caught.value)


def test_a_config_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load_config(str(tmp_path / "nowhere.yaml"), [])
    broken = tmp_path / "broken.yaml"
    broken.write_bytes(b"\xff\xfe\x00input")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(str(broken), [])
    empty = tmp_path / "empty.yaml"
    empty.write_text("- just\n- a list\n")
    with pytest.raises(ConfigError, match="a config is a mapping"):
        load_config(str(empty), [])


def test_a_lone_filter_in_its_aspect_is_calibrated(load):
    config = load(GOOD, "filters.english.aspect=language", "ensemble.class_prior=0.4")
    assert config.models["language"].kind == "alone"
    assert config.models["language"].class_prior is None
    assert config.models["quality"].class_prior == 0.4
    own = load(GOOD, "filters.english.aspect=language", "ensemble.aspects.language={label_model: majority}")
    assert own.models["language"].kind == "majority"
