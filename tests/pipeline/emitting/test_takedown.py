"""Taking samples down: only the output shards that held them change, by nothing but their absence."""

import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from chaffinch.pipeline.deciding.verdicts import TAKEN_DOWN, decisions_path
from chaffinch.pipeline.emitting.emit import emit
from chaffinch.pipeline.emitting.plan import Plan
from chaffinch.pipeline.engines.engine import Engine
from chaffinch.pipeline.measuring.score import find_tasks, score_shard
from chaffinch.pipeline.metadata import Metadata
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.shards import find_shards
from chaffinch.pipeline.store import Store

SHARDS, SAMPLES = 4, 9


@dataclass
class Takedown:
    """A pool with decisions made by hand, of which any may be taken down."""

    pool: Path
    output: Path
    uids: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.source = Source(Store(str(self.pool.parent / "store")), {}, Metadata("none"))
        self.shards = find_shards(str(self.pool))
        for task in find_tasks(self.shards, self.source.store, []):
            score_shard(task, self.source, [], 4)
        rng = np.random.default_rng(0)
        self.placed = {shard.name: rng.random(SAMPLES) < 0.7 for shard in self.shards}
        self.tables = {shard.name: pq.read_table(self.source.store.samples(shard.name)) for shard in self.shards}
        self.uids = [
            uid
            for name, table in self.tables.items()
            for uid in table["uid"].filter(pa.array(self.placed[name])).to_pylist()
        ]

    def emit(self, taken_down: set[str], size: int = 5, seed: int | None = None) -> None:
        """Writes the shards without some samples, named by their uids."""
        counts = []
        for shard in self.shards:
            uids = self.tables[shard.name]["uid"].to_pylist()
            placed = self.placed[shard.name]
            out = placed & np.array([uid in taken_down for uid in uids])
            words = np.where(placed, f"{TAKEN_DOWN}blocked", "dropped: below the cut")
            table = {
                "keep": placed & ~out,
                "probability": pa.array(np.linspace(0, 1, SAMPLES, dtype=np.float32)),
                "reason": pa.array(words, mask=placed & ~out),
            }
            path = Path(decisions_path(str(self.output), shard.name))
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(table), path)
            counts.append(int(out.sum()))
        plan = Plan(self.shards, [int(placed.sum()) for placed in self.placed.values()], size, seed, counts)
        emit(Engine(), plan, self.source, str(self.output), [])

    @property
    def folder(self) -> Path:
        return self.output / "shards"

    def emitted(self) -> dict[str, dict[str, list[tuple[str, bytes]]]]:
        """Output shard -> uid -> its members with their headers' bytes, in the order of the shard."""
        found = {}
        for path in sorted(self.folder.glob("*.tar")):
            data = path.read_bytes()
            members: dict[str, list[tuple[str, bytes]]] = {}
            with tarfile.open(path) as archive:
                for info in archive:
                    whole = data[info.offset : info.offset_data + info.size]
                    members.setdefault(info.name.partition(".")[0], []).append((info.name, whole))
            beside = pq.read_table(path.with_suffix(".parquet"))
            assert list(members) == beside["key"].to_pylist()
            found[path.name] = dict(zip(beside["uid"].to_pylist(), members.values(), strict=True))
        return found

    def check_beside(self) -> None:
        """What lies beside the shards tells of just what is in them."""
        found = self.emitted()
        sizes = {name: len(samples) for name, samples in found.items()}
        assert list(sizes) == [f"{number:08d}.tar" for number in range(len(sizes))]
        assert json.loads((self.folder / "sizes.json").read_bytes()) == sizes
        assert json.loads((self.folder / "meta.json").read_bytes())["output_shard_count"] == len(sizes)
        for name, size in sizes.items():
            statistics = json.loads((self.folder / name.replace(".tar", "_stats.json")).read_bytes())
            assert (statistics["count"], statistics["successes"]) == (size, size)
        uids = [f"{high:016x}{low:016x}" for high, low in np.load(self.output / "sample_ids.npy").tolist()]
        assert uids == sorted(uid for samples in found.values() for uid in samples)
        names = {name.replace(".tar", ending) for name in sizes for ending in (".tar", ".parquet", "_stats.json")}
        assert {path.name for path in self.folder.iterdir()} == names | {"sizes.json", "meta.json"}


@pytest.fixture(scope="module")
def pool(tmp_path_factory, write_shard, sample) -> Path:
    """Keys that are equal in all shards, so that some samples are called by their uid in the output."""
    folder = tmp_path_factory.mktemp("takedown") / "pool"
    for shard in range(SHARDS):
        rows = range(SAMPLES)
        members = [sample(f"{row:04d}", 10 * shard + row, uid=f"{shard * SAMPLES + row + 1:032x}") for row in rows]
        write_shard(folder / f"{shard:08d}.tar", [member for parts in members for member in parts])
    return folder


@pytest.fixture
def takedown(pool, tmp_path) -> Takedown:
    return Takedown(pool, tmp_path / "out")


PLACES = len(np.flatnonzero(np.random.default_rng(0).random(SHARDS * SAMPLES) < 0.7))


@settings(deadline=None, max_examples=12)
@given(st.data(), st.sampled_from([None, 3]), st.sampled_from([1, 5, 100]))
def test_only_what_held_a_sample_that_was_taken_down_changes(
    pool, tmp_path_factory, snapshot, digests, data, seed, size
):
    """Twice, since the second time the first is what was emitted before; and back, as if nothing had been."""
    takedown = Takedown(pool, tmp_path_factory.mktemp("out"))
    assert len(takedown.uids) == PLACES
    takedown.emit(set(), size, seed)
    whole, content = takedown.emitted(), digests(takedown.output)
    gone: set[str] = set()
    for _ in range(2):
        before, stated = takedown.emitted(), snapshot(takedown.folder)
        gone |= set(data.draw(st.lists(st.sampled_from(takedown.uids), max_size=8)))
        takedown.emit(gone, size, seed)
        after, restated = takedown.emitted(), snapshot(takedown.folder)
        for name, samples in whole.items():
            left = {uid: members for uid, members in samples.items() if uid not in gone}
            if name not in after:
                assert not left
                assert all(other < name or set(whole[other]) <= gone for other in whole)
                continue
            assert list(after[name].items()) == list(left.items())  # their order and bytes too
            parts = (name, name.replace(".tar", ".parquet"), name.replace(".tar", "_stats.json"))
            if left.keys() == before[name].keys():
                assert {part: restated[part] for part in parts} == {part: stated[part] for part in parts}
            else:
                assert not any(restated[part] == stated[part] for part in parts)
        takedown.check_beside()
    shuffled = digests(takedown.output)
    again = Takedown(pool, tmp_path_factory.mktemp("again"))
    again.emit(gone, size, seed)
    assert digests(again.output) == shuffled  # what was emitted before has left no trace
    takedown.emit(set(), size, seed)
    assert {name: one for name, one in digests(takedown.output).items() if name.startswith(("shards", "sample"))} == {
        name: one for name, one in content.items() if name.startswith(("shards", "sample"))
    }


def test_members_of_the_others_keep_their_bytes_and_names(takedown):
    """Also where a sample is called by its uid because of one that is gone."""
    takedown.emit(set(), size=12)
    before = takedown.emitted()
    renamed = [uid for samples in before.values() for uid, ((name, _), *_) in samples.items() if name.startswith(uid)]
    assert len(renamed) > 1
    takedown.emit({uid for uid in takedown.uids if uid not in renamed[1:]}, size=12)
    after = takedown.emitted()
    assert [uid for samples in after.values() for uid in samples] == renamed[1:]
    assert all(members == before[name][uid] for name, samples in after.items() for uid, members in samples.items())


class TestEmptyShards:
    """A shard of which nothing is left."""

    def test_at_the_end_it_goes(self, takedown, snapshot):
        takedown.emit(set())
        before = takedown.emitted()
        last = max(before)
        stated = snapshot(takedown.folder)
        takedown.emit(set(before[last]))
        takedown.check_beside()
        after = snapshot(takedown.folder)
        assert set(takedown.emitted()) == set(before) - {last}
        assert {name: after[name] for name in after if name.endswith(".tar")} == {
            name: stated[name] for name in after if name.endswith(".tar")
        }
        again = snapshot(takedown.output)
        takedown.emit(set(before[last]))
        changed = {name for name, one in snapshot(takedown.output).items() if again[name] != one}
        assert {name for name in changed if not name.startswith("decisions")} == set()

    @pytest.mark.parametrize("seed", [None, 3])
    def test_in_between_it_stays_as_an_archive_of_nothing(self, takedown, snapshot, seed):
        takedown.emit(set(), seed=seed)
        before = takedown.emitted()
        gone = set(before["00000001.tar"])
        takedown.emit(gone, seed=seed)
        takedown.check_beside()
        assert {name: len(samples) for name, samples in takedown.emitted().items()} == {
            name: 0 if name == "00000001.tar" else len(samples) for name, samples in before.items()
        }
        again = snapshot(takedown.folder)
        takedown.emit(gone, seed=seed)
        assert snapshot(takedown.folder) == again
        paths = [str(path) for path in sorted(takedown.folder.glob("*.tar"))]
        read = list(webdataset.WebDataset(paths, shardshuffle=False, empty_check=False))
        assert [json.loads(one["json"])["uid"] for one in read] == [
            uid for samples in before.values() for uid in samples if uid not in gone
        ]
        schemas = [pq.read_schema(path.replace(".tar", ".parquet")) for path in paths]
        assert all(schema == schemas[0] for schema in schemas)

    def test_everything(self, takedown):
        takedown.emit(set())
        takedown.emit(set(takedown.uids))
        assert {path.name for path in takedown.folder.iterdir()} == {"sizes.json", "meta.json"}
        assert json.loads((takedown.folder / "sizes.json").read_bytes()) == {}
        assert np.load(io.BytesIO((takedown.output / "sample_ids.npy").read_bytes())).shape == (0,)


def test_a_sample_that_was_taken_down_is_not_read(takedown):
    """Its shard may be gone where nothing else is taken from it."""
    takedown.emit(set(), seed=3)
    last = takedown.shards[-1]
    gone = set(takedown.tables[last.name]["uid"].to_pylist())
    hidden = Path(last.path).rename(Path(last.path).with_suffix(".away"))
    try:
        takedown.emit(gone, seed=3)
    finally:
        hidden.rename(last.path)
    takedown.check_beside()
    assert not any(uid in gone for samples in takedown.emitted().values() for uid in samples)


def test_decisions_that_do_not_fit_the_counts_fail(takedown):
    takedown.emit({takedown.uids[0]})
    kept = [int(placed.sum()) for placed in takedown.placed.values()]
    plan = Plan(takedown.shards, kept, 5, None, [2, 0, 0, 0])  # one was taken down, not two
    with pytest.raises(RuntimeError, match="samples were kept, but"):
        emit(Engine(), plan, takedown.source, str(takedown.output), [])
