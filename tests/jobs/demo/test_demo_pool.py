import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from chaffinch.jobs.demo.pool import write_clean, write_pool
from chaffinch.jobs.demo.samples import KINDS, NOISE, clean_sample

SAMPLES = 400


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    write_pool(folder, samples=SAMPLES, shard_size=100, annotations=True)
    return folder


@pytest.fixture(scope="module")
def truth(pool) -> list[dict]:
    return pq.read_table(pool / "truth.parquet").to_pylist()


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def read_members(folder: Path) -> dict[tuple[str, str], dict[str, bytes]]:
    """What lies in the shards, by shard and key."""
    found: dict[tuple[str, str], dict[str, bytes]] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                assert member.mtime == 0
                key, extension = member.name.split(".", 1)
                found.setdefault((path.stem, key), {})[extension] = archive.extractfile(member).read()
    return found


def test_same_seed_same_bytes_other_seed_others(tmp_path):
    for name, seed in (("first", 4), ("again", 4), ("other", 5)):
        write_pool(tmp_path / name, samples=60, shard_size=25, seed=seed)
    assert digests(tmp_path / "first") == digests(tmp_path / "again")
    assert not set(digests(tmp_path / "first").values()) & {
        digest for name, digest in digests(tmp_path / "other").items() if name.endswith((".tar", ".parquet"))
    }


def test_every_kind_is_there_with_its_share(truth):
    counts = Counter(row["kind"] for row in truth)
    assert set(counts) == set(KINDS) == {"clean", *NOISE}
    assert len(KINDS) > 8
    for kind, share in NOISE.items():
        assert counts[kind] == max(1, round(share * SAMPLES))
    assert 0.43 <= counts["clean"] / SAMPLES <= 0.5
    assert all(row["keep"] == (row["kind"] == "clean") for row in truth)


def test_truth_joins_one_to_one_with_the_samples(pool, truth):
    found = read_members(pool)
    assert [(row["shard"], row["key"]) for row in truth] == list(found)
    assert len(truth) == SAMPLES
    for row in truth:
        members = found[row["shard"], row["key"]]
        if row["kind"] == "broken_json":
            assert row["uid"] == hashlib.sha256(f"{row['shard']}/{row['key']}".encode()).hexdigest()[:32]
            continue
        described = json.loads(members["json"])
        assert described["uid"] == row["uid"]
        assert re.fullmatch("[0-9a-f]{32}", row["uid"])
        assert described["key"] == row["key"]
        assert row["key"].startswith(row["shard"])
        if row["kind"].startswith("broken"):
            continue
        assert described["caption"] == members["txt"].decode()
        assert described["sha256"] == hashlib.sha256(members["jpg"]).hexdigest()
        assert Image.open(io.BytesIO(members["jpg"])).size == (described["width"], described["height"])
    assert all("keep" not in members.get("json", b"").decode() for members in found.values())


def test_uids_repeat_only_where_planted(truth):
    seen: set[str] = set()
    for row in truth:
        assert (row["uid"] in seen) == (row["kind"] == "repeated_uid")
        seen.add(row["uid"])


def test_groups_lead_to_an_earlier_clean_sample(truth):
    clean: set[str] = set()
    for row in truth:
        if row["kind"] in ("duplicate", "repeated_uid"):
            assert row["group"] in clean
        elif row["kind"] == "clean":
            clean.add(row["uid"])
            assert row["group"] in (None, row["uid"])
        else:
            assert row["group"] is None
    firsts = {row["uid"] for row in truth if row["kind"] == "clean" and row["group"]}
    assert firsts == {row["group"] for row in truth if row["group"]}


def test_a_repeated_sample_is_the_same_bytes(pool, truth):
    found = read_members(pool)
    first = {row["uid"]: (row["shard"], row["key"]) for row in reversed(truth)}
    for row in truth:
        if row["kind"] == "repeated_uid":
            again, original = found[row["shard"], row["key"]], found[first[row["uid"]]]
            assert (again["jpg"], again["txt"]) == (original["jpg"], original["txt"])


def test_the_numbering_has_a_gap(pool):
    numbers = [int(path.stem) for path in sorted(pool.glob("*.tar"))]
    assert numbers[0] == 0
    assert len(numbers) == 4
    assert numbers[-1] == 4


def test_metadata_has_the_samples_and_the_failed_downloads(pool, truth):
    for path in sorted(pool.glob("*.tar")):
        rows = pq.read_table(path.with_suffix(".parquet")).to_pylist()
        counts = json.loads((pool / f"{path.stem}_stats.json").read_text())
        here = [row["key"] for row in truth if row["shard"] == path.stem]
        assert [row["key"] for row in rows if row["status"] == "success"] == here
        assert [row["key"] for row in rows] == [f"{path.stem}{index:04d}" for index in range(len(rows))]
        assert counts["count"] == len(rows)
        assert counts["successes"] == len(here)
        assert counts["failed_to_download"] == len(rows) - len(here) > 0


def test_webdataset_reads_every_unbroken_sample(pool, truth):
    shards = [str(path) for path in sorted(pool.glob("*.tar"))]
    whole = {row["key"] for row in truth if not row["kind"].startswith("broken")}
    data = webdataset.WebDataset(shards, shardshuffle=False, empty_check=False)
    data = data.select(lambda sample: sample["__key__"] in whole).decode("rgb8")
    read = {}
    for sample in data:
        assert sample["jpg"].shape == (sample["json"]["height"], sample["json"]["width"], 3)
        read[sample["__key__"]] = sample["txt"]
    assert set(read) == whole


def test_annotations_place_the_objects(pool, truth):
    found = read_members(pool)
    for row in truth:
        if row["kind"].startswith("broken"):
            continue
        objects = json.loads(found[row["shard"], row["key"]]["json"])["objects"]
        assert bool(objects) == (row["kind"] not in ("blank", "strip", "duplicate"))
        for thing in objects:
            x0, y0, x1, y1 = thing["box"]
            assert set(thing) == {"name", "colour", "box"}
            assert 0 <= x0 < x1 <= 1
            assert 0 <= y0 < y1 <= 1


def test_annotations_come_only_when_asked_for(tmp_path):
    write_clean(tmp_path / "plain", samples=3)
    write_clean(tmp_path / "annotated", samples=3, annotations=True)
    plain, annotated = read_members(tmp_path / "plain"), read_members(tmp_path / "annotated")
    for key, members in plain.items():
        assert "objects" not in json.loads(members["json"])
        assert json.loads(annotated[key]["json"])["objects"]
        assert members["jpg"] == annotated[key]["jpg"]


def test_clean_pool_shares_nothing_with_a_noisy_one(pool, truth, tmp_path):
    write_clean(tmp_path, samples=50, shard_size=20)
    clean = read_members(tmp_path)
    assert len(clean) == 50
    assert not list(tmp_path.glob("truth*"))
    assert not {json.loads(members["json"])["uid"] for members in clean.values()} & {row["uid"] for row in truth}
    pictures = {members["jpg"] for members in read_members(pool).values() if "jpg" in members}
    assert not {members["jpg"] for members in clean.values()} & pictures


def test_clean_sample_is_a_function_of_stream_and_index():
    first, again, other = clean_sample("pool/0", 1), clean_sample("pool/0", 1), clean_sample("clean/0", 1)
    assert (first.uid, first.scene, first.caption) == (again.uid, again.scene, again.caption)
    assert np.array_equal(np.asarray(first.picture), np.asarray(again.picture))
    assert first.scene != other.scene


def test_noise_can_be_chosen(tmp_path):
    counts = write_pool(tmp_path, samples=40, noise={"blank": 0.25, "mismatch": 0.1, "dark": 0.0})
    assert counts == {"clean": 26, "mismatch": 4, "blank": 10}
    assert len(list(tmp_path.glob("*.tar"))) == 1


def test_impossible_noise_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no such noise: fog"):
        write_pool(tmp_path, samples=40, noise={"fog": 0.1})
    with pytest.raises(ValueError, match="none clean"):
        write_pool(tmp_path, samples=40, noise={"blank": 1.0})


def test_a_folder_with_another_pool_is_left_alone(tmp_path):
    write_clean(tmp_path, samples=6, shard_size=2)
    before = digests(tmp_path)
    with pytest.raises(FileExistsError, match="another pool"):
        write_clean(tmp_path, samples=2, shard_size=2)
    assert digests(tmp_path) == before
    write_clean(tmp_path, samples=6, shard_size=2)
    assert digests(tmp_path) == before
