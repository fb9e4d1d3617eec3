"""`chaffinch train`: trains a model on shards, keeps checkpoints, and goes on where it was stopped."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from chaffinch.jobs.console import Console
from chaffinch.jobs.labelled_samples import LabelledSamples
from chaffinch.jobs.sections import ClassifierSettings, LightSettings
from chaffinch.jobs.slicing import refuse_slice
from chaffinch.jobs.train_light import train_light
from chaffinch.jobs.training import ShardSamples, Training, load_training
from chaffinch.jobs.training_display import show_results
from chaffinch.jobs.training_run import TrainingRun
from chaffinch.pipeline.storage.leftovers import remove_leftovers
from chaffinch.scoring.scorer import SampleError

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
    refuse_slice(training.sections.run.slice, "train")
    remove_leftovers(training.folder)
    with ExitStack() as stack:
        samples = stack.enter_context(_open(training, training.place[:-1], console))
        evaluation = None
        if training.settings.evaluate is not None:
            evaluation = stack.enter_context(_open(training, ("train", "evaluate"), console))
        if isinstance(training.settings, LightSettings):
            results = train_light(training, samples, evaluation, console)
        else:
            results = TrainingRun(training, training.settings, samples, evaluation, console).finish()
    return results


def _open(training: Training, place: tuple[str | int, ...], console: Console) -> ShardSamples:
    """Lists the samples of the shards that a section names, and tells how many can be used."""
    evaluate = training.settings.evaluate if place == ("train", "evaluate") else None
    settings, shards = training.settings, training.shards if evaluate is None else training.evaluation
    if isinstance(settings, ClassifierSettings):
        key, setting = settings.labels, "labels"
        if evaluate is not None and evaluate.labels is not None:
            key = evaluate.labels
        samples: ShardSamples = LabelledSamples(shards, key)
    else:
        setting = "captions_key"
        samples = ShardSamples(shards, settings.captions_key if evaluate is None else evaluate.captions_key)
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
            captions = samples.captions(index)
            if isinstance(settings, ClassifierSettings):
                settings.class_of(captions[0])
        except SampleError as error:
            reasons.append(str(error))
    if len(reasons) == min(len(samples), _PROBED):
        section = ("train",) if evaluate is None or getattr(evaluate, setting) is None else place
        setting = "classes" if reasons[0].startswith("label ") else setting
        raise training.document.error((*section, setting), reasons[0])
    return samples
