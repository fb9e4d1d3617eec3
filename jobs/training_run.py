"""One call of `chaffinch train`: trains from the last checkpoint to the end and writes down what happens."""

import dataclasses
import json
import time
from typing import Any

from chaffinch.jobs.console import Console
from chaffinch.jobs.experiment import JobError
from chaffinch.jobs.sections import ClassifierSettings, TrainSettings
from chaffinch.jobs.training import ShardSamples, Training
from chaffinch.jobs.training_display import Progress, one_line
from chaffinch.pipeline.measuring.batches import THREADS
from chaffinch.pipeline.storage import files
from chaffinch.scoring.clip import Clip
from chaffinch.scoring.devices import device_class
from chaffinch.scoring.training.recipe import ClassifierRecipe, Recipe

VISITS = "mimic/visits.parquet"
"""Below a training's folder: what every visit said of its sample. The one parquet there, so that a glob finds it."""

_LOG_EVERY = 10


class TrainingRun:
    """A training, and the files that it keeps."""

    def __init__(
        self,
        training: Training,
        settings: TrainSettings,
        samples: ShardSamples,
        evaluation: ShardSamples | None,
        console: Console,
    ) -> None:
        """Builds the model, and goes back to the last checkpoint.

        Args:
            training: what was asked for.
            settings: its settings.
            samples: to train on.
            evaluation: to try the model on, or none.
            console: where messages go.

        Raises:
            ConfigError: the model cannot be built, or a reference does not fit it.
            JobError: the folder holds another training.
        """
        # torch takes two seconds to import: what is wrong with a config is told before.
        from chaffinch.scoring.training.task import SettingError
        from chaffinch.scoring.training.trainer import Trainer

        self._training, self._settings = training, settings
        self._samples, self._evaluation = samples, evaluation
        self._console = console
        self._threads = self._settings.workers or THREADS
        device = device_class(training.sections.run.device)
        try:
            self._trainer: Trainer = Trainer(self._settings, samples, device, self._threads)
        except SettingError as error:
            raise training.document.error(("train", *error.setting.split(".")), str(error)) from error
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
        found = self._evaluate() if self._evaluation is not None else None
        results = self._results(found)
        self._keep("final.pt")
        files.write_bytes(path, (json.dumps(results, indent=1) + "\n").encode())
        self._write_timings()
        self._checkpoint()
        self._console.say(f"weights: {self._path('final.pt')}")
        return results

    def _train(self) -> None:
        from chaffinch.scoring.training.task import TrainingError

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
        trainer, total = self._trainer, sum(weight.numel() for weight in self._trainer.task.network.parameters())
        went_on = f", going on after step {trainer.step}" if trainer.step else ""
        self._console.say(
            f"{self._settings.model}: {total / 1e6:.1f} million weights to train, {trainer.steps} steps of "
            f"{self._settings.batch(len(self._samples))} samples on {trainer.model.device}{went_on}"
        )
        if isinstance(self._settings, ClassifierSettings) and self._settings.freeze:
            self._console.say(f"embedding {len(self._samples)} pictures, once")
        for name, content in trainer.description().items():
            files.write_bytes(self._path(name), content)

    def _evaluate(self) -> dict[str, Any]:
        assert self._evaluation is not None  # asked for only where there is one
        before, task = time.monotonic(), self._trainer.task
        try:
            tried = task.evaluate(self._evaluation, self._settings.batch_size, self._threads)
        except ValueError as error:
            raise JobError(f"train.evaluate: {error}") from error
        self._seconds["evaluate"] += time.monotonic() - before
        found: dict[str, Any] = dataclasses.asdict(tried)
        self._log.append({"step": self._trainer.step, task.tried: found})
        return found

    def _results(self, found: dict[str, Any] | None) -> dict[str, Any]:
        trainer, reasons = self._trainer, dict(self._samples.rejected)
        for reason in trainer.unusable.values():
            reasons[reason] = reasons.get(reason, 0) + 1
        last: dict[str, Any] = next((entry for entry in reversed(self._log) if entry.get("loss") is not None), {})
        weighing = {} if self._settings.reweight is None else {"weighing": last.get("weighing")}
        return {
            "model": self._settings.model,
            "samples": len(self._samples) - len(trainer.unusable),
            "unusable": dict(sorted(reasons.items())),
            "steps": trainer.steps,
            "samples_seen": trainer.samples_seen,
            "epochs": round(trainer.samples_seen / len(self._samples), 3),
            "loss": last.get("loss"),
            **weighing,
            trainer.task.tried: found,
            "checkpoint": "final.pt",
        }

    def _made_from(self) -> dict[str, Any]:
        """All that decides which weights come out; what was trained with other values is another training."""
        recipe = ClassifierRecipe if isinstance(self._settings, ClassifierSettings) else Recipe
        settings = {field.name: getattr(self._settings, field.name) for field in dataclasses.fields(recipe)}
        settings["augment"] = dataclasses.asdict(self._settings.augment)
        identity = Clip(self._settings.model, self._settings.pretrained or "none").identity()
        settings["model"] = identity["model"]
        settings["pretrained"] = identity["pretrained"] if self._settings.pretrained else None
        if self._settings.reweight is not None:
            reference = Clip(self._settings.model, self._settings.reweight.reference).identity()["pretrained"]
            settings["reweight"] = dataclasses.asdict(self._settings.reweight) | {"reference": reference}
        made_from: dict[str, Any] = json.loads(json.dumps(settings | {"input": self._samples.digest}))
        return made_from

    def _resume(self) -> None:
        from chaffinch.scoring.training.checkpoints import load_state

        path = self._path("resume.pt")
        if not files.exists(path):
            if self._settings.checkpoint_first:
                self._keep("step_0.pt")
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
        if self._trainer.log is not None:
            visits = self._path(VISITS)
            try:
                with files.open_binary(visits) as file:
                    self._trainer.log.read(file)
            except (OSError, ValueError) as error:
                raise JobError(
                    f"{visits} cannot be read: {error}; remove {self._training.folder} to train from the start"
                ) from error
        lines = files.read_bytes(self._path("log.jsonl")).decode().splitlines()
        self._log = [entry for entry in map(json.loads, lines) if entry["step"] <= self._trainer.step]

    def _checkpoint(self) -> None:
        """Writes what a stopped training goes on from; last of all files, so that the others are there if it is."""
        from chaffinch.scoring.training.checkpoints import save_state

        if self._trainer.log is not None:
            # Visits after the checkpoint that a resumed training finds here are noted again, as they were.
            with files.writing(self._path(VISITS)) as file:
                self._trainer.log.write(file, self._samples.uids)
        files.write_bytes(self._path("log.jsonl"), "".join(json.dumps(entry) + "\n" for entry in self._log).encode())
        with files.writing(self._path("resume.pt")) as file:
            save_state(file, {"made_from": self._made_from(), "trainer": self._trainer.state()})

    def _keep(self, name: str) -> None:
        trainer = self._trainer
        with files.writing(self._path(name)) as file:
            trainer.task.save(file, trainer.samples_seen / len(self._samples), trainer.step)

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
