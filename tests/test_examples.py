"""Every config in examples/ runs as it stands, on the real pool, and a trainer can read what it writes."""

import functools
import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from chaffinch.jobs.main import main

ROOT = Path(__file__).resolve().parents[1]
POOL = ROOT.parent / "shared" / "data" / "pool-flickr8k"
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not POOL.is_dir(), reason="the real pool is not in ../shared/data beside the repository"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("examples") / "store"


@pytest.fixture(scope="module", params=EXAMPLES, ids=lambda path: path.stem)
def output(request, store, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param.stem)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert main(["run", str(request.param), f"output={folder}", f"store={store}", "--quiet"]) == 0
    return folder


def test_counts_add_up_and_nothing_broken_is_kept(output):
    summary = json.loads((output / "summary.json").read_text())
    for one in [summary, *summary["shards"].values()]:
        assert one["read"] == one["kept"] + one["dropped"] + one["rejected"]
    truth = pq.read_table(POOL / "truth.parquet").to_pylist()
    assert summary["read"] == len(truth)
    broken = {(row["shard"], row["key"]) for row in truth if row["kind"] == "broken"}
    kept, rejected = set(), set()
    for shard in summary["shards"]:
        for row in pq.read_table(output / "decisions" / f"{shard}.parquet").to_pylist():
            if row["keep"]:
                kept.add((shard, row["key"]))
            if (row["reason"] or "").startswith("rejected"):
                rejected.add((shard, row["key"]))
    assert kept
    assert rejected <= broken  # nothing that can be used was refused
    assert not kept & broken or "pictures" not in summary["filters"]


def test_open_clip_reads_what_was_kept(output, monkeypatch):
    """The steps of open_clip's trainer, over the emitted shards."""
    import webdataset
    from open_clip_train import data
    from open_clip_train.data import filter_no_caption_or_no_image, log_and_continue, tarfile_to_samples_nothrow

    # Its trainer asks for webdataset 0.2.86 or older, which put no mark between two shards.
    unmarked = functools.partial(webdataset.tariterators.tar_file_expander, eof_value=None)
    monkeypatch.setattr(data, "tar_file_expander", unmarked)
    sizes = json.loads((output / "shards" / "sizes.json").read_text())
    urls = [str(output / "shards" / name) for name in sizes]
    pipeline = webdataset.DataPipeline(
        webdataset.SimpleShardList(urls),
        tarfile_to_samples_nothrow,
        webdataset.select(filter_no_caption_or_no_image),
        webdataset.decode("pilrgb", handler=log_and_continue),
        webdataset.rename(image="jpg;png;jpeg;webp", text="txt"),
        webdataset.to_tuple("image", "text"),
    )
    pairs = list(pipeline)
    assert len(pairs) == sum(sizes.values())
    assert all(picture.mode == "RGB" and text.strip() for picture, text in pairs)


def test_the_subset_file_names_what_the_shards_hold(output):
    subset = np.load(io.BytesIO((output / "sample_ids.npy").read_bytes()))
    assert subset.dtype == np.dtype("u8,u8")
    sizes = json.loads((output / "shards" / "sizes.json").read_text())
    tables = [pq.read_table(output / "shards" / name.replace(".tar", ".parquet")) for name in sizes]
    uids = sorted(uid for table in tables for uid in table["uid"].to_pylist())
    assert [f"{high:016x}{low:016x}" for high, low in subset.tolist()] == uids
