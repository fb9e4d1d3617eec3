"""Files whole or not at all, what killed processes leave behind, and everything on an object store."""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pytest
import yaml
from moto.server import ThreadedMotoServer

from chaffinch.jobs.demo.pool import write_pool
from chaffinch.jobs.main import main
from chaffinch.pipeline import files
from chaffinch.pipeline.exchange import Exchange, Group
from chaffinch.pipeline.runner import set_up_filesystems
from chaffinch.pipeline.samples import index_shard
from chaffinch.pipeline.shards import Shard, find_shards


class TestWriting:
    """Atomic on the local disk."""

    def test_whole(self, tmp_path):
        path = tmp_path / "deep" / "er" / "file"
        with files.writing(str(path)) as file:
            file.write(b"content")
            assert not path.exists()
        assert path.read_bytes() == b"content"
        assert os.listdir(path.parent) == ["file"]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_an_error_leaves_nothing(self, tmp_path, error):
        path = tmp_path / "file"

        def fail() -> None:
            with files.writing(str(path)) as file:
                file.write(b"half")
                file.flush()
                raise error

        with pytest.raises(error):
            fail()
        assert os.listdir(tmp_path) == []
        path.write_bytes(b"before")
        with pytest.raises(error):
            fail()
        assert path.read_bytes() == b"before"
        assert os.listdir(tmp_path) == ["file"]

    def test_a_killed_process_leaves_only_the_temporary_file(self, tmp_path):
        path = tmp_path / "00000000.parquet"
        program = (
            "import os, sys; from chaffinch.pipeline import files\n"
            "with files.writing(sys.argv[1]) as file:\n"
            "    file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)\n"
        )
        assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -9
        (left,) = os.listdir(tmp_path)
        assert left.endswith(".partial")
        files.remove_leftovers(str(tmp_path))
        assert os.listdir(tmp_path) == []

    def test_writers_of_one_file_do_not_mix(self, tmp_path):
        path = str(tmp_path / "file")
        contents = [bytes([number]) * 100_000 for number in range(8)]
        threads = [threading.Thread(target=files.write_bytes, args=(path, content)) for content in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert files.read_bytes(path) in contents
        assert os.listdir(tmp_path) == ["file"]

    def test_unchanged_content_is_not_written(self, tmp_path):
        path = tmp_path / "file"
        files.write_changed(str(path), b"one")
        before = path.stat()
        files.write_changed(str(path), b"one")
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        files.write_changed(str(path), b"two")
        assert path.read_bytes() == b"two"

    def test_tables_are_the_same_bytes_and_damage_names_the_file(self, tmp_path):
        table = pa.table({"reject": [None, "why"], "value": pa.array([1.5, None], pa.float32())})
        for name in ("a", "b"):
            files.write_table(str(tmp_path / name), table)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
        assert files.read_table(str(tmp_path / "a")).equals(table)
        (tmp_path / "a").write_bytes((tmp_path / "b").read_bytes()[:-10])
        for name in ("a", "gone"):
            with pytest.raises(OSError, match=f"{tmp_path}/{name}"):
                files.read_table(str(tmp_path / name))


class TestLeftovers:
    """Those of dead processes go, those of living ones stay."""

    @pytest.fixture
    def dead(self) -> int:
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        return process.pid

    @pytest.mark.parametrize("name", ["sum", "00000000.parquet", "scores/b32-0.1/a.b.parquet", "00000000_stats.json"])
    def test_by_process(self, tmp_path, dead, name):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        host = socket.gethostname()
        alive = Path(files.temporary_name(str(path)))
        gone = Path(f"{path}.{host}-{files.process_space()}-{dead}-140000000000000.partial")
        contained = Path(f"{path}.{host}-{files.process_space() + 1}-{dead}-140000000000000.partial")
        elsewhere = Path(f"{path}.other-{host}-{dead}-140000000000000.partial")
        old = Path(f"{path}.farther-{host}-{dead}-140000000000000.partial")
        strangers = [path, path.with_name("notes.partial"), path.with_name("a-1-2.part")]
        for one in [alive, gone, contained, elsewhere, old, *strangers]:
            one.write_bytes(b"half")
        for one in [contained, elsewhere]:
            os.utime(one, (time.time() - 2 * 24 * 3600,) * 2)
        for one in [old, *strangers]:
            os.utime(one, (time.time() - 8 * 24 * 3600,) * 2)
        files.remove_leftovers(str(tmp_path))
        assert set(path.parent.iterdir()) - {path.parent / "scores"} == {alive, contained, elsewhere, *strangers}


class TestListing:
    """Names below folders, on any filesystem."""

    def test_links_that_lead_round(self, tmp_path):
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
        (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
        (tmp_path / "a" / "file").write_bytes(b"1")
        (tmp_path / "a" / "dangling").symlink_to(tmp_path / "nowhere")
        assert files.names_below(str(tmp_path), "file") == {"a/"}
        assert [one.path for one in files.listing(f"{tmp_path}/**")] == [f"{tmp_path}/a/file"]

    def test_what_does_not_exist(self, tmp_path):
        nowhere = str(tmp_path / "nowhere")
        assert files.names_below(nowhere) == set()
        assert files.listing(nowhere + "/*") == []
        assert files.listing_below(nowhere) == []
        assert files.info(nowhere) is None
        assert not files.exists(nowhere)
        files.remove(nowhere)


@dataclass(frozen=True)
class Remote:
    """An object store in this process, empty at first.

    Attributes:
        options: what Beam needs to find it.
        client: to look into it without Beam.
    """

    options: list[str]
    client: Any

    def upload(self, folder: Path, prefix: str) -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                self.client.upload_file(str(path), "bucket", f"{prefix}/{path.relative_to(folder)}")

    def content(self, prefix: str) -> dict[str, bytes]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=prefix + "/")
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {key[len(prefix) + 1 :]: self.client.get_object(Bucket="bucket", Key=key)["Body"].read() for key in keys}

    def written(self, prefix: str) -> dict[str, Any]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=prefix + "/")
        return {entry["Key"]: entry["LastModified"] for page in pages for entry in page.get("Contents", [])}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def remote(server) -> Iterator[Remote]:
    given = {"endpoint_url": server, "region_name": "us-east-1"}
    keys = {"access_key_id": "key", "secret_access_key": "secret"}
    client = boto3.client("s3", **given, **{f"aws_{name}": value for name, value in keys.items()})
    client.create_bucket(Bucket="bucket")
    options = [f"--s3_{name}={value}" for name, value in (given | keys).items()]
    set_up_filesystems(options)
    yield Remote(options, client)
    set_up_filesystems([])
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="bucket"):
        for entry in page.get("Contents", []):
            client.delete_object(Bucket="bucket", Key=entry["Key"])


class TestObjectStore:
    """The same functions over s3://."""

    def test_write_list_read_remove(self, remote):
        files.write_bytes("s3://bucket/a/one.txt", b"content")
        files.write_bytes("s3://bucket/a/b/two.txt", b"x" * 6_000_000)
        files.write_bytes("s3://bucket/ab/three.txt", b"3")
        assert remote.content("a") == {"one.txt": b"content", "b/two.txt": b"x" * 6_000_000}
        assert remote.content("ab") == {"three.txt": b"3"}
        assert files.names_below("s3://bucket/a", ".txt") == {"one", "b/two"}
        assert [(one.path, one.size) for one in files.listing("s3://bucket/a/*.txt")] == [("s3://bucket/a/one.txt", 7)]
        assert files.info("s3://bucket/a/one.txt").size == 7
        assert files.info("s3://bucket/a/on") is None
        with files.open_binary("s3://bucket/a/b/two.txt") as file:
            file.seek(5_999_998)
            assert file.read() == b"xx"
        with files.local_copy("s3://bucket/a/one.txt") as path:
            assert Path(path).read_bytes() == b"content"
        assert not os.path.exists(path)
        files.remove("s3://bucket/a/one.txt")
        files.remove("s3://bucket/a/one.txt")
        assert not files.exists("s3://bucket/a/one.txt")

    def test_an_error_writes_nothing(self, remote):
        def fail() -> None:
            with files.writing("s3://bucket/half") as file:
                file.write(b"half")
                raise ValueError("stop")

        with pytest.raises(ValueError, match="stop"):
            fail()
        assert not files.exists("s3://bucket/half")

    def test_an_exchange_is_read_in_ranges_and_removed(self, remote):
        exchange, group = Exchange("s3://bucket/exchange/one", ["a", "b"]), Group(1, 3, 3)
        for shard, cells in (("a", [2, 0, 1]), ("b", [2])):
            exchange.send(shard, np.array(cells), 3, np.array(cells, "<u8"), np.arange(len(cells)))
        records, cells, sizes = exchange.receive(group, 3, np.dtype("<u8"))
        assert records.tolist() == cells.tolist() == [1, 2, 2]
        exchange.answer(group, sizes, np.array([0.5, 0.25, 1], np.float32))
        assert exchange.answers(0, [group]).tolist() == [0.5, 0.25]
        assert exchange.answers(1, [group]).tolist() == [1]
        files.write_bytes("s3://bucket/exchange/other", b"stays")
        files.remove_below("s3://bucket/exchange/one")
        files.remove_below("s3://bucket/exchange/one")
        assert remote.content("exchange") == {"other": b"stays"}

    def test_shards_and_those_that_cannot_be_read(self, remote, tmp_path, small_pool):
        remote.upload(small_pool(tmp_path / "pool", shards=2), "pool")
        shards = find_shards("s3://bucket/pool")
        assert [shard.name for shard in shards] == ["00000000", "00000001"]
        assert find_shards("s3://bucket/pool/*.tar") == find_shards("s3://bucket/pool/") == shards
        assert [shard.name for shard in find_shards(["s3://bucket/pool/00000001.tar"])] == ["00000001"]
        assert index_shard(shards[0]).equals(index_shard(find_shards(str(tmp_path / "pool"))[0]))
        for path in ("s3://bucket/pool/gone.tar", "s3://elsewhere/pool/gone.tar"):
            (row,) = index_shard(Shard("gone", path, 1, 1.0)).to_pylist()
            assert row["reject"].startswith("shard cannot be read: ")

    def test_a_shard_that_may_not_be_read(self):
        class Forbidden(BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.send_response(403)
                self.end_headers()

            def log_message(self, *_):
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Forbidden) as gate:
            threading.Thread(target=gate.serve_forever).start()
            place = f"--s3_endpoint_url=http://127.0.0.1:{gate.server_port}"
            set_up_filesystems(
                [place, "--s3_access_key_id=k", "--s3_secret_access_key=s", "--s3_region_name=us-east-1"]
            )
            (row,) = index_shard(Shard("a", "s3://bucket/a.tar", 1, 1.0)).to_pylist()
            gate.shutdown()
        set_up_filesystems([])
        assert row["reject"].startswith("shard cannot be read: s3://bucket/a.tar: ")
        assert "403" in row["reject"]

    def test_a_whole_run_equals_a_local_one(self, remote, tmp_path, digests):
        """Input, store and output on the object store; then again, where nothing is left to do."""
        write_pool(tmp_path / "pool", samples=40, shard_size=15, seed=1)
        remote.upload(tmp_path / "pool", "pool")
        there = _config(tmp_path / "there.yaml", "s3://bucket/pool", "s3://bucket/out", "s3://bucket/store")
        here = _config(tmp_path / "here.yaml", str(tmp_path / "pool"), str(tmp_path / "out"), str(tmp_path / "store"))
        assert main(["run", here, "--quiet"]) == 0
        assert main(["run", there, "--quiet", "--", *remote.options]) == 0
        local = {name: path.read_bytes() for name, path in _files(tmp_path / "out") if not _of_place(name)}
        found = {name: data for name, data in remote.content("out").items() if not _of_place(name)}
        assert found == local
        assert json.loads(remote.content("out")["summary.json"])["kept"] > 10
        assert any(name.endswith(".tar") for name in found)
        stored = {name: data for name, data in remote.content("store").items() if not name.startswith("stamps")}
        assert stored == {
            name: path.read_bytes() for name, path in _files(tmp_path / "store") if not name.startswith("stamps")
        }
        before = remote.written("store") | remote.written("out/shards") | remote.written("out/decisions")
        time.sleep(1.1)  # times there are whole seconds
        assert main(["run", there, "--quiet", "--", *remote.options]) == 0
        assert remote.written("store") | remote.written("out/shards") | remote.written("out/decisions") == before


def _of_place(name: str) -> bool:
    """What tells where things lie or how long they took, and so differs."""
    return name in ("config.yaml", "timings.json", "fitted.json", "report.html")


def _files(folder: Path) -> list[tuple[str, Path]]:
    return [(str(path.relative_to(folder)), path) for path in folder.rglob("*") if path.is_file()]


def _config(path: Path, pool: str, output: str, store: str) -> str:
    settings = {
        "input": pool,
        "output": output,
        "store": store,
        "filters": {
            "size": {"column": "pictures.shorter_side", "keep": [16, None], "require": True},
            "words": {"column": "captions.words", "keep": "top 60%"},
            "sharp": {"column": "pictures.sharpness", "keep": "top 70%"},
            "width": {"column": "metadata.original_width", "keep": [1, None]},
        },
        "ensemble": {"label_model": "majority"},
        "keep": {"fraction": 0.5},
        "emit": {"samples_per_shard": 7, "shuffle_seed": 5},
        "run": {"max_rejected": 0.9},
    }
    path.write_text(yaml.safe_dump(settings))
    return str(path)
