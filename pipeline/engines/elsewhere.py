"""Jobs that run elsewhere: launched, waited for, and ended when whoever launched them is stopped."""

import contextlib
import json
import logging
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, PortableOptions
from apache_beam.runners.portability import portable_runner
from apache_beam.runners.runner import PipelineResult, PipelineState

from chaffinch.pipeline.engines.runners import is_address

_POLL_SECONDS = 0.1
_PATIENCE_SECONDS = 5.0

_log = logging.getLogger(__name__)


def run_elsewhere(pipeline: beam.Pipeline, flink_rest: str | None) -> None:
    """Runs a job elsewhere and waits for its end; ends it where this process is to stop, since it would go on.

    Args:
        pipeline: the job.
        flink_rest: host:port of the JobManager, where it is Flink that runs it and this is known.

    Raises:
        Exception: what the job failed for.
    """
    result: PipelineResult | None = None
    try:
        with _noting_the_end() as told:
            result = pipeline.run()
            if not isinstance(result, portable_runner.PipelineResult):
                result.wait_until_finish()
                return
            while not PipelineState.is_terminal(result.state):
                if told.is_set():
                    raise SystemExit(128 + signal.SIGTERM)
                time.sleep(_POLL_SECONDS)
    except BaseException as error:
        if result is not None:
            with contextlib.suppress(Exception):  # what is to be told is why this was asked for
                result.cancel()
        if result is not None or not isinstance(error, Exception):
            _end_job(pipeline.options, flink_rest)
        raise
    if result.state != PipelineState.DONE:
        result.wait_until_finish()  # raises what the job failed for
    # Beam's own waiting gives a job that is done ten more seconds to say something. This lets go of it at once.
    result.cancel()


@contextlib.contextmanager
def _noting_the_end() -> Iterator[threading.Event]:
    """Notes a first SIGTERM, so that a job that is just being launched can be ended; a second one ends this at once."""
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return

    def note(*_: object) -> None:
        told.set()
        signal.signal(signal.SIGTERM, before)

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)


def unreachable(beam_options: Sequence[str]) -> str:
    """Why no job can be launched at this time, and what to do.

    Args:
        beam_options: all that a job would get.

    Returns:
        A message; empty where nothing is known to be in the way.
    """
    address = PipelineOptions(list(beam_options)).view_as(PortableOptions).job_endpoint
    if address is None or not is_address(address):
        return ""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _PATIENCE_SECONDS).close()
    except OSError as error:
        return f"no job server answers at {address} ({error}); docs/flink.md tells how to start one"
    return ""


def _end_job(options: PipelineOptions, flink_rest: str | None) -> None:
    """Ends a job behind a job server, or says that it may go on: Beam's job server only forgets jobs of Flink's."""
    if options.view_as(PortableOptions).job_endpoint is None:
        return  # it ends with this process, or was cancelled
    name = options.view_as(GoogleCloudOptions).job_name
    problem = "run.flink.rest is not set"
    if flink_rest is not None:
        try:
            if _end_jobs(name, flink_rest):
                return
            problem = f"{flink_rest} knows no such job"
        except (OSError, ValueError) as error:
            problem = f"{flink_rest} does not answer: {error}"
    _log.warning("job %s may go on and hold slots: cancel it where it runs (%s)", name, problem)


def _end_jobs(name: str, rest: str) -> int:
    """Asks Flink to end jobs of one name; how many there were."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a cluster is not behind a proxy
    with direct.open(f"http://{rest}/jobs/overview", timeout=_PATIENCE_SECONDS) as answer:
        jobs = [job["jid"] for job in json.load(answer)["jobs"] if job["name"] == name]
    for job in jobs:
        request = urllib.request.Request(f"http://{rest}/jobs/{job}?mode=cancel", method="PATCH")
        direct.open(request, timeout=_PATIENCE_SECONDS).close()
    return len(jobs)
