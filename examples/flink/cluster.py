"""A Flink that runs Beam pipelines, on this machine alone: up, in use, down again. docs/flink.md tells how to use it.

    python examples/flink/cluster.py fetch             get the jars, once: 153 MB, by Maven (needs mvn and a network)
    python examples/flink/cluster.py up                a JobManager, two TaskManagers and Beam's job server
    python examples/flink/cluster.py up --embedded     or Beam's job server alone, with a Flink inside it
    python examples/flink/cluster.py settings          what to write behind `chaffinch run CONFIG`
    python examples/flink/cluster.py jobs              what runs, and what holds slots although nobody waits for it
    python examples/flink/cluster.py cancel [JOB ...]  end these jobs, or all that run
    python examples/flink/cluster.py down              end all of it

Needs nothing but Python, Java 17 or 11, and a Python environment with chaffinch in it, which is the one that runs this.
The jars go to the folder that CHAFFINCH_FLINK_JARS names, or below the user's cache. Linux only.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

POM = Path(__file__).with_name("pom.xml")
WAIT_SECONDS = 60.0
# Since Java 17 the modules below are closed to Flink's and Beam's serialisers unless opened.
OPENED = ("lang", "lang.invoke", "io", "math", "net", "nio", "text", "time", "util", "util.concurrent")
CONFIG = """\
jobmanager.rpc.address: localhost
jobmanager.rpc.port: {rpc}
jobmanager.bind-host: localhost
rest.address: localhost
rest.bind-address: localhost
rest.port: {rest}
taskmanager.host: localhost
taskmanager.bind-host: localhost
taskmanager.numberOfTaskSlots: {slots}
taskmanager.cpu.cores: {slots}
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.task.heap.size: 256m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.task.off-heap.size: 0m
taskmanager.memory.managed.size: 128m
taskmanager.memory.network.min: 64m
taskmanager.memory.network.max: 64m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 192m
taskmanager.memory.jvm-overhead.max: 192m
io.tmp.dirs: {folder}/tmp
"""


class ClusterError(Exception):
    """The cluster cannot be had; the message says why and what to do."""


def jars_folder() -> Path:
    """Where the jars are: the same for all versions of this repository that want the same jars.

    Beam's job server would send all jars that it was started from with every job, though the cluster has them: 14 s a
    job. What it leaves out is what lies below a folder of this name.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    named = os.environ.get("CHAFFINCH_FLINK_JARS") or cache / "chaffinch" / "beam-flink-1.19-2.62.0"
    return Path(named).absolute() / "gradle" / "wrapper"


def missing() -> str:
    """Why no cluster can be started here, and what to do about it; empty where one can."""
    if shutil.which("java") is None:
        return "there is no java on PATH: install a Java 17 runtime"
    if not any(jars_folder().glob("beam-runners-flink-*.jar")):
        return f"there are no jars in {jars_folder()}: run `python examples/flink/cluster.py fetch`"
    return ""


def fetch() -> None:
    """Gets the jars by Maven, all of them or none.

    Raises:
        ClusterError: there is no mvn, or it cannot get them.
    """
    if any(jars_folder().glob("beam-runners-flink-*.jar")):
        return
    if shutil.which("mvn") is None:
        raise ClusterError("there is no mvn on PATH: install Maven")
    jars_folder().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=jars_folder().parent) as folder:
        goal = ["dependency:copy-dependencies", f"-DoutputDirectory={folder}/jars"]
        done = subprocess.run(["mvn", "--batch-mode", "--quiet", "-Dstyle.color=never", "--file", POM, *goal])
        if done.returncode:
            raise ClusterError("Maven could not get the jars; what it says stands above")
        with contextlib.suppress(OSError):  # somebody else was faster
            os.rename(f"{folder}/jars", jars_folder())


@dataclass
class Cluster:
    """A Flink on the loopback interface.

    Attributes:
        folder: its configuration, logs and temporary files; one cluster per folder.
        ports: name -> port of what listens.
        processes: name -> process number, and when that process started, in ticks since the machine did.
        embedded: whether Flink lives inside the job server.
    """

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, tuple[int, int]] = field(default_factory=dict)
    embedded: bool = False

    @classmethod
    def known(cls, folder: Path) -> "Cluster":
        """The cluster that was started in a folder; ClusterError where none was."""
        try:
            return cls(folder, **json.loads((folder / "cluster.json").read_text()))
        except FileNotFoundError:
            raise ClusterError(f"no cluster was started in {folder}: `up` starts one") from None

    @classmethod
    def start(cls, folder: Path, task_managers: int = 2, slots: int = 1, embedded: bool = False) -> "Cluster":
        """Starts all processes and waits until they work.

        Args:
            folder: where to; made if it is not there.
            task_managers: how many.
            slots: of each.
            embedded: a Flink inside the job server instead.

        Returns:
            The cluster.

        Raises:
            ClusterError: something is missing, or a process does not come up; nothing is left running.
        """
        if problem := missing():
            raise ClusterError(problem)
        if (folder / "cluster.json").exists():
            raise ClusterError(f"a cluster was started in {folder}: `down` ends it, --folder names another place")
        for name in ("conf", "logs", "tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        names = ("job_server", "artifacts", "expansion", *(() if embedded else ("rpc", "rest")))
        cluster = cls(folder, dict(zip(names, free_ports(len(names)), strict=True)), {}, embedded)
        try:
            cluster._start(task_managers, slots)
        except BaseException:
            cluster.stop()
            raise
        return cluster

    def _start(self, task_managers: int, slots: int) -> None:
        ports = self.ports
        if not self.embedded:
            (self.folder / "conf" / "config.yaml").write_text(CONFIG.format(folder=self.folder, slots=slots, **ports))
            conf = ["--configDir", f"{self.folder}/conf"]
            entry = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
            self._run_java("job-manager", 512, entry, *conf)
            for number in range(task_managers):
                self.start_task_manager(number)
        master = ["--flink-master=[local]"]
        if not self.embedded:
            master = [f"--flink-master=localhost:{ports['rest']}", f"--flink-conf-dir={self.folder}/conf"]
        self._run_java(
            "job-server",
            1024 if self.embedded else 512,
            "org.apache.beam.runners.flink.FlinkJobServerDriver",
            *master,
            f"--job-port={ports['job_server']}",
            f"--artifact-port={ports['artifacts']}",
            f"--expansion-port={ports['expansion']}",
            f"--artifacts-dir={self.folder}/tmp",
        )
        self._wait("the job server", lambda: _listens(ports["job_server"]))
        if not self.embedded:
            self._wait("the TaskManagers", lambda: self.ask("/overview").get("slots-total") == task_managers * slots)

    def start_task_manager(self, number: int) -> None:
        """Starts a TaskManager, also in place of one that ended; it offers its slots some seconds later."""
        entry = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
        self._run_java(f"task-manager-{number}", 384, entry, "--configDir", f"{self.folder}/conf")

    def _run_java(self, name: str, megabytes: int, entry: str, *arguments: str) -> None:
        opened = [f"--add-opens=java.base/java.{module}=ALL-UNNAMED" for module in OPENED]
        opened.append("--add-opens=java.base/sun.nio.ch=ALL-UNNAMED")
        simple = "-Dorg.slf4j.simpleLogger"
        log = [f"{simple}.showDateTime=true", f"{simple}.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS"]
        heap = [f"-Xmx{megabytes}m", "-XX:MaxMetaspaceSize=256m", "-XX:+UseSerialGC"]
        self._run(name, "java", *heap, *log, *opened, "-cp", f"{jars_folder()}/*", entry, *arguments)

    def _run(self, name: str, *command: str) -> None:
        """Starts a process in a group of its own, which ends with it, and writes down which one it is."""
        # Flink starts the chaffinch-worker that comes first.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        with open(self.folder / "logs" / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"PATH": path},
            )
        self.processes[name] = (process.pid, _started(process.pid))
        content = {"ports": self.ports, "processes": self.processes, "embedded": self.embedded}
        (self.folder / "cluster.json").write_text(json.dumps(content))

    def _wait(self, what: str, works: Any) -> None:
        until = time.monotonic() + WAIT_SECONDS
        while not works():
            ended = [name for name, (process, started) in self.processes.items() if _started(process) != started]
            if ended or time.monotonic() > until:
                culprit = f"{ended[0]} has ended" if ended else f"{what} did not come up in {WAIT_SECONDS:.0f} s"
                raise ClusterError(f"{culprit}; see the logs in {self.folder / 'logs'}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Ends all processes that this started, and nothing else, and forgets them; logs stay."""
        groups = [process for process, started in self.processes.values() if _started(process) == started]
        for sent, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
            for group in groups:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, sent)
            until = time.monotonic() + seconds
            while any(map(_group_lives, groups)) and time.monotonic() < until:
                time.sleep(0.05)
        for group in groups:
            with contextlib.suppress(ChildProcessError):  # somebody else's child
                os.waitpid(group, 0)
        self.processes.clear()
        (self.folder / "cluster.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)

    def settings(self) -> list[str]:
        """What to write behind `chaffinch run CONFIG`."""
        settings = ["run.runner=flink", f"run.flink.job_server=localhost:{self.ports['job_server']}"]
        return settings if self.embedded else [*settings, f"run.flink.rest=localhost:{self.ports['rest']}"]

    def jobs(self) -> list[tuple[str, str, str]]:
        """Identifier, state and name of every job that Flink remembers; ClusterError where Flink is embedded."""
        if self.embedded:
            raise ClusterError("an embedded Flink cannot be asked; `down` ends its jobs with it")
        return [(job["jid"], job["state"], job["name"]) for job in self.ask("/jobs/overview").get("jobs", [])]

    def cancel(self, job: str) -> None:
        """Ends a job, so that its slots are free again."""
        self.ask(f"/jobs/{job}?mode=cancel", "PATCH")

    def ask(self, path: str, method: str = "GET") -> dict[str, Any]:
        """What the JobManager answers; nothing where it does not answer, unless it was to do something."""
        request = urllib.request.Request(f"http://localhost:{self.ports['rest']}{path}", method=method)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            if method != "GET":
                raise ClusterError(f"{path}: {error}") from error
        except OSError as error:
            if method != "GET":
                raise ClusterError(f"Flink does not answer: {error}") from error
        return {}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("localhost", 0))
        return [one.getsockname()[1] for one in sockets]


def _listens(port: int) -> bool:
    with socket.socket() as one:
        one.settimeout(1)
        return one.connect_ex(("localhost", port)) == 0


def _started(process: int) -> int:
    """When a process started, in ticks since the machine did, which tells it from a later one; 0 where it has ended."""
    try:
        words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if words[0] == "Z" else int(words[19])


def _group_lives(group: int) -> bool:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            words = path.read_text().rpartition(")")[2].split()
            if int(words[2]) == group and words[0] != "Z":
                return True
    return False


@contextlib.contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Cluster]:
    """A cluster for as long as the block lasts; what `Cluster.start` takes."""
    cluster = Cluster.start(folder, **settings)
    try:
        yield cluster
    finally:
        cluster.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0 where it is done, 1 with a message where it cannot be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    place = Path(tempfile.gettempdir()) / f"chaffinch-{os.getuid()}" / "flink"
    parser.add_argument("--folder", type=Path, default=place, help="where its files are (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch")
    up = commands.add_parser("up")
    up.add_argument("--embedded", action="store_true")
    up.add_argument("--task-managers", type=int, default=2)
    up.add_argument("--slots", type=int, default=1, help="of each TaskManager (default: 1)")
    for name in ("settings", "jobs", "down"):
        commands.add_parser(name)
    commands.add_parser("cancel").add_argument("jobs", nargs="*", metavar="JOB")
    options = parser.parse_args(arguments)
    folder = options.folder.absolute()
    try:
        if options.command == "fetch":
            fetch()
        elif options.command == "up":
            cluster = Cluster.start(folder, options.task_managers, options.slots, options.embedded)
            print("chaffinch run CONFIG", *cluster.settings())
        else:
            _use(Cluster.known(folder), options)
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


def _use(cluster: Cluster, options: argparse.Namespace) -> None:
    if options.command == "settings":
        print(*cluster.settings())
    elif options.command == "down":
        cluster.stop()
    elif options.command == "jobs":
        for identifier, state, name in cluster.jobs():
            print(identifier, state, name)
    else:
        for identifier in options.jobs or [one for one, state, _ in cluster.jobs() if state == "RUNNING"]:
            cluster.cancel(identifier)
            print("cancelled", identifier)


if __name__ == "__main__":
    sys.exit(main())
