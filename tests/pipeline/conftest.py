"""An object store on this machine, for tests of what lies on s3://."""

import http.client
import logging
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from moto.server import ThreadedMotoServer

from chaffinch.pipeline.engines.engine import set_up_filesystems
from chaffinch.pipeline.storage import retries

CODES = {"403": "AccessDenied", "500": "InternalError", "503": "SlowDown"}


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


@dataclass
class Trouble:
    """Which requests fail, and how.

    Attributes:
        first: how many of each failing kind, method and object, before one comes through.
        kind: "reset", "cut" (in the middle of the answer), or a status.
        wanted: only those whose "METHOD path" matches.
        seen: what has failed.
    """

    first: int = 0
    kind: str = "reset"
    wanted: str = ""
    seen: Counter = field(default_factory=Counter)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def strikes(self, request: str) -> bool:
        with self.guard:
            if not re.search(self.wanted, request) or self.seen[request] >= self.first:
                return False
            self.seen[request] += 1
            return True


class Gate(BaseHTTPRequestHandler):
    """Passes requests on to the object store, or fails."""

    protocol_version = "HTTP/1.1"

    def _pass(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        trouble = self.server.trouble
        strikes = trouble.strikes(f"{self.command} {self.path}")
        if strikes and trouble.kind == "reset":
            # No lingering: the other side sees a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._hang_up()
            return
        if strikes and trouble.kind != "cut":
            told = f"<Error><Code>{CODES[trouble.kind]}</Code><Message>not now</Message></Error>".encode()
            self.send_response(int(trouble.kind))
            self.send_header("Content-Length", "0" if self.command == "HEAD" else str(len(told)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(told)
            return
        store = http.client.HTTPConnection(self.server.behind)
        store.request(self.command, self.path, body, dict(self.headers))
        answer = store.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if strikes else content)
        store.close()
        if strikes:
            self._hang_up()

    def _hang_up(self):
        self.close_connection = True
        self.wfile.flush()
        self.rfile.close()
        self.connection.close()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass  # noqa: N815  # the names http.server calls

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    """A gate that says nothing when the other side is gone."""

    def handle_error(self, *_):
        pass

    def shutdown_request(self, request):
        self.close_request(request)


@pytest.fixture
def trouble(remote, server, monkeypatch):
    """Trouble between us and the object store; there is none at first."""
    monkeypatch.setattr(retries, "DELAYS", (0.01, 0.02, 0.04, 0.08, 0.16))
    with Server(("127.0.0.1", 0), Gate) as gate:
        gate.behind, gate.trouble = urlsplit(server).netloc, Trouble()
        threading.Thread(target=gate.serve_forever, daemon=True).start()
        gate.trouble.options = [
            f"--s3_endpoint_url=http://127.0.0.1:{gate.server_port}" if "endpoint" in one else one
            for one in remote.options
        ]
        set_up_filesystems(gate.trouble.options)
        yield gate.trouble
        gate.shutdown()
