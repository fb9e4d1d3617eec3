"""`chaffinch report`: one self-contained report.html about what was decided."""

from chaffinch.filters.fitted import Fitted
from chaffinch.jobs import kinds
from chaffinch.jobs.decided import read_decided
from chaffinch.jobs.experiment import Experiment
from chaffinch.pipeline.storage import files


def run_report(experiment: Experiment) -> None:
    """Writes report.html; the same input and config give the same bytes.

    Args:
        experiment: a decided experiment.

    Raises:
        JobError: there are no decisions of this config, or the counts do not add up.
    """
    # The plotting library takes a second to import; no other command need wait for it.
    from chaffinch.jobs.report.contents import gather
    from chaffinch.jobs.report.page import render

    summary, state, vanished = read_decided(experiment)
    with experiment.timed("report") as timing:
        fitted = Fitted.restore(state["judgement"], lambda kind: kinds.label_models()[kind])
        contents = gather(experiment, summary, state, fitted, vanished)
        for note in contents.notes:
            experiment.console.warn(f"report: {note}")
        page = render(contents).encode("utf-8", "replace")
        path = files.join(experiment.output, "report.html")
        files.write_bytes(path, page)
        timing["samples"] = len(contents.sample)
    experiment.console.say(f"report of {len(page) / 1e6:.1f} MB: {path}")
