import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import rankdata

from chaffinch.pipeline.samples import index_shard
from chaffinch.pipeline.shards import find_shards
from chaffinch.scoring.perplexity import Perplexity
from chaffinch.scoring.scorer import Batch, fingerprint
from chaffinch.scoring.text.corpus import read_captions

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
CAPTIONS = [
    f"A {noun} {verb} on the {place}."
    for noun in ("dog", "cat", "boy", "girl")
    for verb in ("runs", "sits", "sleeps")
    for place in ("beach", "grass", "sofa")
]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_text("\n".join(CAPTIONS), encoding="utf-8")
    return str(path)


def measure(scorer, captions):
    return scorer.score(Batch([""] * len(captions), captions), scorer.load("cpu"))


def test_usual_captions_cost_less(corpus):
    captions = ["A girl sleeps on the grass.", "buy cheap shoes online", "IMG_0031.JPG", "ein Hund rennt am Strand"]
    columns = measure(Perplexity(corpus), captions)
    for name in ("bits_per_word", "bits_per_character"):
        assert columns[name][0] < 0.5 * columns[name][1:].min()
    assert columns["unknown_share"].tolist() == pytest.approx(
        [0, 1, 2 / 3, 1]
    )  # of img_0031, full stop and jpg, one is known


def test_units(corpus):
    """Words, the full stop and the end share the bits; characters are counted as one reads them."""
    columns = measure(Perplexity(corpus), ["  A  dog runs on the beach. "])
    bits = columns["bits_per_word"][0] * (7 + 1)
    assert columns["bits_per_character"][0] == pytest.approx(bits / len("A dog runs on the beach."), rel=1e-6)


def test_case_and_blanks_do_not_matter_and_blank_captions_have_no_numbers(corpus):
    columns = measure(Perplexity(corpus), ["A dog runs on the beach.", "a DOG runs\ton the  beach.", " \n", "\u3000"])
    for values in columns.values():
        assert values[0] == values[1]
        assert np.isnan(values[2:]).all()


def test_captions_of_the_corpus_look_no_better_than_new_ones_of_their_kind(tmp_path):
    """Every second caption goes into a corpus, each with a word of its own; with folds, the others cost the same."""
    generator = random.Random(1)
    captions = [f"{caption[:-1]} near {''.join(generator.sample('aeioulmnrst', 6))}." for caption in CAPTIONS * 4]
    half = tmp_path / "half.txt"
    half.write_text("\n".join(captions[::2]))
    gaps = {}
    for folds in (1, 3):
        bits = measure(Perplexity(str(half), folds=folds), captions)["bits_per_word"]
        gaps[folds] = bits[1::2].mean() / bits[::2].mean()
    assert gaps[1] > 1.3
    assert abs(gaps[3] - 1) < 0.05


def test_tables_are_named_by_what_the_corpus_holds_and_by_the_settings(corpus, tmp_path):
    table = tmp_path / "elsewhere.parquet"
    pq.write_table(pa.table({"text": CAPTIONS}), table)
    name = fingerprint(Perplexity(corpus), "cpu")
    assert fingerprint(Perplexity(str(table), "text"), "cuda") == name
    others = [{"order": 2}, {"folds": 3}, {"max_words": 100}]
    assert len({name, *(fingerprint(Perplexity(corpus, **other), "cpu") for other in others)}) == 4
    Path(corpus).write_text("\n".join(CAPTIONS[1:]))
    assert fingerprint(Perplexity(corpus), "cpu") != name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": 0}, "order is 0: give a whole number from 1 to 5"),
        ({"folds": 0}, "folds is 0"),
        ({"max_words": 0}, "max_words is 0"),
        ({"captions_key": "text"}, "leave captions_key out"),
        ({"corpus": "nowhere/*.tar"}, "nothing that is there"),
    ],
)
def test_wrong_settings_are_refused(corpus, settings, message):
    with pytest.raises(ValueError, match=message):
        Perplexity(**({"corpus": corpus} | settings)).check()
    Perplexity(corpus).check()


@pytest.fixture(scope="module")
def pool():
    """Kind of noise -> captions of the real pool."""
    truth = {(row["shard"], row["key"]): row for row in pq.read_table(DATA / "pool-flickr8k/truth.parquet").to_pylist()}
    captions = {}
    for shard in find_shards(str(DATA / "pool-flickr8k")):
        content = Path(shard.path).read_bytes()
        for row in index_shard(shard).to_pylist():
            if row["reject"] is None:
                start, size = row["offsets"][row["caption"]], row["sizes"][row["caption"]]
                kind = truth[shard.name, row["key"]]["kind"]
                captions.setdefault(kind, []).append(content[start : start + size].decode())
    return captions


@pytest.mark.real
@pytest.mark.skipif(not (DATA / "pool-flickr8k").is_dir(), reason="needs ../shared/data/pool-flickr8k")
@pytest.mark.parametrize("column", ["bits_per_word", "bits_per_character"])
def test_alt_text_foreign_and_boilerplate_captions_of_the_real_pool_are_found(pool, column):
    scorer = Perplexity(str(DATA / "flickr8k-reference"), "captions")
    model = scorer.load("cpu")
    bits = {kind: scorer.score(Batch([""] * len(captions), captions), model)[column] for kind, captions in pool.items()}
    for kind, least, most in [
        ("alt_text", 0.98, 1),
        ("foreign", 0.98, 1),
        ("boilerplate", 0.98, 1),
        ("mismatch", 0.4, 0.6),  # good captions, if of another picture
    ]:
        ranks = rankdata(np.concatenate([bits[kind], bits["clean"]]))[: len(bits[kind])]
        area = (ranks.mean() - (len(bits[kind]) + 1) / 2) / len(bits["clean"])
        assert least <= area <= most, kind


@pytest.mark.real
@pytest.mark.skipif(not (DATA / "pool-flickr8k").is_dir(), reason="needs ../shared/data/pool-flickr8k")
def test_a_reference_that_is_also_the_corpus_sets_honest_ranges(pool):
    """Of clean captions that the corpus does not have, about as many lie beyond its 99% as of its own."""
    scorer = Perplexity(str(DATA / "flickr8k-reference"))
    model = scorer.load("cpu")
    own = list(read_captions(scorer.corpus, None))
    beyond = {
        name: np.quantile(scorer.score(Batch([""] * len(captions), captions), model)["bits_per_word"], [0.5, 0.99])
        for name, captions in (("own", own), ("new", pool["clean"]))
    }
    np.testing.assert_allclose(beyond["own"], beyond["new"], rtol=0.1)
