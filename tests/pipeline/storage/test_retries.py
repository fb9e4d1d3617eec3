"""Failures that pass and failures that stay, between us and an object store."""

import botocore.exceptions
import pytest
from apache_beam.io.aws.clients.s3.messages import S3ClientError

from chaffinch.pipeline.storage import files, listings, retries
from chaffinch.pipeline.storage.retries import GivenUpError, is_transient, retried

FAILURES = ("reset", "500", "503", "cut")


@pytest.mark.parametrize("kind", FAILURES)
def test_what_passes_is_not_seen(trouble, kind, caplog):
    content = bytes(range(256)) * 4096
    if kind != "cut":  # of what has no content, no half can be sent
        trouble.first, trouble.kind = 2, kind
    files.write_bytes("s3://bucket/a/one", content)
    trouble.first, trouble.kind, trouble.wanted = 2, kind, "GET|POST" if kind == "cut" else ""
    assert files.read_bytes("s3://bucket/a/one") == content
    assert listings.names_below("s3://bucket/a") == {"one"}
    with files.open_binary("s3://bucket/a/one") as file:
        file.seek(500_000)
        assert file.read(1000) == content[500_000:501_000]
    if kind != "cut":
        assert files.exists("s3://bucket/a/one")
    files.remove("s3://bucket/a/one")
    assert listings.names_below("s3://bucket/a") == set()
    assert max(trouble.seen.values()) == 2
    if kind == "cut":  # what had come is kept, and the rest asked for at once
        return
    told = [record.getMessage() for record in caplog.records if record.name.startswith("chaffinch")]
    assert any(message.startswith("s3://bucket/a/one: ") and "trying again in 0.02 s" in message for message in told)


@pytest.mark.parametrize("kind", ["reset", "503"])
def test_what_stays_is_told_after_a_handful_of_tries(trouble, remote, kind):
    trouble.first, trouble.kind, trouble.wanted = 10_000, kind, "PUT"
    with pytest.raises(OSError, match=r"s3://bucket/a: .*\(6 tries in "):
        files.write_bytes("s3://bucket/a", b"content")
    trouble.wanted = ""
    with pytest.raises(OSError, match=r"s3://bucket/a.*\(6 tries"):
        files.read_bytes("s3://bucket/a")
    with pytest.raises(OSError, match=r"s3://bucket.*\(6 tries"):
        listings.names_below("s3://bucket/b")
    # Beam asks no more than we do.
    assert max(trouble.seen.values()) == len(retries.DELAYS) + 1


def test_what_is_not_allowed_or_not_there_is_asked_for_once(trouble):
    trouble.first, trouble.kind = 10_000, "403"
    for ask in (files.read_bytes, files.exists, listings.names_below):
        with pytest.raises(OSError, match=r"403|AccessDenied"):
            ask("s3://bucket/a")
    with pytest.raises(Exception, match="AccessDenied"):
        files.write_bytes("s3://bucket/a", b"content")
    assert set(trouble.seen.values()) <= {1, 2}  # once for reading, once for asking whether it is there
    trouble.first = 0
    with pytest.raises(FileNotFoundError):
        files.read_bytes("s3://bucket/nothing")
    assert not files.exists("s3://bucket/nothing")


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="x"), True),
        (botocore.exceptions.ConnectTimeoutError(endpoint_url="x"), True),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="x"), True),
        (botocore.exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2), True),
        (botocore.exceptions.ClientError({"Error": {"Code": "RequestTimeout"}}, "GetObject"), True),
        (botocore.exceptions.NoCredentialsError(), False),
        (S3ClientError("x", 503), True),
        (S3ClientError("x", "SlowDown"), True),
        (S3ClientError("x", 404), False),
        (S3ClientError("x", 403), False),
        (S3ClientError("x", "AccessDenied"), False),
        (FileNotFoundError(), False),
        (PermissionError(), False),
        (GivenUpError("x"), False),
        (ValueError(), False),
    ],
)
def test_which_errors_pass(error, passes):
    assert is_transient(error) is passes


def test_delays_grow_and_are_the_same_every_time(monkeypatch):
    waited = []
    monkeypatch.setattr(retries.time, "sleep", waited.append)

    def fail():
        raise ConnectionResetError("gone")

    for _ in range(2):
        with pytest.raises(GivenUpError, match=r"s3://x: gone \(6 tries in 15.5 s\)"):
            retried("s3://x", fail)
    assert waited == [0.5, 1, 2, 4, 8] * 2
