"""`chaffinch score`: measure every sample with every scorer; resumes, and computes only what is missing."""

from chaffinch.jobs.experiment import Experiment, JobError, Side
from chaffinch.pipeline.score import score


def run_score(experiment: Experiment) -> None:
    """Scores the input, and the reference if there is one.

    Args:
        experiment: what to score.

    Raises:
        JobError: a shard has no tables although nothing failed.
    """
    with experiment.timed("score") as timing:
        for side in experiment.sides:
            timing[side.label] = _score_side(experiment, side)


def _score_side(experiment: Experiment, side: Side) -> dict[str, object]:
    config, folders = experiment.config, side.folders()
    tasks = side.tasks(folders)
    missing = {name: sum(folder in task.folders for task in tasks) for name, folder in folders.items()}
    told = ", ".join(f"{name} {count}" for name, count in missing.items() if count) or "samples only"
    if not tasks:
        experiment.console.say(f"{side.label}: all {len(side.shards)} shards are scored")
        return {}
    experiment.console.say(f"{side.label}: {len(tasks)} of {len(side.shards)} shards to score ({told})")

    def finished() -> set[str]:
        unfinished = {task.shard.name for task in side.tasks(folders, retry_unreadable=False)}
        return {task.shard.name for task in tasks} - unfinished

    scorers = {folder: (name, config.scorers[name]) for name, folder in folders.items()}
    # The last table that a shard gets knows of everything that was rejected by then.
    last = {
        task.shard.name: side.store.scores(task.folders[-1], task.shard.name)
        if task.folders
        else side.store.samples(task.shard.name)
        for task in tasks
    }
    with experiment.console.progress(f"score {side.label}", last, finished):
        spent = score(
            experiment.engine,
            tasks,
            side.store,
            scorers,
            config.sections.run.batch_size,
            side.device,
            experiment.output,
        )
    if unscored := side.tasks(folders, retry_unreadable=False):
        raise JobError(
            f"{len(unscored)} shards such as {unscored[0].shard.name} have no tables after scoring: run again"
        )
    samples, seconds = spent.samples, spent.seconds
    return {"samples": samples, "scorers": {name: round(spent, 3) for name, spent in sorted(seconds.items())}}
