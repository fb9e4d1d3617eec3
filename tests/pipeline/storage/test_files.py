"""Files whole or not at all, and what killed processes leave behind."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

from chaffinch.pipeline.storage import files, listings, parquet
from chaffinch.pipeline.storage.leftovers import remove_leftovers
from chaffinch.pipeline.storage.processes import process_space


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
            "import os, sys; from chaffinch.pipeline.storage import files\n"
            "with files.writing(sys.argv[1]) as file:\n"
            "    file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)\n"
        )
        assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -9
        (left,) = os.listdir(tmp_path)
        assert left.endswith(".partial")
        remove_leftovers(str(tmp_path))
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
            parquet.write_table(str(tmp_path / name), table)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
        assert parquet.read_table(str(tmp_path / "a")).equals(table)
        (tmp_path / "a").write_bytes((tmp_path / "b").read_bytes()[:-10])
        for name in ("a", "gone"):
            with pytest.raises(OSError, match=f"{tmp_path}/{name}"):
                parquet.read_table(str(tmp_path / name))


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
        gone = Path(f"{path}.{host}-{process_space()}-{dead}-140000000000000.partial")
        contained = Path(f"{path}.{host}-{process_space() + 1}-{dead}-140000000000000.partial")
        elsewhere = Path(f"{path}.other-{host}-{dead}-140000000000000.partial")
        old = Path(f"{path}.farther-{host}-{dead}-140000000000000.partial")
        strangers = [path, path.with_name("notes.partial"), path.with_name("a-1-2.part")]
        for one in [alive, gone, contained, elsewhere, old, *strangers]:
            one.write_bytes(b"half")
        for one in [contained, elsewhere]:
            os.utime(one, (time.time() - 2 * 24 * 3600,) * 2)
        for one in [old, *strangers]:
            os.utime(one, (time.time() - 8 * 24 * 3600,) * 2)
        remove_leftovers(str(tmp_path))
        assert set(path.parent.iterdir()) - {path.parent / "scores"} == {alive, contained, elsewhere, *strangers}


class TestListing:
    """Names below folders, on any filesystem."""

    def test_links_that_lead_round(self, tmp_path):
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
        (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
        (tmp_path / "a" / "file").write_bytes(b"1")
        (tmp_path / "a" / "dangling").symlink_to(tmp_path / "nowhere")
        assert listings.names_below(str(tmp_path), "file") == {"a/"}
        assert [one.path for one in listings.listing(f"{tmp_path}/**")] == [f"{tmp_path}/a/file"]

    def test_what_does_not_exist(self, tmp_path):
        nowhere = str(tmp_path / "nowhere")
        assert listings.names_below(nowhere) == set()
        assert listings.listing(nowhere + "/*") == []
        assert listings.listing_below(nowhere) == []
        assert listings.info(nowhere) is None
        assert not files.exists(nowhere)
        files.remove(nowhere)
