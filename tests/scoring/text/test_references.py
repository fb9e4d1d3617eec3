import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chaffinch.scoring.text.references import find_reference

VECTORS = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], None, [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
CAPTIONS = ["a dog", "a cat", "no vector", "no direction", None, "a dog again"]
UIDS = [f"{row:032x}" for row in range(5)] + [f"{0:032x}"]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "pictures.parquet"
    pq.write_table(pa.table({"image_embedding": VECTORS, "caption": CAPTIONS, "uid": UIDS}), path)
    return path


@pytest.fixture
def store(tmp_path):
    """The same rows as a store of two shards has them, one of them in a folder of its own."""
    root = tmp_path / "store"
    for name, rows in (("00000000", slice(0, 3)), ("more/00000001", slice(3, 6))):
        for folder, columns in (
            ("samples", {"uid": UIDS[rows]}),
            ("scores/b32-12345678", {"image_embedding": pa.array(VECTORS[rows], pa.list_(pa.float16()))}),
            ("scores/b32-large-1", {"image_embedding": pa.array(VECTORS[rows], pa.list_(pa.float16()))}),
            ("scores/captions-00000001", {"text": CAPTIONS[rows]}),
            ("scores/captions-00000002", {"text": CAPTIONS[rows]}),
        ):
            path = root / folder / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(columns), path)
        stamp = root / "stamps" / f"{name}.abc"
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text("abc")
    return root


def find(path, key=None):
    return find_reference(str(path), "b32.image_embedding", key)


def test_pictures_without_a_direction_or_a_caption_are_left_out_and_of_equal_uids_the_first_is_taken(table, store):
    for found in (find(table, "caption"), find(store), find(store / "scores" / "b32-12345678")):
        pictures = found.read(100)
        assert pictures.words == [{"a", "dog"}, {"a", "cat"}]
        assert pictures.vectors.tolist() == [[1, 0, 0], [0, 1, 0]]
        assert pictures.rows == {UIDS[0]: 0, UIDS[1]: 1}
        assert pictures.frequencies == {"a": 2, "dog": 1, "cat": 1}
        assert found.dimensions() == 3


def test_several_captions_are_the_words_of_all_and_uids_are_not_needed(tmp_path):
    path = tmp_path / "several" / "a.parquet"
    path.parent.mkdir()
    captions = [["a dog", "the hound"], [], ["one", None], None, ["x"], ["y"]]
    pq.write_table(pa.table({"image_embedding": VECTORS, "captions": captions}), path)
    pictures = find(path.parent, "captions").read(100)
    assert pictures.words == [{"a", "dog", "the", "hound"}, {"x"}, {"y"}]
    assert pictures.rows == {}


def test_of_too_many_pictures_the_same_are_taken_in_whatever_files_they_lie(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(f"{row:032x}", rng.normal(size=3).tolist(), f"number {row}") for row in range(40)]
    chosen = []
    for name, parts in (("one", [rows]), ("two", [rows[30:], rows[:30]])):
        for number, part in enumerate(parts):
            path = tmp_path / name / f"{number}.parquet"
            path.parent.mkdir(exist_ok=True)
            uids, vectors, captions = zip(*part, strict=True)
            pq.write_table(pa.table({"image_embedding": vectors, "caption": captions, "uid": uids}), path)
        chosen.append(set(find(tmp_path / name, "caption").read(7).rows))
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 7
    assert chosen[0] != {uid for uid, _, _ in rows[:7]}


def test_a_reference_is_known_by_what_it_holds(table, store, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(store, moved)
    assert find(moved).identity == find(store).identity
    (moved / "stamps" / "00000000.abc").rename(moved / "stamps" / "00000000.def")
    assert find(moved).identity != find(store).identity
    before = find(table, "caption").identity
    pq.write_table(pa.table({"image_embedding": VECTORS[:1], "caption": CAPTIONS[:1]}), table)
    assert find(table, "caption").identity != before


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda store: shutil.rmtree(store / "scores/b32-12345678"), "lacks embeddings or captions: score the ref"),
        (lambda store: [shutil.rmtree(path) for path in store.glob("scores/captions-*")], "lacks embeddings or capt"),
        (lambda store: shutil.copytree(store / "scores/b32-12345678", store / "scores/b32-9"), "has 2 versions of the"),
        (lambda store: (store / "scores/b32-12345678/00000000.parquet").unlink(), "00000000.parquet' is not there: sc"),
        (lambda store: shutil.rmtree(store / "samples"), "samples' is not there: score the reference to its end"),
        (lambda store: (store / "scores/b32-12345678/00000000.parquet").write_bytes(b"PAR"), "cannot be read.*repair"),
    ],
)
def test_a_store_that_is_not_whole_is_refused_with_the_remedy(store, spoil, message):
    spoil(store)
    with pytest.raises(ValueError, match=message):
        find(store).read(100)


def test_a_store_has_the_captions(store):
    with pytest.raises(ValueError, match="is a store, which has the captions: leave captions_key out"):
        find(store, "caption")
    with pytest.raises(ValueError, match="has no column 'other', but image_embedding"):
        find_reference(str(store), "b32.other", None)


@pytest.mark.parametrize(
    ("columns", "key", "message"),
    [
        (
            {"image_embedding": VECTORS, "caption": CAPTIONS},
            "text",
            r"no column 'text' \(captions_key\), but caption, im",
        ),
        ({"image_embedding": VECTORS, "caption": CAPTIONS}, None, r"no column None \(captions_key\)"),
        ({"vector": VECTORS, "caption": CAPTIONS}, "caption", r"no column 'image_embedding' \(embedding\)"),
        ({"image_embedding": [1.0], "caption": ["a"]}, "caption", "image_embedding holds double, not vectors"),
        ({"image_embedding": [["a"]], "caption": ["a"]}, "caption", "holds list.*string.*, not vectors"),
        ({"image_embedding": [[1.0, 2.0], [1.0]], "caption": ["a", "b"]}, "caption", "differ in length"),
        ({"image_embedding": [[0.0]], "caption": ["a"]}, "caption", "hold no picture with a caption"),
        ({"image_embedding": [[1.0]], "caption": ["..."]}, "caption", "hold no picture with a caption"),
    ],
)
def test_broken_tables_are_refused_with_their_place(tmp_path, columns, key, message):
    path = tmp_path / "broken.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(ValueError, match=message) as refusal:
        find(path, key).read(100)
    assert str(path) in str(refusal.value)


def test_what_is_not_there_is_refused(tmp_path):
    for place in ("nowhere", "a.npy"):
        with pytest.raises(ValueError, match=r"is no store that was scored, no \.parquet file"):
            find(tmp_path / place, "caption")
    with pytest.raises(ValueError, match="not on the local disk: copy it there"):
        find("s3://bucket/store")
    path = tmp_path / "empty.parquet"
    pq.write_table(pa.table({"image_embedding": pa.array([None], pa.list_(pa.float32())), "caption": ["a"]}), path)
    with pytest.raises(ValueError, match="hold no 'image_embedding'"):
        find(path, "caption").dimensions()
