"""One S3 connection per process: Beam makes a new one for every file operation, which takes a quarter of a second."""

import threading
from typing import Any

from apache_beam.io.aws.clients.s3 import boto3_client
from apache_beam.options.pipeline_options import PipelineOptions, S3Options

_BeamsClient = boto3_client.Client
_lock = threading.Lock()
_connections: dict[tuple[Any, ...], Any] = {}
_latest: list[tuple[object, Any]] = []


class SharedClient(boto3_client.Client):
    """Beam's client around a connection that others use too; those of boto3 are made to be shared by threads."""

    def __init__(self, options: Any) -> None:
        """Takes the connection that these options lead to.

        Args:
            options: Beam's pipeline options, or a dictionary of those for S3.
        """
        self.client = _connection(options)
        self._download_request = None
        self._download_stream = None
        self._download_pos = 0


def _connection(options: Any) -> Any:
    with _lock:
        # Options are taken apart only when they are others than last time: that takes milliseconds.
        if not _latest or _latest[0][0] is not options:
            found = options.view_as(S3Options) if isinstance(options, PipelineOptions) else None
            names = [name for name in dir(S3Options()) if name.startswith("s3_")]
            key = tuple(options.get(name) if found is None else getattr(found, name) for name in names)
            if key not in _connections:
                _connections[key] = _BeamsClient(options).client
            _latest[:] = [(options, _connections[key])]
        return _latest[0][1]


def share_connections() -> None:
    """Makes Beam's S3 filesystem of this process use shared connections."""
    boto3_client.Client = SharedClient
