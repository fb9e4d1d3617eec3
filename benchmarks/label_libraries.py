"""Label models of other libraries on given votes: run by their own interpreter, which need not know Chaffinch.

    PYTHON benchmarks/label_libraries.py FOLDER SECONDS MODEL [MODEL ...]

Reads FOLDER/*.npz, each with `fit` and `judged` (n samples, m sources) votes (-1 abstain, 0..k-1 classes), `classes`
and `prior` (k,), and writes FOLDER/<name>.answers/<model>.npz: `proba` (n judged, k), `accuracy` (m,), NaN where the
library does not say, and `seconds` of CPU; or `refused`, with the reason. A model that takes more CPU time than SECONDS
is given up. What is already answered stays.

Where `judged` is not what was fitted, models that only aggregate what they were fitted on are read as their authors
define them: Bayes' rule with the error rates they learned (Dawid-Skene), or a fit on both together (GLAD).

Needs snorkel==0.10.0, crowd-kit with scikit-learn<1.6, and flyingsquid with pgmpy==0.1.17, the last it runs with.
"""

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd


class Votes(NamedTuple):
    """What a model gets: (n, m) votes to fit and to judge, the number of classes k, and the (k,) true prior."""

    fit: np.ndarray
    judged: np.ndarray
    classes: int
    prior: np.ndarray


Answer = tuple[np.ndarray, np.ndarray | None]
"""(n judged, k) probabilities, and (m,) accuracies where the library has them."""


def answers(votes: np.ndarray) -> pd.DataFrame:
    """Votes as crowd-kit takes them: a row per vote that is no abstain."""
    tasks, workers = np.nonzero(votes >= 0)
    return pd.DataFrame({"task": tasks, "worker": workers, "label": votes[tasks, workers].astype(np.int64)})


def spread(probabilities: pd.DataFrame, shape: tuple[int, int], prior: np.ndarray) -> np.ndarray:
    """(n, k) probabilities of all tasks; those without a vote have the prior."""
    full = np.tile(prior, (shape[0], 1))
    full[probabilities.index] = probabilities.reindex(columns=range(shape[1])).fillna(0.0).to_numpy()
    return full


def snorkel_majority(votes: Votes) -> Answer:
    """Snorkel's majority: a tie is shared evenly."""
    from snorkel.labeling.model import MajorityLabelVoter

    return MajorityLabelVoter(votes.classes).predict_proba(votes.judged), None


def snorkel(epochs: int, true_prior: bool) -> Callable[[Votes], Answer]:
    """Snorkel's label model with its default optimiser."""

    def run(votes: Votes) -> Answer:
        from snorkel.labeling.model import LabelModel

        model = LabelModel(votes.classes, verbose=False)
        balance = votes.prior.tolist() if true_prior else None
        model.fit(votes.fit, class_balance=balance, n_epochs=epochs, seed=0, progress_bar=False)
        with np.errstate(all="ignore"):
            accuracy = model.get_weights()
        return model.predict_proba(votes.judged), accuracy

    return run


def crowd_majority(votes: Votes) -> Answer:
    """Crowd-kit's majority: shares of the votes."""
    from crowdkit.aggregation import MajorityVote

    shape, uniform = (len(votes.judged), votes.classes), np.full(votes.classes, 1 / votes.classes)
    return spread(MajorityVote().fit_predict_proba(answers(votes.judged)), shape, uniform), None


def wawa(votes: Votes) -> Answer:
    """Worker agreement with aggregate: votes weighed by how often each source agrees with the majority."""
    from crowdkit.aggregation import Wawa

    model = Wawa().fit(answers(votes.fit))
    shape, uniform = (len(votes.judged), votes.classes), np.full(votes.classes, 1 / votes.classes)
    heard = answers(votes.judged)
    heard = heard[heard.worker.isin(model.skills_.index)]
    accuracy = model.skills_.reindex(range(votes.fit.shape[1])).to_numpy()
    return spread(model.predict_proba(heard), shape, uniform), accuracy


def crowd_dawid_skene(name: str) -> Callable[[Votes], Answer]:
    """Crowd-kit's Dawid-Skene, `DawidSkene` or `OneCoinDawidSkene`, with its default of 100 iterations at most."""

    def run(votes: Votes) -> Answer:
        from crowdkit import aggregation

        model = getattr(aggregation, name)().fit(answers(votes.fit))
        prior = model.priors_.reindex(range(votes.classes)).fillna(0.0).to_numpy()
        rates = np.full((votes.fit.shape[1], votes.classes, votes.classes), np.nan)  # source, shown, true
        for (worker, label), row in model.errors_.iterrows():
            rates[worker, label] = row.reindex(range(votes.classes)).to_numpy()
        accuracy = np.einsum("jyy,y->j", np.nan_to_num(rates), prior)
        if votes.judged is votes.fit:
            return spread(model.probas_, (len(votes.fit), votes.classes), prior), accuracy
        # Crowd-kit names no rate for a symbol that a source never showed: such a vote says nothing.
        logs = np.log(np.maximum(np.nan_to_num(rates, nan=1.0), 1e-10))
        joint = np.tile(np.log(np.maximum(prior, 1e-10)), (len(votes.judged), 1))
        for source, column in enumerate(votes.judged.T):
            joint += np.where((column >= 0)[:, None], logs[source][column], 0.0)
        joint = np.exp(joint - joint.max(axis=1, keepdims=True))
        return joint / joint.sum(axis=1, keepdims=True), accuracy

    return run


def glad(votes: Votes) -> Answer:
    """GLAD: sources with an ability, samples with a difficulty."""
    from crowdkit.aggregation import GLAD

    together = votes.judged if votes.judged is votes.fit else np.concatenate([votes.judged, votes.fit])
    uniform = np.full(votes.classes, 1 / votes.classes)
    probabilities = GLAD(silent=True).fit_predict_proba(answers(together))
    return spread(probabilities, (len(together), votes.classes), uniform)[: len(votes.judged)], None


def flyingsquid(method: str, true_prior: bool) -> Callable[[Votes], Answer]:
    """FlyingSquid, each class against the others where there are more than two, as WRENCH runs it."""

    def run(votes: Votes) -> Answer:
        np.product = np.prod  # pgmpy of FlyingSquid's days calls it so
        from flyingsquid.label_model import LabelModel

        prior = votes.prior if true_prior else np.full(votes.classes, 1 / votes.classes)
        scores, accuracy = [], None
        for number in [1] if votes.classes == 2 else range(votes.classes):
            fit, judged = (
                np.where(part < 0, 0, np.where(part == number, 1, -1)).astype(np.float64)
                for part in (votes.fit, votes.judged)
            )
            model = LabelModel(fit.shape[1])
            model.fit(fit, class_balance=np.array([1 - prior[number], prior[number]]), solve_method=method)
            scores.append(model.predict_proba(judged.astype(np.int64))[:, 1])
            with np.errstate(all="ignore"):
                accuracy = np.array(model.estimated_accuracies(), np.float64) / (fit != 0).mean(axis=0)
        if votes.classes == 2:
            return np.column_stack([1 - scores[0], scores[0]]), accuracy
        together = np.column_stack(scores)
        return together / np.maximum(together.sum(axis=1, keepdims=True), 1e-300), None

    return run


MODELS: dict[str, Callable[[Votes], Answer]] = {
    "snorkel MajorityLabelVoter": snorkel_majority,
    "crowd-kit MajorityVote": crowd_majority,
    "crowd-kit Wawa": wawa,
    "crowd-kit OneCoinDawidSkene": crowd_dawid_skene("OneCoinDawidSkene"),
    "crowd-kit DawidSkene": crowd_dawid_skene("DawidSkene"),
    "crowd-kit GLAD": glad,
    "snorkel LabelModel": snorkel(100, False),
    "snorkel LabelModel, 500 epochs": snorkel(500, False),
    "snorkel LabelModel, true prior": snorkel(100, True),
    "snorkel LabelModel, 500 epochs, true prior": snorkel(500, True),
    "flyingsquid mean": flyingsquid("triplet_mean", False),
    "flyingsquid median": flyingsquid("triplet_median", False),
    "flyingsquid mean, true prior": flyingsquid("triplet_mean", True),
    "flyingsquid median, true prior": flyingsquid("triplet_median", True),
}
"""Every model by name; settings are the libraries' defaults but those named. 500 epochs are Snorkel's tutorials'."""


def _give_up(signal_number: int, frame: object) -> None:
    raise TimeoutError("took too long")


def main(folder: Path, seconds: int, names: list[str]) -> None:
    """Runs the models on every file of the folder."""
    signal.signal(signal.SIGPROF, _give_up)
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as file:
            same = "judged" not in file
            votes = Votes(file["fit"], file["fit"] if same else file["judged"], int(file["classes"]), file["prior"])
        into = path.with_suffix(".answers")
        into.mkdir(exist_ok=True)
        for name in names:
            if (into / f"{name}.npz").exists():
                continue
            began = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, seconds)
            try:
                proba, accuracy = MODELS[name](votes)
            except Exception as reason:  # whatever a library fails with is its answer
                signal.setitimer(signal.ITIMER_PROF, 0)
                np.savez(into / f"{name}.npz", refused=f"{type(reason).__name__}: {reason}"[:200])
                continue
            signal.setitimer(signal.ITIMER_PROF, 0)
            if accuracy is None:
                accuracy = np.full(votes.fit.shape[1], np.nan)
            took = time.process_time() - began
            np.savez(into / f"{name}.npz", proba=proba, accuracy=accuracy, seconds=took)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
