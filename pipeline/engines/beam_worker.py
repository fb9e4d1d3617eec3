"""`chaffinch-worker`: the Python process that a TaskManager, or a worker pool, starts for a job.

It takes the command line that Beam has laid down for the programs of its containers, and needs no container: it asks
whoever started it for the job's options. Beam's worker pool by itself passes on none, be it endpoints or log levels.
"""

import argparse
import os
import sys
from collections.abc import Sequence

import grpc
from apache_beam.portability.api import (
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    beam_runner_api_pb2,
    endpoints_pb2,
)
from google.protobuf import json_format, text_format

from chaffinch.pipeline.engines.runners import FOLDER

_PATIENCE_SECONDS = 60.0
# Beam's own note of what was installed where the job was launched; every job has it.
_HARMLESS = {"submission_environment_dependencies.txt"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Works until the job ends.

    Args:
        arguments: --id and endpoints, as Beam gives them; the process's own by default.

    Returns:
        0 when the job has ended, 1 where it needs what a worker cannot give.
    """
    parser = argparse.ArgumentParser(prog="chaffinch-worker", description="Started by a runner of Beam, not by hand.")
    for name in ("id", "provision_endpoint"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("logging_endpoint", "control_endpoint"):
        parser.add_argument(f"--{name}", default="")
    given, _ = parser.parse_known_args(arguments)
    info = _ask(given.provision_endpoint, given.id)
    if files := _files(info):
        print(  # noqa: T201
            f"chaffinch-worker: the job comes with {', '.join(files)}, but nothing is installed for a job: install "
            "what it needs beside chaffinch on all workers, and launch it without --requirements_file and the like",
            file=sys.stderr,
        )
        return 1
    _enter_folder(info)
    os.environ["WORKER_ID"] = given.id
    os.environ["PIPELINE_OPTIONS"] = json_format.MessageToJson(info.pipeline_options)
    os.environ["RUNNER_CAPABILITIES"] = " ".join(info.runner_capabilities)
    for name, url in (
        ("CONTROL", given.control_endpoint or info.control_endpoint.url),
        ("LOGGING", given.logging_endpoint or info.logging_endpoint.url),
        ("STATUS", info.status_endpoint.url),
    ):
        if url:
            descriptor = endpoints_pb2.ApiServiceDescriptor(url=url)
            os.environ[f"{name}_API_SERVICE_DESCRIPTOR"] = text_format.MessageToString(descriptor)
    from apache_beam.runners.worker import sdk_worker_main  # at its import, it asks WORKER_ID who it is

    sdk_worker_main.main([])
    return 0


def _ask(endpoint: str, worker: str) -> beam_provision_api_pb2.ProvisionInfo:
    """What whoever started this worker has to say of the job."""
    with grpc.insecure_channel(endpoint) as channel:
        stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        request = beam_provision_api_pb2.GetProvisionInfoRequest()
        return stub.GetProvisionInfo(
            request, timeout=_PATIENCE_SECONDS, wait_for_ready=True, metadata=[("worker_id", worker)]
        ).info


def _enter_folder(info: beam_provision_api_pb2.ProvisionInfo) -> None:
    """Goes where the job was launched, so that relative paths mean the same; where that is not here, none can be."""
    experiments = json_format.MessageToDict(info.pipeline_options).get("beam:option:experiments:v1") or []
    for name, _, folder in (one.partition("=") for one in experiments):
        if name == FOLDER and os.path.isdir(folder):
            os.chdir(folder)


def _files(info: beam_provision_api_pb2.ProvisionInfo) -> list[str]:
    """Names of the files that a job wants to be installed or unpacked."""
    payload = beam_runner_api_pb2.ArtifactStagingToRolePayload
    names = {payload.FromString(one.role_payload).staged_name for one in info.dependencies}
    return sorted(names - _HARMLESS)


if __name__ == "__main__":
    sys.exit(main())
