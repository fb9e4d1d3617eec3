import itertools
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from scipy.stats import rankdata

from chaffinch.jobs.main import main
from chaffinch.scoring.neighbour_captions import NeighbourCaptions
from chaffinch.scoring.scorer import Batch, fingerprint
from chaffinch.scoring.text.captioned_pictures import words_of

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
REFERENCE = [
    ([1, 0, 0], ["a dog on a beach", "the brown dog runs"]),
    ([0.9, 0.1, 0], ["a black dog in the sea"]),
    ([0, 1, 0], ["a cat on a sofa"]),
    ([0, 0.9, 0.1], ["the cat sleeps"]),
    ([0, 0, 1], ["a red car"]),
]


@pytest.fixture
def reference(tmp_path):
    path = tmp_path / "reference.parquet"
    vectors, captions = zip(*REFERENCE, strict=True)
    table = {"image_embedding": [list(map(float, one)) for one in vectors], "captions": captions}
    pq.write_table(pa.table(table | {"uid": [f"{row:032x}" for row in range(5)]}), path)
    return str(path)


def measure(reference, samples, uids=None, **settings):
    """Samples are vectors and captions."""
    scorer = NeighbourCaptions("b32.image_embedding", reference, "captions", **settings)
    vectors, captions = zip(*samples, strict=True)
    flat = pa.array(np.array(vectors, np.float16).ravel())
    columns = {"b32.image_embedding": pa.FixedSizeListArray.from_arrays(flat, 3), "captions.text": pa.array(captions)}
    return scorer.score(Batch(uids or ["f" * 32] * len(samples), [], (), columns), scorer.load("cpu"))


def plainly(vector, caption, count, without=None):
    """The formulas, word by word and picture by picture."""
    said = [words_of(captions) for _, captions in REFERENCE]

    def cosine(row):
        other = REFERENCE[row][0]
        return np.dot(vector, other) / np.linalg.norm(vector) / np.linalg.norm(other)

    near = sorted((row for row in range(5) if row != without), key=cosine, reverse=True)[:count]
    total = overlap = expected = 0
    for word in words_of([caption]):
        has = sum(word in words for words in said)
        idf = math.log(6 / (1 + has))
        total += idf
        overlap += idf * sum(word in said[row] for row in near) / len(near)
        expected += idf * has / 5
    return [overlap / total, (overlap - expected) / total, np.mean([cosine(row) for row in near])]


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_agrees_with_the_formulas(reference, count):
    vectors = [[1, 0.2, 0.1], [0.1, 1, 0.2], [0.3, 0.2, 1]]
    captions = ["A dog on the beach.", "the cat sleeps on a car", "a zebra, a zebra!"]
    samples = list(itertools.product(vectors, captions))
    found = measure(reference, samples, neighbours=count)
    for row, (vector, caption) in enumerate(samples):
        expected = plainly(vector, caption, count)
        np.testing.assert_allclose([values[row] for values in found.values()], expected, atol=2e-3)


def test_right_captions_agree_with_their_neighbours_and_wrong_ones_do_not(reference):
    samples = [([1, 0, 0.1], "the dog runs"), ([1, 0, 0.1], "the cat sleeps"), ([1, 0, 0.1], "buy cheap shoes")]
    found = measure(reference, samples, neighbours=2)
    assert found["overlap"][0] > found["overlap"][1] > found["overlap"][2] == 0
    assert found["excess"][0] > 0.2
    assert found["excess"][1] < 0
    assert found["excess"][2] == 0
    assert len(set(found["neighbour_similarity"].tolist())) == 1


def test_a_sample_of_the_reference_does_not_vouch_for_itself(reference):
    samples, uids = [(REFERENCE[4][0], "a red car")] * 2, [f"{4:032x}", "f" * 32]
    found = measure(reference, samples, uids, neighbours=1)
    assert found["overlap"].tolist()[1] == pytest.approx(1)
    np.testing.assert_allclose(
        [values[0] for values in found.values()], plainly(REFERENCE[4][0], "a red car", 1, without=4), atol=2e-3
    )


def test_what_cannot_be_judged_is_nan(reference):
    found = measure(reference, [([0, 0, 0], "a dog"), ([1, 0, 0], "..."), ([1, 0, 0], "a dog")])
    judged = {name: (~np.isnan(values)).tolist() for name, values in found.items()}
    assert judged == {
        "overlap": [False, False, True],
        "excess": [False, False, True],
        "neighbour_similarity": [False, True, True],
    }


def test_tables_are_named_by_what_the_reference_holds(reference, tmp_path):
    scorer = NeighbourCaptions("b32.image_embedding", reference, "captions")
    moved = tmp_path / "reference"
    moved.mkdir()
    Path(reference).rename(moved / "reference.parquet")
    elsewhere = NeighbourCaptions("b32.image_embedding", str(moved), "captions")
    name = fingerprint(elsewhere, "cpu")
    (moved / "reference.parquet").rename(reference)
    assert fingerprint(scorer, "cpu") == name
    assert fingerprint(NeighbourCaptions("b32.image_embedding", reference, "captions", 3), "cpu") != name


def test_wrong_settings_and_columns_are_refused(reference):
    with pytest.raises(ValueError, match="neighbours is 0: give 1 or more"):
        NeighbourCaptions("b32.image_embedding", reference, "captions", neighbours=0).check()
    with pytest.raises(ValueError, match="is no store that was scored"):
        NeighbourCaptions("b32.image_embedding", "nowhere").check()
    scorer = NeighbourCaptions("b32.image_embedding", reference, "captions")
    scorer.check()
    for kind, message in [
        (pa.list_(pa.float16(), 4), "has vectors of 3 numbers, and b32.image_embedding of 4: score the reference"),
        (pa.float32(), "holds float, not vectors; clip has them with `embeddings`"),
    ]:
        with pytest.raises(ValueError, match=message):
            scorer.check_columns({"b32.image_embedding": kind, "captions.text": pa.string()})
    scorer.check_columns({"b32.image_embedding": pa.list_(pa.float16(), 3), "captions.text": pa.string()})


def write_config(path, **settings):
    path.write_text(
        yaml.safe_dump({"filters": {"words": {"column": "captions.words"} | {"keep": [1, None]}}} | settings)
    )
    return str(path)


def read_store(root, folder, column):
    paths = sorted(next(Path(root).glob(folder)).glob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path)[column].to_pylist()]


def test_a_store_that_was_scored_is_a_reference(tmp_path, sample, write_shard, checkpoint):
    """From the command line: the reference first, with a config of its own, then a pool that shares half with it."""
    captions = ["a dog on a beach", "a cat on a sofa", "a red car"]
    for folder, numbers in (("trusted", range(6)), ("pool", range(3, 9))):
        for shard in range(2):
            rows = [sample(f"{row:012d}", row, captions[row % 3]) for row in numbers if row % 2 == shard]
            write_shard(tmp_path / folder / f"{shard:08d}.tar", [member for row in rows for member in row])
    b32 = {"kind": "clip", "model": "ViT-S-32-alt", "pretrained": str(checkpoint), "embeddings": True}
    reference = str(tmp_path / "trusted-scored" / "store")
    near = {"kind": "neighbour_captions", "embedding": "b32.image_embedding", "reference": reference, "neighbours": 2}
    filters = {"near": {"column": "near.overlap", "keep": "top 50%"}}
    trusted, pool = (
        write_config(
            tmp_path / f"{name}.yaml", input=str(tmp_path / name), output=str(tmp_path / f"{name}-scored"), **settings
        )
        for name, settings in (
            ("trusted", {"scorers": {"b32": b32}}),
            ("pool", {"scorers": {"b32": b32, "near": near}, "filters": filters}),
        )
    )
    assert main(["score", pool, "--quiet"]) == 2  # there is no reference yet
    assert main(["score", trusted, "--quiet"]) == 0
    assert main(["run", pool, "--quiet"]) == 0

    store = tmp_path / "pool-scored" / "store"
    among, asked = (np.array(read_store(one, "scores/b32-*", "image_embedding"), float) for one in (reference, store))
    among_uids, asked_uids = (read_store(one, "samples", "uid") for one in (reference, store))
    among_texts, asked_texts = (read_store(one, "scores/captions-*", "text") for one in (reference, store))
    assert len(set(among_uids) & set(asked_uids)) == 3
    found = read_store(store, "scores/near-*", "overlap")
    for vector, uid, text, overlap in zip(asked, asked_uids, asked_texts, found, strict=True):
        others = [row for row in range(6) if among_uids[row] != uid]
        near_rows = sorted(others, key=lambda row: -(vector @ among[row]))[:2]
        said = [set(among_texts[row].split()) for row in near_rows]
        weights = {word: math.log(7 / (1 + sum(word in text.split() for text in among_texts))) for word in text.split()}
        total = sum(weight * sum(word in words for words in said) / 2 for word, weight in weights.items())
        assert overlap == pytest.approx(total / sum(weights.values()), abs=1e-6)


@pytest.mark.real
@pytest.mark.skipif(not (DATA / "pool-flickr8k").is_dir(), reason="needs ../shared/data/pool-flickr8k")
def test_captions_of_other_pictures_of_the_real_pool_agree_less(tmp_path):
    """By a small detector's view of a quarter of the pool and of the reference, which is a poor sense of likeness."""
    yolox = {"kind": "onnx_detector", "weights": str(DATA / "weights" / "yolox_nano.onnx"), "features": True}
    near = {"kind": "neighbour_captions", "embedding": "yolox.features", "reference": str(tmp_path / "first" / "store")}
    for name, place, scorers in [
        ("first", "flickr8k-reference/00000001.tar", {"yolox": yolox}),
        ("second", "pool-flickr8k/00000001.tar", {"yolox": yolox, "near": near}),
    ]:
        reads = {"near": {"column": "near.excess", "keep": "top 50%"}} if "near" in scorers else {}
        reads |= {"words": {"column": "captions.words", "keep": [1, None]}}
        config = write_config(
            tmp_path / f"{name}.yaml",
            input=str(DATA / place),
            output=str(tmp_path / name),
            scorers=scorers,
            filters=reads,
        )
        assert main(["score", config, "--quiet"]) == 0
    store = tmp_path / "second" / "store"
    kinds = {row["key"]: row["kind"] for row in pq.read_table(DATA / "pool-flickr8k/truth.parquet").to_pylist()}
    keys = pq.read_table(store / "samples" / "00000001.parquet")["key"].to_pylist()
    rows = pq.read_table(next(store.glob("scores/near-*/00000001.parquet"))).to_pylist()
    for column, kind, least in [("excess", "mismatch", 0.6), ("overlap", "foreign", 0.9), ("overlap", "alt_text", 0.8)]:
        found = {
            name: [
                row[column]
                for key, row in zip(keys, rows, strict=True)
                if kinds[key] == name and row[column] is not None
            ]
            for name in (kind, "clean")
        }
        good = np.array(found["clean"] + found[kind], float)
        assert not np.isnan(good).any()
        ranks = rankdata(good)[: len(found["clean"])]
        assert (ranks.mean() - (len(ranks) + 1) / 2) / len(found[kind]) > least, kind
