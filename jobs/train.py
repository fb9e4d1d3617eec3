"""`chaffinch train`: trains a model on shards, keeps checkpoints, and goes on where it was stopped."""

import dataclasses
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from chaffinch.jobs.console import Console
from chaffinch.jobs.experiment import JobError
from chaffinch.jobs.sections import LightSettings, TrainSettings
from chaffinch.jobs.train_light import train_light
from chaffinch.jobs.training import ShardSamples, Training, load_training
from chaffinch.jobs.training_display import Progress, one_line, show_results
from chaffinch.pipeline import files
from chaffinch.pipeline.batches import THREADS
from chaffinch.scoring.clip import Clip
from chaffinch.scoring.devices import device_class
from chaffinch.scoring.scorer import SampleError
from chaffinch.scoring.training.recipe import Recipe

if TYPE_CHECKING:
    from chaffinch.scoring.training.retrieval import Retrieval

_LOG_EVERY = 10
_PROBED = 100


def run_train(config: str, overrides: Sequence[str], console: Console) -> dict[str, Any]:
    """Trains as `train` does, and shows what it came to."""
    results = train(config, overrides, console)
    console.result(json.dumps(results) if console.json else show_results(results))
    return results


def train(config: str, overrides: Sequence[str], console: Console) -> dict[str, Any]:
    """Trains as a config asks, from where a stopped training of the same config left off.

    Args:
        config: the config's path.
        overrides: `key=value` settings.
        console: where messages go.

    Returns:
        results.json's content.

    Raises:
        ConfigError: the config or a setting is wrong.
        JobError: training cannot go on, or the folder holds another training.
    """
    training = load_training(config, list(overrides))
    files.remove_leftovers(training.folder)
    with ExitStack() as stack:
        samples = stack.enter_context(_open(training, training.place[:-1], console))
        evaluation = None
        if training.settings.evaluate is not None:
            evaluation = stack.enter_context(_open(training, ("train", "evaluate"), console))
        if isinstance(training.settings, LightSettings):
            results = train_light(training, samples, evaluation, console)
        else:
            results = _Run(training, training.settings, samples, evaluation, console).finish()
    return results


def _open(training: Training, place: tuple[str | int, ...], console: Console) -> ShardSamples:
    """Lists the samples of the shards that a section names, and tells how many can be used."""
    evaluate = training.settings.evaluate if place == ("train", "evaluate") else None
    shards = training.shards if evaluate is None else training.evaluation
    key = training.settings.captions_key if evaluate is None else evaluate.captions_key
    samples = ShardSamples(shards, key)
    label = "training" if evaluate is None else "evaluation"
    console.say(f"{label}: {len(samples)} samples in {len(shards)} shards")
    for reason, count in sorted(samples.rejected.items()):
        console.say(f"  {count} more cannot be used: {reason}")
    if len(samples) < 2:  # a sample is learnt, and found, by telling it from others
        found = "one usable sample only" if len(samples) else "no usable sample"
        raise training.document.error((*place, "input"), f"its shards hold {found}")
    reasons = []
    for index in range(min(len(samples), _PROBED)):
        try:
            samples.captions(index)
        except SampleError as error:
            reasons.append(str(error))
    if len(reasons) == min(len(samples), _PROBED):
        section = ("train",) if evaluate is None else place
        raise training.document.error((*section, "captions_key"), reasons[0])
    return samples


class _Run:
    """One call of the command: trains from the last checkpoint to the end and writes down what happens."""

    def __init__(
        self,
        training: Training,
        settings: TrainSettings,
        samples: ShardSamples,
        evaluation: ShardSamples | None,
        console: Console,
    ) -> None:
        # torch takes two seconds to import: what is wrong with a config is told before.
        from chaffinch.scoring.training.trainer import Trainer

        self._training, self._settings = training, settings
        self._samples, self._evaluation = samples, evaluation
        self._console = console
        self._threads = self._settings.workers or THREADS
        device = device_class(training.sections.run.device)
        try:
            self._trainer: Trainer = Trainer(self._settings, samples, device, self._threads)
        except ValueError as error:
            setting = "model" if self._settings.pretrained is None else "pretrained"
            raise training.document.error(("train", setting), str(error)) from error
        self._log: list[dict[str, Any]] = []
        self._seconds = {"train": 0.0, "evaluate": 0.0}
        self._resume()
        self._first = self._trainer.step

    def finish(self) -> dict[str, Any]:
        """Trains to the end, unless that was done before.

        Returns:
            results.json's content.
        """
        path = self._path("results.json")
        if self._trainer.step == self._trainer.steps and files.exists(path):
            self._console.say(f"already trained: {self._training.folder}")
            results: dict[str, Any] = json.loads(files.read_bytes(path))
            return results
        self._introduce()
        self._train()
        retrieval = self._evaluate() if self._evaluation is not None else None
        results = self._results(retrieval)
        self._keep("final.pt")
        files.write_bytes(path, (json.dumps(results, indent=1) + "\n").encode())
        self._write_timings()
        self._checkpoint()
        self._console.say(f"weights: {self._path('final.pt')}")
        return results

    def _train(self) -> None:
        from chaffinch.scoring.training.trainer import TrainingError

        trainer, evaluate, progress = self._trainer, self._settings.evaluate, Progress(self._trainer, self._console)
        before = time.monotonic()
        try:
            for step in trainer.run():
                last = step.step == trainer.steps
                if step.step % _LOG_EVERY == 0 or step.step == 1 or last:
                    self._log.append(dataclasses.asdict(step))
                progress.show(step)
                self._seconds["train"] += time.monotonic() - before
                if not last:
                    if evaluate is not None and evaluate.every is not None and step.step % evaluate.every == 0:
                        progress.note(one_line(self._evaluate()))
                    if step.step % self._settings.checkpoint_every == 0:
                        self._keep(f"step_{step.step}.pt")
                        self._checkpoint()
                before = time.monotonic()
        except TrainingError as error:
            kept = trainer.step // self._settings.checkpoint_every * self._settings.checkpoint_every
            where = f"; the last that were kept are {self._path(f'step_{kept}.pt')}" if kept else ""
            raise JobError(f"{error}{where}") from error
        finally:
            progress.close()

    def _introduce(self) -> None:
        trainer, total = self._trainer, sum(weight.numel() for weight in self._trainer.model.network.parameters())
        went_on = f", going on after step {trainer.step}" if trainer.step else ""
        self._console.say(
            f"{self._settings.model}: {total / 1e6:.1f} million weights, {trainer.steps} steps of "
            f"{self._settings.batch(len(self._samples))} samples on {trainer.model.device}{went_on}"
        )
        for name, content in trainer.description().items():
            files.write_bytes(self._path(name), content)

    def _evaluate(self) -> "Retrieval":
        from chaffinch.scoring.training.retrieval import retrieve

        assert self._evaluation is not None  # asked for only where there is one
        before = time.monotonic()
        found = retrieve(self._trainer.model, self._evaluation, self._settings.batch_size, self._threads)
        self._seconds["evaluate"] += time.monotonic() - before
        self._log.append({"step": self._trainer.step, "retrieval": dataclasses.asdict(found)})
        return found

    def _results(self, retrieval: "Retrieval | None") -> dict[str, Any]:
        trainer, reasons = self._trainer, dict(self._samples.rejected)
        for reason in trainer.unusable.values():
            reasons[reason] = reasons.get(reason, 0) + 1
        return {
            "model": self._settings.model,
            "samples": len(self._samples) - len(trainer.unusable),
            "unusable": dict(sorted(reasons.items())),
            "steps": trainer.steps,
            "samples_seen": trainer.samples_seen,
            "epochs": round(trainer.samples_seen / len(self._samples), 3),
            "loss": next((entry["loss"] for entry in reversed(self._log) if entry.get("loss") is not None), None),
            "retrieval": None if retrieval is None else dataclasses.asdict(retrieval),
            "checkpoint": "final.pt",
        }

    def _made_from(self) -> dict[str, Any]:
        """All that decides which weights come out; what was trained with other values is another training."""
        settings = {field.name: getattr(self._settings, field.name) for field in dataclasses.fields(Recipe)}
        settings["augment"] = dataclasses.asdict(self._settings.augment)
        identity = Clip(self._settings.model, self._settings.pretrained or "none").identity()
        settings["model"] = identity["model"]
        settings["pretrained"] = identity["pretrained"] if self._settings.pretrained else None
        made_from: dict[str, Any] = json.loads(json.dumps(settings | {"input": self._samples.digest}))
        return made_from

    def _resume(self) -> None:
        from chaffinch.scoring.training.checkpoints import load_state

        path = self._path("resume.pt")
        if not files.exists(path):
            return
        try:
            with files.open_binary(path) as file:
                state = load_state(file)
        except ValueError as error:
            raise JobError(f"{path} is damaged ({error}): remove it to train from the start") from error
        now, then = self._made_from(), state["made_from"]
        changed = sorted(name for name in now | then if now.get(name) != then.get(name))
        if changed:
            raise JobError(
                f"{self._training.folder} holds a training with another {', '.join(changed)}: "
                "set train.folder to a new one, or remove it"
            )
        self._trainer.resume(state["trainer"])
        lines = files.read_bytes(self._path("log.jsonl")).decode().splitlines()
        self._log = [entry for entry in map(json.loads, lines) if entry["step"] <= self._trainer.step]

    def _checkpoint(self) -> None:
        """Writes what a stopped training goes on from; last of all files, so that the others are there if it is."""
        from chaffinch.scoring.training.checkpoints import save_state

        files.write_bytes(self._path("log.jsonl"), "".join(json.dumps(entry) + "\n" for entry in self._log).encode())
        with files.writing(self._path("resume.pt")) as file:
            save_state(file, {"made_from": self._made_from(), "trainer": self._trainer.state()})

    def _keep(self, name: str) -> None:
        from chaffinch.scoring.training.checkpoints import save_weights

        trainer = self._trainer
        with files.writing(self._path(name)) as file:
            save_weights(
                file,
                trainer.model.network,
                self._settings.model,
                trainer.samples_seen / len(self._samples),
                trainer.step,
            )

    def _write_timings(self) -> None:
        seen = (self._trainer.steps - self._first) * self._settings.batch(len(self._samples))
        timings = {
            "train": {
                "seconds": round(self._seconds["train"], 3),
                "samples": seen,
                "samples_per_second": round(seen / max(self._seconds["train"], 1e-9), 1),
            },
            "evaluate": {"seconds": round(self._seconds["evaluate"], 3)},
        }
        files.write_bytes(self._path("timings.json"), (json.dumps(timings, indent=1) + "\n").encode())

    def _path(self, name: str) -> str:
        return files.join(self._training.folder, name)
