"""Every config in examples/ runs on the real pool, and a trainer can read what it writes.

As it stands, but for weights that are not to be had here; and those that look long at each picture on every fourth
sample of one shard.
"""

import functools
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from chaffinch.jobs.main import main

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
POOL = DATA / "pool-flickr8k"
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
TRAIN_BEFORE = {"mimic", "grad_mimic"}
"""Those that train a CLIP before they curate: tests/test_examples_mimic.py runs them."""
SLOW = {"clip_only", "detector", "detector_light", "light_clip", "mixed", "no_reference", "pictures", "reference"}

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not POOL.is_dir(), reason="the real pool is not in ../shared/data beside the repository"),
]


@pytest.fixture(scope="module")
def small_clip(tmp_path_factory):
    """A small CLIP with random weights whose embeddings are as long as ViT-B-32's: model and pretrained."""
    import torch

    from chaffinch.scoring.training.architectures import find_architecture

    folder = tmp_path_factory.mktemp("clip")
    packaged = find_architecture("chaffinch-tiny")
    for name, content in packaged.published().items():
        (folder / name).write_bytes(content)
    description = folder / "open_clip_config.json"
    published = json.loads(description.read_text())
    published["model_cfg"]["embed_dim"] = 512
    description.write_text(json.dumps(published))
    torch.manual_seed(0)
    network, _, _ = find_architecture(str(description)).create()
    torch.save(network.state_dict(), folder / "random.pt")
    return {"model": description, "pretrained": folder / "random.pt"}


@pytest.fixture(scope="module")
def quarter(tmp_path_factory):
    """(shard) -> a shard of the same name with every fourth of its samples, and what lies beside it of them."""

    @functools.cache
    def cut(path):
        smaller = tmp_path_factory.mktemp("quarter") / path.name
        with tarfile.open(path) as whole, tarfile.open(smaller, "w", format=tarfile.USTAR_FORMAT) as part:
            members = whole.getmembers()
            keys = list(dict.fromkeys(key_of(member.name) for member in members))[::4]
            for member in members:
                if key_of(member.name) in keys:
                    part.addfile(member, whole.extractfile(member))
        beside = path.with_suffix(".parquet")
        if beside.is_file():
            table = pq.read_table(beside)
            pq.write_table(table.filter(pc.is_in(table["key"], pa.array(keys))), smaller.with_suffix(".parquet"))
        return smaller

    return cut


def key_of(member):
    return member.partition(".")[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory, small_detector, small_clip, quarter):
    """Runs an example once, by its name; all share what was measured, as a user's experiments do."""
    store = tmp_path_factory.mktemp("examples") / "store"
    # In place of weights from the hub, which are not to be had here.
    clip = {f"scorers.{name}.{part}": path for name in ("b32", "photo") for part, path in small_clip.items()}
    weights = {"detector": {"scorers.dino.checkpoint": small_detector("grounding-dino")}, "clip_only": clip}

    @functools.cache
    def example(name):
        folder = tmp_path_factory.mktemp(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(ROOT)
            settings = [f"{key}={value}" for key, value in weights.get(name, {}).items()]
            place = f"{store}-of-quarters" if name in SLOW else store  # their shards have the names of whole ones
            settings += [f"output={folder}", f"store={place}", "--quiet"]
            if name in SLOW:
                settings += [f"input={quarter(POOL / '00000001.tar')}"]
                if "\nreference:" in (ROOT / "examples" / f"{name}.yaml").read_text():
                    settings += [f"reference={quarter(DATA / 'flickr8k-eval' / '00000000.tar')}"]
            if name == "light_clip":
                settings += [f"scorers.light.weights={folder}/training/final.pt"]
                trusted = quarter(DATA / "flickr8k-reference" / "00000000.tar")
                short = [f"train.input={trusted}", "train.epochs=5", "train.evaluate=null"]
                assert main(["train", str(ROOT / "examples" / f"{name}.yaml"), *settings, *short]) == 0
            assert main(["run", str(ROOT / "examples" / f"{name}.yaml"), *settings]) == 0
        return folder

    return example


@pytest.fixture(scope="module", params=[path.stem for path in EXAMPLES if path.stem not in TRAIN_BEFORE])
def output(request, run):
    return run(request.param)


@pytest.fixture(scope="module")
def samples(run):
    """What the DataComp examples go by, read without Chaffinch's filters: one row per sample, in order.

    Captions are asked of a store that the examples filled; similarity, width and height are those beside the shards.
    """
    decided = decisions(run("datacomp_basic"))
    store = Path(yaml.safe_load((run("datacomp_basic") / "config.yaml").read_text())["store"])
    rows = []
    for shard in dict.fromkeys(row["shard"] for row in decided):
        beside = {row["key"]: row for row in pq.read_table(POOL / f"{shard}.parquet").to_pylist()}
        captions, pictures = (
            pq.read_table(next((store / "scores").glob(f"{name}-*")) / f"{shard}.parquet").to_pylist()
            for name in ("captions", "pictures")
        )
        here = [row for row in decided if row["shard"] == shard]
        rows += [
            {**beside[row["key"]], **told, **seen, **row}
            for row, told, seen in zip(here, captions, pictures, strict=True)
        ]
    return rows


def decisions(output):
    """Every row of an experiment's decisions, with its shard."""
    shards = json.loads((output / "summary.json").read_text())["shards"]
    tables = {shard: pq.read_table(output / "decisions" / f"{shard}.parquet").to_pylist() for shard in sorted(shards)}
    return [{"shard": shard, **row} for shard, rows in tables.items() for row in rows]


def kept(output):
    return {(row["shard"], row["key"]) for row in decisions(output) if row["keep"]}


def usable(row):
    return not (row["reason"] or "").startswith("rejected")


def is_english(row):
    return sum(one["probability"] for one in row["languages"] if one["language"] == "en") >= 0.5


def is_basic(row):
    """DataComp's words: more than 2 words and 5 characters, 200 pixels or more, 3 to 1 at most."""
    sides = row["original_width"], row["original_height"]
    long_enough = len(row["text"].split()) > 2 and len(row["text"]) > 5
    return is_english(row) and long_enough and min(sides) >= 200 and row["aspect_ratio"] <= 3


def most_alike(samples, share):
    """The similarity that so large a share of the samples reach; broken ones are not asked."""
    measured = sorted((similarity(row) for row in samples if usable(row)), reverse=True)
    return measured[round(share * len(measured)) - 1]


def similarity(row):
    return row["small_clip_similarity_score"]


def pairs_where(samples, rule):
    return {(row["shard"], row["key"]) for row in samples if usable(row) and rule(row)}


def test_no_filter_keeps_all_that_can_be_used(run):
    rows = decisions(run("datacomp_no_filter"))
    assert [row["keep"] for row in rows] == [usable(row) for row in rows]
    assert sum(row["keep"] for row in rows) == 3085 - 64


def test_basic_is_what_its_rules_say(run, samples):
    assert kept(run("datacomp_basic")) == pairs_where(samples, is_basic)


def test_the_top_30_percent_are_the_30_percent_most_alike(run, samples):
    least = most_alike(samples, 0.3)
    expected = pairs_where(samples, lambda row: similarity(row) >= least)
    assert len(expected) == round(0.3 * sum(map(usable, samples)))
    assert kept(run("datacomp_clip_top_30")) == expected


def test_laion_2b_is_english_and_above_028(run, samples):
    expected = pairs_where(samples, lambda row: is_english(row) and similarity(row) > np.float32(0.28))
    assert kept(run("datacomp_laion_2b")) == expected
    clip = yaml.safe_load((ROOT / "examples" / "datacomp_laion_2b.yaml").read_text())["filters"]["clip"]
    assert np.float32(clip["keep"][0]) == np.nextafter(np.float32(0.28), np.float32(1))


def test_text_based_is_english_with_a_noun_of_the_list(run, samples):
    nouns = {line for line in (ROOT / "examples" / "nouns.txt").read_text().splitlines() if not line.startswith("#")}
    endings = {
        "s": "",
        "ses": "s",
        "ves": "f",
        "xes": "x",
        "zes": "z",
        "ches": "ch",
        "shes": "sh",
        "men": "man",
        "ies": "y",
    }

    def names_something(row):
        words = row["text"].lower().split()
        singulars = {
            word.removesuffix(old) + new for word in words for old, new in endings.items() if word.endswith(old)
        }
        return bool(nouns & {*words, *singulars})

    expected = pairs_where(samples, lambda row: is_english(row) and names_something(row))
    assert kept(run("datacomp_text")) == expected


def test_the_intersection_is_what_both_keep(run):
    both = kept(run("datacomp_basic")) & kept(run("datacomp_clip_top_30"))
    assert kept(run("datacomp_basic_and_clip")) == both
    assert both


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_what_it_does_and_how_to_run_it(path):
    text = path.read_text()
    assert text.startswith("# ")
    assert f"chaffinch run examples/{path.name}" in text.split("\ninput:")[0]


def test_counts_add_up_and_nothing_broken_is_kept(output, quarter):
    summary = json.loads((output / "summary.json").read_text())
    for one in [summary, *summary["shards"].values()]:
        assert one["read"] == one["kept"] + one["dropped"] + one["rejected"]
    truth = [row for row in pq.read_table(POOL / "truth.parquet").to_pylist() if row["shard"] in summary["shards"]]
    if len(summary["shards"]) == 1:
        with tarfile.open(quarter(POOL / "00000001.tar")) as part:
            read = {key_of(name) for name in part.getnames()}
        truth = [row for row in truth if row["key"] in read]
        assert len(truth) == 125
    broken = {(row["shard"], row["key"]) for row in truth if row["kind"] == "broken"}
    rows = decisions(output)
    rejected = {(row["shard"], row["key"]) for row in rows if not usable(row)}
    assert len(rows) == summary["read"] == len(truth)
    assert kept(output)
    assert rejected <= broken  # nothing that can be used was refused
    assert not kept(output) & broken


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
