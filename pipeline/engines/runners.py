"""Runners by name: what `run.runner` means in Beam's options; what follows `--` on the command line wins."""

import difflib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from chaffinch.pipeline.engines.local_workers import cores

Runner = Literal["local", "processes", "prism", "flink", "dataflow"]

LOOPBACK, PROCESS = "loopback", "process"
WORKER = "chaffinch-worker"
FOLDER = "chaffinch_folder"
"""An experiment, as Beam calls what it passes on unread: the folder that relative paths of a config start from."""
_LOSSY = {
    "dask": "Beam's Dask runner loses data without an error: with Beam 2.77, 0 and 100 of 100 records arrived in two "
    "outputs of one step; take run.runner=processes on one machine, or run.runner=flink on many"
}


class SettingError(ValueError):
    """A setting is missing or makes no sense; the message says what to write."""

    def __init__(self, place: tuple[str, ...], problem: str) -> None:
        """Keeps where it stands.

        Args:
            place: the keys below `run:` that lead to it.
            problem: what is wrong with it, and what would be right.
        """
        super().__init__(problem)
        self.place = place


@dataclass(frozen=True)
class PrismSettings:
    """`run.prism:` Beam's own runner on one machine, a program in Go.

    Attributes:
        binary: the program: a path, or a name on PATH. It is never fetched.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    binary: str = "prism"


@dataclass(frozen=True)
class FlinkSettings:
    """`run.flink:` a Flink cluster, or an embedded Flink, behind Beam's job server.

    Attributes:
        job_server: host:port of the job server; must be given.
        artifacts: host:port at which it takes files, where it is not the one that it names itself.
        rest: host:port of the JobManager, so that a job can be ended when whoever launched it is stopped.
        environment: where Python works. `process`: TaskManagers start `chaffinch-worker`, which is on their PATH;
            a path: they start this program; host:port: they ask a worker pool there, as each of them sees it;
            `loopback`: threads of this very process, for a Flink on this machine.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    job_server: str | None = None
    artifacts: str | None = None
    rest: str | None = None
    environment: str = PROCESS


@dataclass(frozen=True)
class DataflowSettings:
    """`run.dataflow:` Google's service; every setting must be given. Its options are checked, but it was never run.

    Attributes:
        project: identifier of the project that pays.
        region: where the workers are.
        temp: a gs:// folder for temporary files.
        image: a container image with Beam's SDK and chaffinch in it.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    project: str | None = None
    region: str | None = None
    temp: str | None = None
    image: str | None = None


@dataclass(frozen=True)
class Choice:
    """A runner and its settings.

    Attributes:
        runner: its name.
        workers: how much is worked on at once; None leaves that to the runner.
        prism: settings of prism.
        flink: settings of Flink.
        dataflow: settings of Dataflow.
    """

    runner: Runner = "local"
    workers: int | None = None
    prism: PrismSettings = PrismSettings()
    flink: FlinkSettings = FlinkSettings()
    dataflow: DataflowSettings = DataflowSettings()

    @property
    def at_once(self) -> int:
        """How many shards are worked on at once, as far as that is known here: all cores where processes do it."""
        if self.workers is not None:
            return self.workers
        return cores() if self.runner == "processes" else 1

    def check(self) -> None:
        """Looks whether the runner's settings are all there and make sense; starts nothing.

        Raises:
            SettingError: they are not.
        """
        if self.runner == "prism" and shutil.which(self.prism.binary) is None:
            made = f"`go install github.com/apache/beam/sdks/v2/go/cmd/prism@v{_beam_version()}` makes it"
            raise SettingError(("prism", "binary"), f"there is no program {self.prism.binary!r}; {made}")
        if self.runner == "flink":
            self._check_flink()
        if self.runner == "dataflow":
            given = vars(self.dataflow)
            if missing := [name for name, value in given.items() if value is None]:
                raise SettingError(("dataflow", missing[0]), f"is missing; Dataflow needs {', '.join(given)}")
            if errors := _dataflow_errors(self.beam_options()):
                raise SettingError(("dataflow",), " ".join(errors))

    def _check_flink(self) -> None:
        flink = self.flink
        if flink.job_server is None:
            problem = "is missing: host:port of Beam's job server, such as localhost:8099; docs/flink.md starts one"
            raise SettingError(("flink", "job_server"), problem)
        for name in ("job_server", "artifacts", "rest"):
            address = getattr(flink, name)
            if address is not None and not is_address(address):
                raise SettingError(("flink", name), f"must be host:port, such as localhost:8099, not {address!r}")
        if not (flink.environment in (LOOPBACK, PROCESS) or "/" in flink.environment or is_address(flink.environment)):
            problem = f"must be {PROCESS}, {LOOPBACK}, the path of a program or a worker pool's host:port"
            raise SettingError(("flink", "environment"), f"{problem}, not {flink.environment!r}")

    def beam_options(self) -> tuple[str, ...]:
        """What this choice means on Beam's own command line; nothing for runners in this process."""
        workers = self.workers
        if self.runner == "prism":
            binary = shutil.which(self.prism.binary) or self.prism.binary
            options = ["--runner=PrismRunner", f"--prism_location={binary}", "--prism_log_level=warn"]
            return (*options, "--environment_type=LOOPBACK")
        if self.runner == "flink":
            options = ["--runner=PortableRunner", f"--job_endpoint={self.flink.job_server}"]
            if self.flink.artifacts is not None:
                options.append(f"--artifact_endpoint={self.flink.artifacts}")
            if workers is not None:
                options.append(f"--parallelism={workers}")
            options.append(f"--experiments={FOLDER}={os.getcwd()}")
            # What workers log ends in the TaskManagers' logs; Beam itself would fill them.
            options.append('--sdk_harness_log_level_overrides={"apache_beam": "WARNING"}')
            return (*options, *_environment(self.flink.environment))
        if self.runner == "dataflow":
            options = ["--runner=DataflowRunner", f"--project={self.dataflow.project}"]
            options += [f"--region={self.dataflow.region}", f"--temp_location={self.dataflow.temp}"]
            options += [f"--sdk_container_image={self.dataflow.image}", "--sdk_location=container"]
            if workers is not None:
                options += [f"--num_workers={workers}", f"--max_num_workers={workers}"]
            return tuple(options)
        return ()


def named_runner(beam_options: Sequence[str]) -> str | None:
    """The runner that Beam's options name; None where they name none, so that it works in this process."""
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

    name: str | None = PipelineOptions(list(beam_options)).view_as(StandardOptions).runner
    return name


def refuse(name: str | None) -> None:
    """Refuses a runner that is known to lose data.

    Args:
        name: as in `run.runner` or `--runner=`.

    Raises:
        ValueError: says why, and what to take instead.
    """
    for known, reason in _LOSSY.items():
        if name is not None and known in name.lower():
            raise ValueError(f"runner {name!r} is refused: {reason}")


def unknown_options(given: Sequence[str]) -> list[str]:
    """What Beam would drop without a word, as messages; a job server may know it all the same.

    Args:
        given: what followed `--` on the command line.
    """
    from apache_beam.options.pipeline_options import PipelineOptions

    options = PipelineOptions(list(given))
    known = options.get_all_options().keys()
    unknown = options.get_all_options(retain_unknown_options=True).keys() - known
    messages = []
    for name in sorted(unknown):
        near = difflib.get_close_matches(name, known, 1)
        nearest = f"; the nearest it knows is --{near[0]}" if near else ""
        messages.append(f"Beam knows no option --{name} and drops it, unless the job server knows it{nearest}")
    return messages


def _environment(place: str) -> tuple[str, ...]:
    """Beam's words for where Python works."""
    if place == LOOPBACK:
        return ("--environment_type=LOOPBACK",)
    if place == PROCESS or "/" in place:
        command = json.dumps({"command": WORKER if place == PROCESS else place})
        return ("--environment_type=PROCESS", f"--environment_config={command}")
    return ("--environment_type=EXTERNAL", f"--environment_config={place}")


def is_address(text: str) -> bool:
    """Whether this is host:port."""
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdigit() and 0 < int(port) < 1 << 16


def _dataflow_errors(options: Sequence[str]) -> list[str]:
    """What Beam finds wrong with options for Dataflow; asks nobody."""
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
    from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner

    errors: list[str] = PipelineOptionsValidator(PipelineOptions(list(options)), DataflowRunner()).validate()
    return errors


def _beam_version() -> str:
    from apache_beam.version import __version__

    return str(__version__)
