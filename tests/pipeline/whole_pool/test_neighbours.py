"""The neighbours of whole pools against all pairs tried one by one, on any number of workers and after any stop."""

import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from chaffinch.filters.column import Column
from chaffinch.pipeline.deciding.judgement import Pool
from chaffinch.pipeline.engines.engine import Engine
from chaffinch.pipeline.measuring.feeds import Wanted
from chaffinch.pipeline.measuring.gate import Gate
from chaffinch.pipeline.metadata import Metadata
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.shards import Shard
from chaffinch.pipeline.storage import files, parquet
from chaffinch.pipeline.store import Store
from chaffinch.pipeline.whole_pool import picture_sets
from chaffinch.pipeline.whole_pool.neighbours import clear_exchanges, score_pool
from chaffinch.pipeline.whole_pool.picture_sets import SetError
from chaffinch.scoring.neighbours import Neighbours

D = 64
REJECTED = "picture is empty"


def signs(rng: np.random.Generator, n: int) -> np.ndarray:
    """Vectors whose products are whole multiples of 1 / 64, also in half precision: exact in any order of adding up."""
    return rng.choice([-1.0, 1.0], (n, D)) / 8


@dataclass
class Measured:
    """A store as scoring leaves it, of which this test made up what was measured.

    Attributes:
        root: a folder.
        rows: shard -> its samples: uid, reject, vector, hash, prefer and side.
    """

    root: Path
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def pool(self) -> Pool:
        shards = [Shard(name, f"{self.root}/{name}.tar", 1, 0.0) for name in self.rows]
        return Pool(shards, Source(Store(str(self.root / "store")), {"made": "made-0"}, Metadata("none")))

    def write(self) -> None:
        store = self.pool.source.store
        for shard in self.pool.shards:
            rows = self.rows[shard.name]
            plain = {name: [row[name] for row in rows] for name in ("uid", "reject", "hash", "prefer", "side")}
            samples = {"uid": pa.array(plain["uid"]), "key": pa.array(plain["uid"])}
            reject = pa.array(plain["reject"], pa.string())
            parquet.write_table(store.samples(shard.name), pa.table({**samples, "reject": reject}))
            columns = {
                "vector": pa.array([row["vector"] for row in rows], pa.list_(pa.float16(), D)),
                "hash": pa.array(plain["hash"], pa.uint64()),
                "prefer": pa.array(plain["prefer"], pa.float32(), from_pandas=False),
                "side": pa.array(plain["side"], pa.float32()),
                "reject": reject,
            }
            parquet.write_table(store.scores("made-0", shard.name), pa.table(columns))
            files.write_bytes(store.stamp(shard.name, shard.stamp), b"")

    def score(self, scorer: Neighbours, workers: int = 1, **settings: Any) -> None:
        wanted = Wanted("near", "near-1", scorer, settings.pop("gate", None))
        score_pool(Engine(workers), self.pool, wanted, "cpu", str(self.root / "scratch"), **settings)

    def found(self) -> list[dict[str, Any]]:
        """What was measured of every sample, in order."""
        store = self.pool.source.store
        return [row for name in self.rows for row in parquet.read_table(store.scores("near-1", name)).to_pylist()]

    def all(self) -> list[dict[str, Any]]:
        return [row for rows in self.rows.values() for row in rows]

    def bytes(self) -> dict[str, bytes]:
        folder = self.root / "store" / "scores" / "near-1"
        return {path.name: path.read_bytes() for path in sorted(folder.glob("**/*.parquet"))}

    def forget(self) -> None:
        shutil.rmtree(self.root / "store" / "scores" / "near-1", ignore_errors=True)


def make(root: Path, shards: int = 4, samples: int = 60, seed: int = 0) -> Measured:
    """A pool in which half of the samples are near another, and some are rejected, skipped or have no direction."""
    rng = np.random.default_rng(seed)
    parents = signs(rng, shards * samples // 3)
    hashes = rng.integers(0, 2**64, len(parents), dtype=np.uint64)
    measured = Measured(root)
    for shard in range(shards):
        rows = []
        for _ in range(samples):
            parent = rng.integers(len(parents))
            vector, code = parents[parent].copy(), int(hashes[parent])
            for _ in range(rng.integers(0, 5)):
                vector[rng.integers(D)] *= -1
                code ^= 1 << int(rng.integers(64))
            fate = rng.integers(12)
            rows.append(
                {
                    "uid": f"{rng.integers(2**62):032x}",
                    "reject": REJECTED if fate == 0 else None,
                    "vector": None if fate <= 1 else [0.0] * D if fate == 2 else vector.tolist(),
                    "hash": None if fate <= 1 else code,
                    "prefer": [None, math.nan, 1.0, 2.0, 2.0, 3.0][rng.integers(6)],
                    "side": float(rng.integers(0, 10)),
                }
            )
        measured.rows[f"part/{shard:08d}"] = rows
    measured.write()
    return measured


def preference(rows: list[dict[str, Any]], by: bool) -> list[int]:
    """Positions of samples, the most preferred first."""

    def key(row: int) -> tuple[Any, ...]:
        value = rows[row]["prefer"] if by else None
        unknown = value is None or math.isnan(value)
        return (unknown, 0 if unknown else -value, rows[row]["uid"], row)

    return sorted(range(len(rows)), key=key)


def twin_similarity(rows, taking, clusters, by) -> list[float | None]:
    wanted: list[float | None] = [None] * len(rows)
    before: dict[int, list[np.ndarray]] = {}
    for row in preference(rows, by):
        if not taking[row]:
            continue
        vector = np.array(rows[row]["vector"])
        if not vector.any():
            wanted[row] = math.nan
            continue
        others = before.setdefault(clusters[row], [])
        wanted[row] = max((float(vector @ other) for other in others), default=-1.0)
        others.append(vector)
    return wanted


def twin_distance(rows, taking, radius, by) -> list[int | None]:
    wanted: list[int | None] = [None] * len(rows)
    before: list[int] = []
    for row in preference(rows, by):
        if taking[row]:
            nearest = min(((rows[row]["hash"] ^ other).bit_count() for other in before), default=64)
            wanted[row] = nearest if nearest <= radius else 64
            before.append(rows[row]["hash"])
    return wanted


def same(found, wanted) -> bool:
    return str(found) == str(wanted)  # as text, where NaN equals NaN


@pytest.mark.parametrize("by", [False, True])
def test_similarities_in_one_cluster(tmp_path, by):
    measured = make(tmp_path)
    measured.score(Neighbours(embedding="made.vector", prefer="made.prefer" if by else None))
    rows, found = measured.all(), measured.found()
    taking = [row["vector"] is not None for row in rows]
    wanted = twin_similarity(rows, taking, [0] * len(rows), by)
    assert same([row["similarity"] for row in found], wanted)
    assert sum(value is not None and value > 0.8 for value in wanted) > 40
    lost = [not take or not np.any(row["vector"]) for row, take in zip(rows, taking, strict=True)]
    assert [row["cluster"] is None for row in found] == lost
    assert {row["cluster"] for row in found} == {None, 0}
    assert [row["reject"] for row in found] == [row["reject"] for row in rows]


@pytest.mark.parametrize("by", [False, True])
def test_similarities_within_many_clusters(tmp_path, by):
    measured = make(tmp_path, samples=100)
    measured.score(Neighbours(embedding="made.vector", prefer="made.prefer" if by else None, clusters=9, seed=5))
    rows, found = measured.all(), measured.found()
    clusters = [row["cluster"] for row in found]
    assert len(set(clusters)) == 10
    taking = [row["vector"] is not None for row in rows]
    assert same([row["similarity"] for row in found], twin_similarity(rows, taking, clusters, by))
    near = [row["centroid_similarity"] for row, one in zip(found, clusters, strict=True) if one is not None]
    assert 0 < min(near) < max(near) <= 1


@pytest.mark.parametrize("radius", [0, 3, 7, 12])
def test_distances_of_hashes(tmp_path, radius):
    measured = make(tmp_path)
    measured.score(Neighbours(hash="made.hash", radius=radius, prefer="made.prefer"))
    rows = measured.all()
    wanted = twin_distance(rows, [row["hash"] is not None for row in rows], radius, by=True)
    assert [row["distance"] for row in measured.found()] == wanted
    assert sum(value is not None and value <= radius for value in wanted) > 5


@pytest.mark.parametrize(
    "scorer",
    [Neighbours(embedding="made.vector", clusters=5, balance=1.2, prefer="made.prefer"), Neighbours(hash="made.hash")],
    ids=["embedding", "hash"],
)
def test_workers_groups_and_order_change_no_byte(tmp_path, scorer):
    measured = make(tmp_path)
    measured.score(scorer)
    wanted = measured.bytes()
    assert len(wanted) == 4
    assert not (tmp_path / "store" / "exchange").exists()
    for workers, size in ((1, 1000), (2, 1 << 28), (2, 5000)):
        measured.forget()
        measured.score(scorer, workers, bytes_per_group=size)
        assert measured.bytes() == wanted, (workers, size)


@pytest.mark.parametrize(
    ("scorer", "stops"),
    # In the sample, before the clusters, between what one shard drafts and sends, in the groups, and in the tables.
    [(Neighbours(embedding="made.vector", clusters=5), (1, 2, 4, 9, 13)), (Neighbours(hash="made.hash"), (0, 1, 6, 9))],
    ids=["embedding", "hash"],
)
def test_stopped_in_any_pass_it_goes_on_to_the_same_bytes(tmp_path, monkeypatch, scorer, stops):
    """As if the process ended at one file or another, those before it written."""
    measured = make(tmp_path, shards=2, samples=30)
    real, written, most = files.writing, 0, 1000

    def writing(path):
        nonlocal written
        if "/store/" in path:
            if written == most:
                raise RuntimeError("stopped")
            written += 1
        return real(path)

    monkeypatch.setattr(files, "writing", writing)
    measured.score(scorer, bytes_per_group=4000)
    wanted = measured.bytes()
    assert written == stops[-1] + 1  # the last stop is before the last file
    for stop in stops:
        measured.forget()
        written, most = 0, stop
        with pytest.raises(RuntimeError, match="stopped"):
            measured.score(scorer, bytes_per_group=4000)
        most = 1000
        measured.score(scorer, bytes_per_group=4000)
        assert measured.bytes() == wanted, stop
        assert not (tmp_path / "store" / "exchange").exists()


def test_vetoed_samples_and_repeats_are_nobodys_neighbours(tmp_path):
    measured = make(tmp_path, samples=40)
    names = list(measured.rows)
    measured.rows[names[2]][5]["uid"] = measured.rows[names[0]][3]["uid"]
    measured.rows[names[0]][3]["reject"] = None
    measured.rows[names[0]][3]["vector"] = measured.rows[names[2]][5]["vector"] = [0.125] * D
    measured.rows[names[2]][5]["reject"] = None
    measured.rows[names[0]][3]["side"] = measured.rows[names[2]][5]["side"] = 9.0
    measured.write()
    veto = {"side": Column(column="made.side", keep=(4, None), require=True)}
    gate = Gate.fit(lambda *_: pytest.fail("nothing is to be counted"), measured.pool, None, veto)
    measured.score(Neighbours(embedding="made.vector", prefer="made.prefer"), gate=gate)
    rows = measured.all()
    taking = [row["vector"] is not None and row["side"] >= 4 for row in rows]
    taking[2 * 40 + 5] = False
    wanted = twin_similarity(rows, taking, [0] * len(rows), by=True)
    assert same([row["similarity"] for row in measured.found()], wanted)
    assert sum(taking) < sum(row["vector"] is not None for row in rows) - 10


def test_a_group_keeps_one_whatever_the_threshold(tmp_path):
    """Of samples that are joined by chains of neighbours, the most preferred is far from all that are preferred."""
    measured = make(tmp_path)
    measured.score(Neighbours(hash="made.hash", prefer="made.prefer"))
    rows, found = measured.all(), measured.found()
    for threshold in (0, 2, 5, 7):
        groups = {row: row for row, one in enumerate(rows) if one["hash"] is not None}
        for one in groups:
            for other in groups:
                if (rows[one]["hash"] ^ rows[other]["hash"]).bit_count() <= threshold:
                    first, second = groups[one], groups[other]
                    groups = {row: first if group == second else group for row, group in groups.items()}
        kept = {groups[row] for row in groups if found[row]["distance"] > threshold}
        assert kept == set(groups.values())


def test_sets_of_pictures(tmp_path):
    measured = make(tmp_path)
    rng = np.random.default_rng(7)
    reference, evaluation = signs(rng, 30), signs(rng, 20)
    evaluation[0] = next(row["vector"] for row in measured.all() if row["vector"] is not None and any(row["vector"]))
    np.save(tmp_path / "reference.npy", reference.astype(np.float16))
    np.save(tmp_path / "evaluation.npy", evaluation)
    scorer = Neighbours(
        embedding="made.vector",
        clusters=40,
        reference=str(tmp_path / "reference.npy"),
        evaluation=str(tmp_path / "evaluation.npy"),
    )
    measured.score(scorer)
    found, rows = measured.found(), measured.all()
    counted = {row["cluster"]: row["reference_pictures"] for row in found if row["cluster"] is not None}
    assert 0 < sum(counted.values()) <= 30
    assert min(counted.values()) == 0
    for row, one in zip(rows, found, strict=True):
        if one["cluster"] is not None:
            assert one["evaluation_similarity"] == max(float(np.array(row["vector"]) @ other) for other in evaluation)
            assert one["reference_pictures"] == counted[one["cluster"]]
    assert max(row["evaluation_similarity"] or -1 for row in found if row["cluster"] is not None) == 1


def test_the_experiments_own_reference(tmp_path):
    measured, trusted = make(tmp_path / "pool"), make(tmp_path / "trusted", shards=2, seed=9)
    measured.score(Neighbours(embedding="made.vector", clusters=20, reference=True), reference=trusted.pool)
    own = measured.found()
    vectors = [row["vector"] for row in trusted.all() if row["vector"] is not None]
    np.save(tmp_path / "set.npy", np.array(vectors, np.float16))
    measured.forget()
    measured.score(Neighbours(embedding="made.vector", clusters=20, reference=str(tmp_path / "set.npy")))
    assert same(measured.found(), own)
    assert max(row["reference_pictures"] for row in own if row["cluster"] is not None) > 0


def test_hashes_of_an_evaluation_set(tmp_path):
    measured = make(tmp_path)
    codes = [row["hash"] ^ 5 for row in measured.all() if row["hash"] is not None][:3]
    codes += [0, 2**64 - 1]
    np.save(tmp_path / "set.npy", np.array(codes, np.uint64))
    measured.score(Neighbours(hash="made.hash", evaluation=str(tmp_path / "set.npy")))
    wanted = [
        None if row["hash"] is None else min((row["hash"] ^ code).bit_count() for code in codes)
        for row in measured.all()
    ]
    assert [row["evaluation_distance"] for row in measured.found()] == wanted


def test_sets_that_do_not_fit_stop_it(tmp_path):
    picture_sets.read_embeddings.cache_clear()
    measured = make(tmp_path, shards=1, samples=10)
    path = tmp_path / "set.npy"
    np.save(path, np.ones((3, D), np.int64))
    with pytest.raises(SetError, match="no vectors of one length"):
        measured.score(Neighbours(embedding="made.vector", evaluation=str(path)))
    for which in ("evaluation", "reference"):
        picture_sets.read_embeddings.cache_clear()
        np.save(path, np.ones((3, 32), np.float32))
        with pytest.raises(SetError, match=f"{which}: its vectors have 32 numbers, those of made.vector have 64"):
            measured.score(Neighbours(embedding="made.vector", **{which: str(path)}))


def test_a_pool_of_which_nobody_takes_part(tmp_path):
    measured = make(tmp_path, shards=2, samples=5)
    for row in measured.all():
        row["vector"] = row["hash"] = None
    measured.write()
    for scorer in (Neighbours(embedding="made.vector", clusters=3), Neighbours(hash="made.hash")):
        measured.forget()
        measured.score(scorer)
        assert len(measured.found()) == 10
        assert all(row[name] is None for row in measured.found() for name in scorer.columns)
    for row in measured.all():
        row["vector"] = [0.0] * D
    measured.write()
    measured.forget()
    measured.score(Neighbours(embedding="made.vector"))
    assert all(
        row["cluster"] is None and (row["similarity"] is None) == (one["reject"] is not None)
        for row, one in zip(measured.found(), measured.all(), strict=True)
    )


def test_a_pool_without_samples(tmp_path):
    measured = Measured(tmp_path, {"00000000": []})
    measured.write()
    measured.score(Neighbours(embedding="made.vector"))
    assert measured.found() == []


def test_tables_of_another_version_of_the_pool_are_written_again(tmp_path):
    """A shard that could not be read at first is one of the pool later on; the names of the tables are the same."""
    measured = make(tmp_path)
    scorer, name = Neighbours(hash="made.hash", prefer="made.prefer"), next(iter(measured.rows))
    store, readable = measured.pool.source.store, measured.rows[name]
    measured.rows[name] = [readable[0] | {"reject": "shard cannot be read", "vector": None, "hash": None}]
    measured.write()
    shard = measured.pool.shards[0]
    files.remove(store.stamp(name, shard.stamp))
    files.write_bytes(store.stamp(name, "unreadable-00000000"), b"")
    measured.score(scorer)
    before = measured.bytes()
    measured.rows[name] = readable
    measured.write()
    files.remove(store.stamp(name, "unreadable-00000000"))
    files.remove(store.scores("near-1", name))
    measured.score(scorer)
    after = measured.bytes()
    rows = measured.all()
    wanted = twin_distance(rows, [row["hash"] is not None for row in rows], 7, by=True)
    assert [row["distance"] for row in measured.found()] == wanted
    assert sum(before[one] != after[one] for one in before) >= 2


def test_only_what_is_missing_is_written(tmp_path, snapshot):
    measured = make(tmp_path)
    measured.score(Neighbours(hash="made.hash"))
    folder = tmp_path / "store" / "scores" / "near-1"
    wanted, before = measured.bytes(), snapshot(folder)
    (folder / "part" / "00000002.parquet").unlink()
    measured.score(Neighbours(hash="made.hash"))
    assert measured.bytes() == wanted
    after = snapshot(folder)
    assert [name for name in after if after[name] != before[name]] == ["part/00000002.parquet"]


def test_what_a_run_left_at_its_very_end_is_cleared(tmp_path):
    store = str(tmp_path / "store")
    for name in ("near-1-aaaaaaaa", "near-2-bbbbbbbb"):
        files.write_bytes(f"{store}/exchange/{name}/found/0-1", b"")
    clear_exchanges(store, "near-1")
    assert [path.name for path in (tmp_path / "store" / "exchange").iterdir()] == ["near-2-bbbbbbbb"]
    clear_exchanges(store, "near-2")
    assert not (tmp_path / "store" / "exchange").exists()


def test_the_sample_is_drawn_by_seed(tmp_path):
    measured = make(tmp_path, samples=100)
    found = {}
    for seed in (1, 2):
        measured.forget()
        measured.score(Neighbours(embedding="made.vector", clusters=8, sample_per_cluster=10, seed=seed))
        found[seed] = [row["cluster"] for row in measured.found()]
        assert len(set(found[seed])) == 9
    assert found[1] != found[2]
