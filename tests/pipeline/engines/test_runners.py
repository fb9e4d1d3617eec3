"""Runners by name: Beam's options, what is refused, and the program that runners start."""

import os
import socket
from concurrent import futures

import grpc
import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.portability.api import (
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    beam_runner_api_pb2,
)
from apache_beam.transforms import environments

from chaffinch.pipeline.engines import beam_worker
from chaffinch.pipeline.engines.elsewhere import unreachable
from chaffinch.pipeline.engines.local_workers import cores
from chaffinch.pipeline.engines.runners import (
    Choice,
    DataflowSettings,
    FlinkSettings,
    PrismSettings,
    SettingError,
    named_runner,
    refuse,
    unknown_options,
)

FLINK = FlinkSettings("localhost:8099")
DATAFLOW = DataflowSettings("some-project", "europe-west4", "gs://bucket/temp", "gcr.io/some-project/chaffinch:1")


@pytest.mark.parametrize("runner", ["local", "processes"])
def test_runners_in_this_process_need_no_option(runner):
    choice = Choice(runner)
    choice.check()
    assert choice.beam_options() == ()
    assert choice.at_once == (cores() if runner == "processes" else 1)
    assert Choice(runner, 3).at_once == 3


@pytest.mark.parametrize(
    ("place", "environment"),
    [
        ("loopback", environments.EmbeddedPythonGrpcEnvironment),
        ("process", environments.ProcessEnvironment),
        ("/opt/bin/worker", environments.ProcessEnvironment),
        ("localhost:50000", environments.ExternalEnvironment),
    ],
)
def test_flink_in_the_words_of_beam(place, environment):
    choice = Choice("flink", 4, flink=FlinkSettings("host:8099", "host:8098", "host:8081", place))
    choice.check()
    options = PipelineOptions(list(choice.beam_options()))
    assert not unknown_options(choice.beam_options())
    assert options.view_as(StandardOptions).runner == "PortableRunner"
    portable = options.view_as(PortableOptions)
    assert (portable.job_endpoint, portable.artifact_endpoint) == ("host:8099", "host:8098")
    assert "--parallelism=4" in choice.beam_options()
    assert options.view_as(DebugOptions).experiments == [f"chaffinch_folder={os.getcwd()}"]
    assert options.view_as(WorkerOptions).sdk_harness_log_level_overrides == {"apache_beam": "WARNING"}
    if place != "loopback":
        made = environments.Environment.from_options(portable)
        assert isinstance(made, environment)
        command = {"process": "chaffinch-worker", "/opt/bin/worker": place}.get(place)
        assert getattr(made, "command", None) == command
        assert getattr(made, "url", place if command is None else None) == (place if command is None else None)


def test_without_workers_a_cluster_decides_by_itself():
    assert not any("parallelism" in option for option in Choice("flink", flink=FLINK).beam_options())


@pytest.mark.parametrize(
    ("choice", "place", "told"),
    [
        (Choice("flink"), ("flink", "job_server"), "is missing: host:port"),
        (Choice("flink", flink=FlinkSettings("localhost")), ("flink", "job_server"), "'localhost'"),
        (Choice("flink", flink=FlinkSettings("a:8099", "b:x")), ("flink", "artifacts"), "'b:x'"),
        (Choice("flink", flink=FlinkSettings("a:8099", environment="docker")), ("flink", "environment"), "'docker'"),
        (Choice("prism", prism=PrismSettings("no-such-prism")), ("prism", "binary"), "go install github.com/apache"),
        (Choice("dataflow"), ("dataflow", "project"), "needs project, region, temp, image"),
        (Choice("dataflow", dataflow=DataflowSettings("p", "r", "gs://b/t")), ("dataflow", "image"), "is missing"),
        (
            Choice("dataflow", dataflow=DataflowSettings("My Project", "europe-west4", "gs://b/t", "image")),
            ("dataflow",),
            "Invalid Project ID",
        ),
    ],
)
def test_what_is_missing_is_named(choice, place, told):
    with pytest.raises(SettingError, match=told) as caught:
        choice.check()
    assert caught.value.place == place


def test_dataflow_in_the_words_of_beam():
    choice = Choice("dataflow", 8, dataflow=DATAFLOW)
    choice.check()
    options = PipelineOptions(list(choice.beam_options()))
    assert not unknown_options(choice.beam_options())
    assert options.view_as(StandardOptions).runner == "DataflowRunner"
    assert options.view_as(WorkerOptions).sdk_container_image == DATAFLOW.image
    assert options.view_as(WorkerOptions).max_num_workers == 8


def test_what_follows_wins():
    options = (*Choice("flink", 4, flink=FLINK).beam_options(), "--job_endpoint=other:1", "--runner=FlinkRunner")
    assert named_runner(options) == "FlinkRunner"
    assert PipelineOptions(list(options)).view_as(PortableOptions).job_endpoint == "other:1"


@pytest.mark.parametrize("name", ["dask", "DaskRunner", "apache_beam.runners.dask.dask_runner.DaskRunner"])
def test_runners_that_lose_data_are_refused(name):
    with pytest.raises(ValueError, match=r"loses data .* run\.runner=processes"):
        refuse(name)


@pytest.mark.parametrize("name", [None, "local", "FlinkRunner"])
def test_others_are_not(name):
    refuse(name)


def test_options_that_beam_would_drop_are_named():
    assert unknown_options(["--direct_num_workers=2", "--experiments=x"]) == []
    (message,) = unknown_options(["--direct_num_worker=2", "--runner=PrismRunner", "--nothing_like_it=1"])[:1]
    assert "--direct_num_worker and" in message
    assert "the nearest it knows is --direct_num_workers" in message


def test_a_job_server_that_does_not_answer_is_told_before_anything_starts():
    with socket.socket() as server:
        server.bind(("localhost", 0))
        address = f"localhost:{server.getsockname()[1]}"
        options = Choice("flink", flink=FlinkSettings(address)).beam_options()
        assert f"no job server answers at {address}" in unreachable(options)
        server.listen()
        assert unreachable(options) == ""
    assert unreachable(()) == ""


class Provision(beam_provision_api_pb2_grpc.ProvisionServiceServicer):
    """Tells a worker that its job comes with a file."""

    def __init__(self, names):
        self.names = names
        self.asked_by = []

    def GetProvisionInfo(self, request, context):  # noqa: N802 - Beam's name
        self.asked_by.append(dict(context.invocation_metadata())["worker_id"])
        files = [
            beam_runner_api_pb2.ArtifactInformation(
                role_payload=beam_runner_api_pb2.ArtifactStagingToRolePayload(staged_name=name).SerializeToString()
            )
            for name in self.names
        ]
        info = beam_provision_api_pb2.ProvisionInfo(dependencies=files)
        return beam_provision_api_pb2.GetProvisionInfoResponse(info=info)


def test_a_worker_that_cannot_install_what_a_job_wants_says_so(capsys):
    provision = Provision(["requirements.txt", "submission_environment_dependencies.txt"])
    server = grpc.server(futures.ThreadPoolExecutor(1))
    beam_provision_api_pb2_grpc.add_ProvisionServiceServicer_to_server(provision, server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        assert beam_worker.main(["--id=1-1", f"--provision_endpoint=localhost:{port}", "--artifact_endpoint=x:1"]) == 1
    finally:
        server.stop(0)
    assert provision.asked_by == ["1-1"]
    told = capsys.readouterr().err
    assert "the job comes with requirements.txt, but" in told
