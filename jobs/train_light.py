"""`chaffinch train` with `model: light_clip`: heads over a detector's features, in about a minute on one core."""

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chaffinch.jobs.console import Console
from chaffinch.jobs.experiment import JobError
from chaffinch.jobs.sections import LightSettings
from chaffinch.jobs.training import ShardSamples, Training
from chaffinch.pipeline.measuring.batches import THREADS
from chaffinch.pipeline.storage import files
from chaffinch.scoring.devices import device_class
from chaffinch.scoring.light.recipe import LightRecipe
from chaffinch.scoring.scorer import Scorer
from chaffinch.scoring.weights import digest

if TYPE_CHECKING:
    from chaffinch.scoring.light.features import Measured

_BATCH = 64
_SAID_EVERY = 10


def train_light(
    training: Training, samples: ShardSamples, evaluation: ShardSamples | None, console: Console
) -> dict[str, Any]:
    """Measures features, trains the heads and tries them; what was done before is not done again.

    Args:
        training: a training with settings for light heads.
        samples: trusted pairs.
        evaluation: pairs to try retrieval on, or none.
        console: where messages go.

    Returns:
        results.json's content.

    Raises:
        ConfigError: too few samples can be read, or the heads to go on from cannot.
        JobError: the folder holds another training.
    """
    settings, scorer = training.settings, training.features
    assert isinstance(settings, LightSettings)
    assert scorer is not None
    try:
        pretrained = settings.pretrained_path()
    except ValueError as error:
        raise training.document.error(("train", "pretrained"), str(error)) from error
    made_from = _made_from(settings, pretrained, samples, scorer)
    path = files.join(training.folder, "results.json")
    known = _known(path, made_from)
    if known is not None:
        console.say(f"already trained: {training.folder}")
        return known
    from chaffinch.scoring.light.checkpoint import Model, save_checkpoint
    from chaffinch.scoring.light.negatives import KEPT_PAIRS, save_pairs
    from chaffinch.scoring.light.training import LightTrainer, Pairs, first_heads
    from chaffinch.scoring.training.retrieval import Retrieval, recall_of

    began = time.monotonic()
    try:
        first = first_heads(settings)
    except ValueError as error:
        raise training.document.error(("train", "pretrained"), str(error)) from error
    found = _measure(training, scorer, samples, "training", console)
    pairs, unusable = Pairs(found.features, found.captions), _reasons(found)
    measured = time.monotonic()
    try:
        trainer = LightTrainer(settings, pairs, first)
    except ValueError as error:
        raise training.document.error((*training.place,), str(error)) from error
    console.say(f"light_clip: {len(trainer.vocabulary)} words, {trainer.steps} steps of {settings.batch(len(pairs))}")
    log, every = [], settings.checkpoint_every

    def keep(name: str) -> None:
        with files.writing(files.join(training.folder, name)) as file:
            save_checkpoint(file, trainer.heads, trainer.vocabulary)

    if every is not None:
        keep("epoch_0.pt")
    for epoch in trainer.run():
        log.append(dataclasses.asdict(epoch))
        if every is not None and epoch.complete and epoch.epoch % every == 0:
            keep(f"epoch_{epoch.epoch}.pt")
        if epoch.epoch % _SAID_EVERY == 0:
            console.say(f"train: epoch {epoch.epoch}, loss {epoch.loss:.3f}")
    trained = time.monotonic()
    retrieval = None
    if evaluation is not None:
        others = _measure(training, scorer, evaluation, "evaluation", console)
        model = Model(trainer.heads, trainer.vocabulary)
        flat = [(row, text) for row, texts in enumerate(others.captions) for text in texts]
        embedded = model.embed_pictures(others.features), model.embed_captions([text for _, text in flat])
        to_text, to_image = recall_of(*embedded, np.array([row for row, _ in flat]))
        retrieval = dataclasses.asdict(Retrieval(len(others.features), len(flat), to_text, to_image, _reasons(others)))
    for reason, count in samples.rejected.items():
        unusable[reason] = unusable.get(reason, 0) + count
    results = {
        "model": settings.model,
        "samples": len(pairs),
        "unusable": dict(sorted(unusable.items())),
        "steps": trainer.steps,
        "samples_seen": trainer.steps * settings.batch(len(pairs)),
        "epochs": round(trainer.steps * settings.batch(len(pairs)) / len(pairs), 3),
        "loss": log[-1]["loss"],
        "retrieval": retrieval,
        "checkpoint": "final.pt",
        "made_from": made_from,
    }
    keep("final.pt")
    uids = [uid for index, uid in enumerate(samples.uids) if index not in found.unusable]
    with files.writing(files.join(training.folder, KEPT_PAIRS)) as file:
        save_pairs(file, settings.features.partition(".")[2], found.features, found.captions, uids)
    lines = "".join(json.dumps(entry) + "\n" for entry in log)
    files.write_bytes(files.join(training.folder, "log.jsonl"), lines.encode())
    seconds = {"features": measured - began, "train": trained - measured, "evaluate": time.monotonic() - trained}
    timings = {name: {"seconds": round(spent, 3)} for name, spent in seconds.items()}
    files.write_bytes(files.join(training.folder, "timings.json"), (json.dumps(timings, indent=1) + "\n").encode())
    files.write_bytes(path, (json.dumps(results, indent=1) + "\n").encode())
    console.say(f"weights: {files.join(training.folder, 'final.pt')}")
    return results


def _known(path: str, made_from: dict[str, Any]) -> dict[str, Any] | None:
    """The results of the same training, if it was finished before."""
    if not files.exists(path):
        return None
    results: dict[str, Any] = json.loads(files.read_bytes(path))
    then = results.get("made_from", {})
    changed = sorted(name for name in made_from | then if made_from.get(name) != then.get(name))
    if changed:
        raise JobError(
            f"{path.rpartition('/')[0]} holds a training with another {', '.join(changed)}: "
            "set train.folder to a new one, or remove it"
        )
    return results


def _made_from(
    settings: LightSettings, pretrained: Path | None, samples: ShardSamples, scorer: Scorer
) -> dict[str, Any]:
    """All that decides which heads come out, and which of them are kept, as plain values."""
    recipe = {field.name: getattr(settings, field.name) for field in dataclasses.fields(LightRecipe)}
    recipe["pretrained"] = None if pretrained is None else digest(pretrained)  # wherever it lies
    recipe["checkpoint_every"] = settings.checkpoint_every
    made_from: dict[str, Any] = json.loads(
        json.dumps(recipe | {"input": samples.digest, "detector": scorer.identity()})
    )
    return made_from


def _measure(training: Training, scorer: Scorer, samples: ShardSamples, label: str, console: Console) -> "Measured":
    """The features of all pictures; kept, since they take longer than the training."""
    from chaffinch.scoring.light.features import measure_features

    settings = training.settings
    assert isinstance(settings, LightSettings)
    device = device_class(training.sections.run.device)
    column = settings.features.partition(".")[2]
    console.say(f"{label}: measuring {settings.features} of {len(samples)} pictures")
    return measure_features(scorer, column, samples, device, _BATCH, settings.workers or THREADS)


def _reasons(found: "Measured") -> dict[str, int]:
    """Why pictures could not be measured -> how many."""
    reasons: dict[str, int] = {}
    for reason in found.unusable.values():
        reasons[reason] = reasons.get(reason, 0) + 1
    return reasons
