"""S3 as Beam's filesystem sees it, through one connection per process, with retries of our own.

Beam makes a new connection for every file operation, which takes a quarter of a second. It retries some requests for
ten minutes, beneath which boto3 retries too, at random intervals; a broken download is not taken up where it broke.
"""

import threading
from typing import Any, BinaryIO

from apache_beam.io.aws.clients.s3 import boto3_client
from apache_beam.io.aws.s3io import parse_s3_path
from apache_beam.options.pipeline_options import PipelineOptions, S3Options

from chaffinch.pipeline.storage.retries import is_transient, retried

_LARGEST_PUT = 1 << 30
"""Bytes; what is larger is put in parts, and appears when all of them are there."""

_lock = threading.Lock()
_connections: dict[tuple[Any, ...], Any] = {}
_latest: list[tuple[object, Any]] = []


class SharedClient(boto3_client.Client):
    """Beam's client around a connection that others use too; those of boto3 are made to be shared by threads.

    Every request is tried a few times. Beam's own retries see only errors that they let pass.
    """

    def __init__(self, options: Any) -> None:
        """Takes the connection that these options lead to.

        Args:
            options: Beam's pipeline options, or a dictionary of those for S3.
        """
        self.client = _connection(options)
        self._download_request = None
        self._download_stream = None
        self._download_pos = 0

    def get_object_metadata(self, request: Any) -> Any:
        """What a store knows of an object."""
        beams: Any = super()
        return retried(_path(request.bucket, request.object), lambda: beams.get_object_metadata(request))

    def list(self, request: Any) -> Any:
        """One page of a listing."""
        beams: Any = super()
        return retried(_path(request.bucket, request.prefix), lambda: beams.list(request))

    def delete(self, request: Any) -> None:
        """Removes an object."""
        beams: Any = super()
        retried(_path(request.bucket, request.object), lambda: beams.delete(request))

    def delete_batch(self, request: Any) -> Any:
        """Removes objects; those that were removed by an earlier try count as removed."""
        beams: Any = super()

        def delete() -> Any:
            response = beams.delete_batch(request)
            for error in response.errors:
                if is_transient(error):
                    raise error
            return response

        return retried(_path(request.bucket, f"{request.objects[0]} ..."), delete)

    def get_range(self, request: Any, start: int, end: int) -> bytes:
        """Bytes of an object: goes on where a connection broke."""
        found = bytearray()

        def read() -> None:
            try:
                while len(found) < end - start:
                    part = self.get_stream(request, start + len(found)).read(end - start - len(found))
                    if not part:
                        raise ConnectionError(f"the connection ended at byte {start + len(found)}")
                    found.extend(part)
                    self._download_pos += len(part)
            except BaseException:
                self._download_stream = self._download_request = None
                raise

        retried(_path(request.bucket, request.object), read)
        return bytes(found)


def put(options: Any, path: str, content: BinaryIO) -> None:
    """Writes an object at once, so that it is there as a whole or not at all, also if this process ends on the way.

    Beam's writer ends an upload like any other when an error ends the writing.

    Args:
        options: Beam's pipeline options.
        path: `s3://<bucket>/<name>`.
        content: a local file, read from its beginning.
    """
    from boto3.s3.transfer import TransferConfig  # type: ignore[import-untyped]

    bucket, name = parse_s3_path(path)
    settings = TransferConfig(multipart_threshold=_LARGEST_PUT, use_threads=False)
    client = _connection(options)
    content.flush()

    def send() -> None:
        with open(content.fileno(), "rb", closefd=False) as file:  # what is handed over is closed
            file.seek(0)
            client.upload_fileobj(file, bucket, name, Config=settings)

    retried(path, send)


def share_connections() -> None:
    """Makes Beam's S3 filesystem of this process use shared connections."""
    boto3_client.Client = SharedClient
    boto3_client.get_http_error_code = _status  # Beam's fails for connections that broke, and hides that they did


def _status(error: Exception) -> int | None:
    """The status of the answer that an error is about; None where there was no answer."""
    response = getattr(error, "response", None)
    status: int | None = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if response else None
    return status


def _connection(options: Any) -> Any:
    with _lock:
        # Options are taken apart only when they are others than last time: that takes milliseconds.
        if not _latest or _latest[0][0] is not options:
            found = options.view_as(S3Options) if isinstance(options, PipelineOptions) else None
            names = [name for name in dir(S3Options()) if name.startswith("s3_")]
            given = {name: options.get(name) if found is None else getattr(found, name) for name in names}
            key = tuple(given.values())
            if key not in _connections:
                _connections[key] = _connect(given)
            _latest[:] = [(options, _connections[key])]
        return _latest[0][1]


def _connect(given: dict[str, Any]) -> Any:
    try:
        import boto3  # type: ignore[import-untyped]
        from botocore.config import Config  # type: ignore[import-untyped]
    except ImportError as error:
        raise RuntimeError("s3:// needs boto3: pip install 'chaffinch[aws]'") from error
    return boto3.session.Session().client(
        service_name="s3",
        region_name=given["s3_region_name"],
        api_version=given["s3_api_version"],
        use_ssl=not given["s3_disable_ssl"],
        verify=given["s3_verify"],
        endpoint_url=given["s3_endpoint_url"],
        aws_access_key_id=given["s3_access_key_id"],
        aws_secret_access_key=given["s3_secret_access_key"],
        aws_session_token=given["s3_session_token"],
        config=Config(retries={"total_max_attempts": 1}),
    )


def _path(bucket: str, name: str) -> str:
    return f"s3://{bucket}/{name}"
