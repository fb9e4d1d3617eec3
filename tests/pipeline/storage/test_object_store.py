"""Everything on an object store: the same functions, and a whole run that gives the same bytes as a local one."""

import contextlib
import dataclasses
import json
import logging
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml

from chaffinch.jobs.demo.pool import write_pool
from chaffinch.jobs.main import main
from chaffinch.pipeline.engines.engine import set_up_filesystems
from chaffinch.pipeline.samples import index_shard
from chaffinch.pipeline.shards import Shard, find_shards
from chaffinch.pipeline.storage import files, listings, locks
from chaffinch.pipeline.storage.disks import ScratchError
from chaffinch.pipeline.storage.locks import Holder, LockError, holding
from chaffinch.pipeline.whole_pool.exchange import Exchange, Group


class TestObjectStore:
    """The same functions over s3://."""

    def test_write_list_read_remove(self, remote):
        files.write_bytes("s3://bucket/a/one.txt", b"content")
        files.write_bytes("s3://bucket/a/b/two.txt", b"x" * 6_000_000)
        files.write_bytes("s3://bucket/ab/three.txt", b"3")
        assert remote.content("a") == {"one.txt": b"content", "b/two.txt": b"x" * 6_000_000}
        assert remote.content("ab") == {"three.txt": b"3"}
        assert listings.names_below("s3://bucket/a", ".txt") == {"one", "b/two"}
        assert [(one.path, one.size) for one in listings.listing("s3://bucket/a/*.txt")] == [
            ("s3://bucket/a/one.txt", 7)
        ]
        assert listings.info("s3://bucket/a/one.txt").size == 7
        assert listings.info("s3://bucket/a/on") is None
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
        listings.remove_below("s3://bucket/exchange/one")
        listings.remove_below("s3://bucket/exchange/one")
        assert remote.content("exchange") == {"other": b"stays"}

    def test_a_lock_refuses_the_second_and_is_taken_over_from_the_dead(self, remote, monkeypatch):
        monkeypatch.setattr(locks, "SETTLE_SECONDS", 0.01)
        monkeypatch.setattr(locks, "BEAT_SECONDS", 0.05)
        path = "s3://bucket/out/lock.json"
        with holding("s3://bucket/out", "chaffinch decide web.yaml"):
            first = remote.written("out")
            with pytest.raises(LockError, match=f"chaffinch decide web.yaml.*process {os.getpid()} on"):
                _hold()
            deadline = time.monotonic() + 20
            while remote.written("out") == first and time.monotonic() < deadline:  # whole seconds
                time.sleep(0.1)
            assert remote.written("out") != first, "it shows no sign of life"
        assert remote.content("out") == {}
        gone = dataclasses.replace(Holder.this("a"), started=1)
        for holder, taken in ((gone, True), (dataclasses.replace(gone, host="farther"), False)):
            files.write_bytes(path, holder.dump())
            with contextlib.nullcontext() if taken else pytest.raises(LockError, match="on farther"):
                _hold()
        monkeypatch.setattr(locks, "STALE_SECONDS", -1000.0)
        _hold()
        assert remote.content("out") == {}

    def test_who_was_overtaken_on_an_object_store_is_told(self, remote, monkeypatch):
        monkeypatch.setattr(locks, "SETTLE_SECONDS", 0.01)
        path = "s3://bucket/out/lock.json"

        def work():
            with holding("s3://bucket/out", "a"):
                files.write_bytes(path, dataclasses.replace(Holder.this("b"), host="farther").dump())

        with pytest.raises(LockError, match="taken over"):
            work()
        assert Holder.read(files.read_bytes(path)).command == "b"

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

    def test_a_full_folder_for_temporary_files_rejects_no_shard(self, remote, tmp_path, small_pool, mount, monkeypatch):
        remote.upload(small_pool(tmp_path / "pool", shards=1, samples=40), "pool")
        (shard,) = find_shards("s3://bucket/pool")
        monkeypatch.setattr("tempfile.tempdir", str(mount("size=16k")))
        for work in (lambda: index_shard(shard), lambda: files.write_bytes("s3://bucket/a", bytes(100_000))):
            with pytest.raises(ScratchError, match=r"temporary files, .*, cannot be written: No space left"):
                work()

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

    def test_a_whole_run_over_a_bad_line_equals_a_local_one(self, remote, trouble, tmp_path, caplog):
        """Input, store and output on the object store, where all requests fail once; then again: nothing is to do."""
        caplog.set_level(logging.ERROR, "chaffinch")
        write_pool(tmp_path / "pool", samples=40, shard_size=15, seed=1)
        remote.upload(tmp_path / "pool", "pool")
        there = _config(tmp_path / "there.yaml", "s3://bucket/pool", "s3://bucket/out", "s3://bucket/store")
        here = _config(tmp_path / "here.yaml", str(tmp_path / "pool"), str(tmp_path / "out"), str(tmp_path / "store"))
        assert main(["run", here, "--quiet"]) == 0
        trouble.first, trouble.kind = 1, "503"
        assert main(["run", there, "--quiet", "--", *trouble.options]) == 0
        assert len(trouble.seen) > 30
        places = {f"s3://bucket/{name}": str(tmp_path / name) for name in ("pool", "out", "store")}
        local = {name: _placeless(name, path.read_bytes(), {}) for name, path in _files(tmp_path / "out")}
        found = {name: _placeless(name, data, places) for name, data in remote.content("out").items()}
        assert found == local
        assert {"config.yaml", "fitted.json", "report.html", "sample_ids.npy", "summary.json"} <= found.keys()
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


@pytest.fixture
def google(monkeypatch):
    """An emulator of Google's store in this process, where it and Beam's extra gcp are installed."""
    pytest.importorskip("google.cloud.storage", reason="needs pip install 'apache-beam[gcp]'")
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="needs pip install gcp-storage-emulator")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server = emulator.create_server("localhost", port, in_memory=True, default_bucket="bucket")
    server.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://localhost:{port}")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    set_up_filesystems([])
    yield
    server.stop()


def test_a_whole_run_on_google_equals_a_local_one(google, tmp_path):
    write_pool(tmp_path / "pool", samples=40, shard_size=15, seed=1)
    for name, path in _files(tmp_path / "pool"):
        files.write_bytes(f"gs://bucket/pool/{name}", path.read_bytes())
    there = _config(tmp_path / "there.yaml", "gs://bucket/pool", "gs://bucket/out", "gs://bucket/store")
    here = _config(tmp_path / "here.yaml", str(tmp_path / "pool"), str(tmp_path / "out"), str(tmp_path / "store"))
    assert main(["run", here, "--quiet"]) == 0
    assert main(["run", there, "--quiet"]) == 0
    places = {f"gs://bucket/{name}": str(tmp_path / name) for name in ("pool", "out", "store")}
    local = {name: _placeless(name, path.read_bytes(), {}) for name, path in _files(tmp_path / "out")}
    there_now = {
        info.path.removeprefix("gs://bucket/out/"): info.path for info in listings.listing_below("gs://bucket/out")
    }
    assert {name: _placeless(name, files.read_bytes(path), places) for name, path in there_now.items()} == local
    with pytest.raises(OSError, match="gs://bucket/nothing"):
        files.read_bytes("gs://bucket/nothing")


def _hold() -> None:
    with holding("s3://bucket/out", "chaffinch emit web.yaml"):
        pass


def _placeless(name: str, data: bytes, places: dict[str, str]) -> bytes:
    """A file as it would be if things lay elsewhere and no shard had a time; of the timings, only which there are."""
    if name == "timings.json":
        return repr(sorted(json.loads(data))).encode()
    if name == "fitted.json":
        content = json.loads(data)
        return json.dumps({key: value for key, value in content.items() if not key.endswith("_from")}).encode()
    for one, other in places.items():
        data = data.replace(one.encode(), other.encode())
    return data


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
