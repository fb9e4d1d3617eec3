import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chaffinch.jobs.demo.pool import write_clean, write_pool
from chaffinch.jobs.main import main

CONFIG = """\
input: {pool}
output: {output}
reference: {trusted}
filters:
  size: {{column: pictures.shorter_side, keep: [64, null], require: true}}
  words: {{column: captions.words, keep: [4, null], drop: [null, 2]}}
  english: {{kind: language, languages: [en], keep: [0.7, null], drop: [null, 0.3], aspect: language}}
  boilerplate: {{}}
  sharpness: {{column: pictures.sharpness, keep: above reference 5%, drop: below reference 1%}}
  entropy: {{column: pictures.entropy, keep: top 60%, drop: bottom 10%}}
keep: {{fraction: 0.4}}
emit: {{samples_per_shard: 40}}
run: {{max_rejected: 0.2}}
"""

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--virtual-time-budget=5000",
)
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


@dataclass
class Element:
    tag: str
    attributes: dict
    text: str = ""
    children: list = field(default_factory=list)

    def find(self, tag="", name=""):
        """Elements below of this tag and class, in order."""
        found = []
        for child in self.children:
            if (not tag or child.tag == tag) and (not name or name in (child.attributes.get("class") or "").split()):
                found.append(child)
            found += child.find(tag, name)
        return found

    @property
    def words(self):
        """All text below, spaces made one."""
        return " ".join(" ".join([self.text, *(child.words for child in self.children)]).split())


class _Tree(HTMLParser):
    def __init__(self):
        super().__init__()
        self.root = Element("", {})
        self._open = [self.root]

    def handle_starttag(self, tag, attrs):
        element = Element(tag, dict(attrs))
        self._open[-1].children.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        assert self._open[-1].tag == tag, f"</{tag}> ends <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data):
        self._open[-1].text += data + " "


def _parse(page):
    tree = _Tree()
    tree.feed(page)
    tree.close()
    assert tree._open == [tree.root], "an element is not closed"
    return tree.root


def _digests(folder: Path) -> dict[str, str]:
    """Every file below a folder but the timings, and what it holds."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "timings.json"
    }


def _decisions(output: Path) -> pa.Table:
    shards = json.loads((output / "summary.json").read_text())["shards"]
    return pa.concat_tables([pq.read_table(output / "decisions" / f"{shard}.parquet") for shard in shards])


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """A noisy pool of 240 scenes in four shards with its truth, and 60 trusted ones."""
    folder = tmp_path_factory.mktemp("rendered")
    write_pool(folder / "pool", samples=240, shard_size=60, seed=7)
    write_clean(folder / "trusted", samples=60, shard_size=60, seed=7)
    return folder


@pytest.fixture(scope="session")
def config_text():
    """The text of a config; pool, output and trusted are to be filled in."""
    return CONFIG


@pytest.fixture
def config(rendered, tmp_path):
    """Writes a config for the rendered pool and returns its path."""

    def write(text: str = CONFIG, output: str = "out", name: str = "config.yaml", pool: Path | None = None) -> Path:
        path = tmp_path / name
        settings = {"pool": pool or rendered / "pool", "trusted": rendered / "trusted", "output": tmp_path / output}
        path.write_text(text.format(**settings))
        return path

    return write


@pytest.fixture
def run(capsys):
    """Runs a command as the console script does: exit status, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse ends so
            status = int(stop.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def digests():
    return _digests


@pytest.fixture(scope="session")
def decisions():
    return _decisions


@pytest.fixture(scope="session")
def parse():
    """(page) -> its elements as a tree; fails where tags do not match."""
    return _parse


@pytest.fixture
def browse(tmp_path):
    """(file, flags) -> what the browser writes to standard output; fails where the page complains."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")

    def run(file, *flags):
        folder = tmp_path / "profile"
        done = subprocess.run(
            [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", *flags, f"file://{file}"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        shutil.rmtree(folder, ignore_errors=True)
        assert done.returncode == 0, done.stderr
        complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        assert not complaints
        return done.stdout

    return run


@pytest.fixture
def probe(tmp_path):
    """(page, script) -> a copy that runs a script of the test's own, which the page's policy would not let run."""

    def write(page, script):
        page, replaced = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
        assert replaced == 1
        file = tmp_path / "probe.html"
        file.write_text(page.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
        return file

    return write
