"""What a doctor makes of what it was told: a line for each check, in words, with what to do."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from chaffinch.pipeline.measuring.examination import FAISS, OFFLINE, PACKAGES, THREADS, Examined

Status = Literal["ok", "warning", "wrong"]

_LEAST_FREE_GPU = 0.5


@dataclass(frozen=True)
class Check:
    """One line.

    Attributes:
        name: what was looked at.
        status: ok; warning, where a run may work or be slow; wrong, where it will fail or give other numbers.
        message: what was found, and what to do about it.
    """

    name: str
    status: Status
    message: str

    def __str__(self) -> str:
        return f"{self.status:<8} {self.name}: {self.message}"


@dataclass(frozen=True)
class Wanted:
    """What a run will ask of its workers.

    Attributes:
        device: "cpu" or "cuda".
        uses_gpu: scorers that run on a GPU, where the device is one.
        would_use_gpu: scorers that would.
        workers: how many, on one machine; None where that is not known here.
        bytes_needed: folder -> bytes that will be written below it, at most.
        shards: how many shards were read.
    """

    device: str
    uses_gpu: Sequence[str]
    would_use_gpu: Sequence[str]
    workers: int | None
    bytes_needed: Mapping[str, int]
    shards: int


def check_all(here: Examined, workers: Sequence[Examined], wanted: Wanted, seen: set[str]) -> list[Check]:
    """Everything that can be said once all have reported.

    Args:
        here: what the launching process found.
        workers: what the processes that score found.
        wanted: what a run will ask of them.
        seen: probes of workers that the launching process sees.

    Returns:
        Lines, in an order in which they are best mended.
    """
    machines = len({one.host for one in workers})
    there = f"{len(workers)} {_plural('process', len(workers))} on {machines} {_plural('machine', machines)}"
    found = [Check("workers", "ok", f"{there} answered")]
    found += _check_versions(here, workers)
    found += _check_cores(workers, wanted)
    found += _check_gpus(workers, wanted)
    found += _check_offline(here, workers)
    found += _check_scorers(here, workers)
    found += _check_input(here, workers, wanted)
    found += _check_folders(here, workers, wanted, seen)
    return found


def _check_versions(here: Examined, workers: Sequence[Examined]) -> Iterator[Check]:
    problems = []
    for package in ("python", *PACKAGES, FAISS[0].partition("-")[0]):
        own = here.versions.get(package)
        others: dict[str | None, list[str]] = {}
        for one in workers:
            others.setdefault(one.versions.get(package), []).append(one.name)
        for version, names in others.items():
            if version != own:
                problems.append(f"{package} is {own or 'missing'} here and {version or 'missing'} in {_few(names)}")
    told = ", ".join(f"{name} {here.versions[name]}" for name in ("python", "chaffinch", "apache-beam", "torch"))
    if problems:
        remedy = "install the same everywhere: pip install -c constraints.txt, with the same constraints.txt"
        yield Check("versions", "wrong", f"{'; '.join(problems)}; {remedy}")
    else:
        yield Check("versions", "ok", f"{told} here and in all workers")


def _check_cores(workers: Sequence[Examined], wanted: Wanted) -> Iterator[Check]:
    for host, some in _by_host(workers).items():
        one = some[0]
        count = max(len(some), wanted.workers or 0)
        threads = min(_threads(one), one.cores)
        told = f"{one.cores} cores, {_gib(one.memory)} for {count} {_plural('worker', count)} on {host}"
        if count > 1 and count * threads > one.cores:
            best = max(1, one.cores // count)
            set_to = f"{THREADS}={one.variables[THREADS]}" if THREADS in one.variables else f"{THREADS} is not set"
            remedy = f"set {THREADS}={best} for the workers" if best < threads else "start fewer workers there"
            message = f"{told}, each of {threads} threads ({set_to}), which take turns: {remedy}"
            yield Check("cores", "warning", message)
        else:
            yield Check("cores", "ok", f"{told}, each of {threads} {_plural('thread', threads)}")


def _threads(one: Examined) -> int:
    text = one.variables.get(THREADS, "").split(",")[0].strip()
    return int(text) if text.isdigit() and int(text) > 0 else one.cores


def _check_gpus(workers: Sequence[Examined], wanted: Wanted) -> Iterator[Check]:
    if not wanted.uses_gpu:
        idle = [one.name for one in workers if one.gpus]
        if wanted.would_use_gpu and idle and wanted.device == "cpu":
            names = ", ".join(wanted.would_use_gpu)
            message = f"{_few(idle)} has GPUs that {names} will not use: set run.device=cuda to use them"
            yield Check("gpu", "warning", message)
        else:
            yield Check("gpu", "ok", "none is asked for")
        return
    asked = f"run.device is cuda, for {', '.join(wanted.uses_gpu)}"
    for host, some in _by_host(workers).items():
        one = some[0]
        if not one.gpus:
            hidden = one.variables.get("CUDA_VISIBLE_DEVICES")
            why = (
                f"CUDA_VISIBLE_DEVICES={hidden!r} hides them all" if hidden is not None else "no NVIDIA device is there"
            )
            message = f"{asked}, but {host} has none ({why}): start workers where GPUs are, or set run.device=cpu"
            yield Check("gpu", "wrong", message)
        elif not one.described:
            message = (
                f"{asked}, but torch {one.versions.get('torch')} on {host} cannot use its {len(one.gpus)}: its driver "
            )
            message += "is too old for this torch, or torch was built for the cpu; see whether nvidia-smi works there"
            yield Check("gpu", "wrong", message)
        else:
            told = ", ".join(f"{gpu.name}, {_gib(gpu.free)} of {_gib(gpu.memory)} free" for gpu in one.described)
            told = f"{host}: {told}" + (f", driver {one.described[0].driver}" if one.described[0].driver else "")
            count = max(len(some), wanted.workers or 0)
            if any(gpu.free < _LEAST_FREE_GPU * gpu.memory for gpu in one.described):
                yield Check("gpu", "warning", f"{told}: something else uses most of one; batches may not fit")
            elif count > len(one.described):
                yield Check("gpu", "warning", f"{told}: {count} workers will share {len(one.described)}")
            else:
                yield Check("gpu", "ok", told)


def _check_offline(here: Examined, workers: Sequence[Examined]) -> Iterator[Check]:
    flags = {name: here.variables.get(name) for name in OFFLINE}
    others = [one for one in workers if {name: one.variables.get(name) for name in OFFLINE} != flags]
    told = " ".join(f"{name}={value}" for name, value in flags.items() if value is not None)
    if others:
        there = {name: others[0].variables.get(name) for name in OFFLINE}
        differing = next(name for name in OFFLINE if there[name] != flags[name])
        message = f"{differing} is {_or_unset(flags[differing])} here and {_or_unset(there[differing])} in "
        message += f"{_few([one.name for one in others])}: set it alike, or some will ask the network and some will not"
        yield Check("offline", "warning", message)
    elif told:
        yield Check("offline", "ok", f"{told}: no model is fetched, here or by workers")
    else:
        message = f"{OFFLINE[0]} is not set: a model that is neither a local file nor cached will be fetched"
        yield Check("offline", "ok", message)


def _check_scorers(here: Examined, workers: Sequence[Examined]) -> Iterator[Check]:
    names = sorted({name for one in workers for name in (*one.loading, *one.problems)})
    for name in names:
        failing = {one.name: one.problems[name] for one in workers if name in one.problems}
        own = here.fingerprints.get(name)
        others = [one.name for one in workers if name not in one.problems and one.fingerprints.get(name) != own]
        if failing:
            who, why = next(iter(failing.items()))
            where = "all workers" if len(failing) == len(workers) else _few(list(failing))
            yield Check(f"scorer {name}", "wrong", f"in {where}: {why if len(failing) else who}")
        elif others:
            message = f"its weights or settings are not the same here and in {_few(others)}, so that its numbers would "
            message += "be others: copy the same files everywhere, and install the same version"
            yield Check(f"scorer {name}", "wrong", message)
        else:
            seconds = max(one.loading[name] for one in workers)
            yield Check(
                f"scorer {name}", "ok", f"loads in {seconds:.1f} s, with the same weights here and in all workers"
            )


def _check_input(here: Examined, workers: Sequence[Examined], wanted: Wanted) -> Iterator[Check]:
    if here.unreadable:
        path, why = next(iter(here.unreadable.items()))
        yield Check("input", "wrong", f"{path} cannot be read here: {why}; mend it, or take it out of the input")
        return
    failing = [one for one in workers if one.unreadable]
    if failing:
        path, why = next(iter(failing[0].unreadable.items()))
        message = (
            f"{path} can be read here, but not by {_few([one.name for one in failing])}: {why}; put the input on a "
        )
        message += "filesystem that all workers see under the same path, and let them read it"
        yield Check("input", "wrong", message)
    else:
        yield Check("input", "ok", f"{wanted.shards} {_plural('shard', wanted.shards)} tried, here and by all workers")


def _check_folders(here: Examined, workers: Sequence[Examined], wanted: Wanted, seen: set[str]) -> Iterator[Check]:
    for folder, own in here.folders.items():
        name = f"folder {folder}"
        if own.problem:
            yield Check(
                name, "wrong", f"cannot be written to: {own.problem}; let this user write there, or name another"
            )
            continue
        failing = [one for one in workers if one.folders[folder].problem]
        blind = [one for one in workers if not one.folders[folder].sees]
        lost = [one for one in workers if one.folders[folder].probe and one.folders[folder].probe not in seen]
        if failing:
            why = failing[0].folders[folder].problem
            message = f"can be written to here, but not by {_few([one.name for one in failing])}: {why}"
            yield Check(name, "wrong", f"{message}; mount it there for writing, for the user that workers run as")
            continue
        if blind or lost:
            who = _few([one.name for one in blind or lost])
            message = f"what is written here is not seen by {who}" if blind else f"what {who} writes is not seen here"
            yield Check(name, "wrong", f"{message}: it must lie on a filesystem that all share, under the same path")
            continue
        needed, free = wanted.bytes_needed.get(folder, 0), own.free
        if free is not None and free < needed:
            message = f"{_gib(free)} are free, and up to {_gib(needed)} will be written: make room, or name another"
            yield Check(name, "wrong", message)
        else:
            room = "" if free is None else f"; {_gib(free)} free, up to {_gib(needed)} will be written"
            yield Check(name, "ok", f"written to and seen, here and by all workers{room}")


def _by_host(workers: Sequence[Examined]) -> dict[str, list[Examined]]:
    found: dict[str, list[Examined]] = {}
    for one in workers:
        found.setdefault(one.host, []).append(one)
    return found


def _few(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _or_unset(value: str | None) -> str:
    return "not set" if value is None else f"{value!r}"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}es" if word.endswith("s") else f"{word}s"


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.1f} MiB"
