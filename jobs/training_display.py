"""What the user sees of a training: a bar or lines while it runs, a table at the end."""

import sys
import time
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from chaffinch.jobs.console import Console, table

if TYPE_CHECKING:
    from chaffinch.scoring.training.trainer import Step, Trainer

_PLAIN_SECONDS = 10.0


class Progress:
    """A bar where somebody watches, else a line now and then: steps, loss, samples a second and the time left."""

    def __init__(self, trainer: "Trainer", console: Console) -> None:
        self._trainer, self._console = trainer, console
        self._first, self._samples = trainer.step, trainer.samples_seen
        self._began = self._said = time.monotonic()
        self._bar = None
        if sys.stderr.isatty() and not console.quiet:
            self._bar = tqdm(total=trainer.steps, initial=trainer.step, desc="train", unit="step", file=sys.stderr)

    def show(self, step: "Step") -> None:
        """Takes note of a step."""
        now = time.monotonic()
        seconds = max(now - self._began, 1e-9)
        loss = "none" if step.loss is None else f"{step.loss:.3f}"
        told = f"loss {loss}, {(step.samples - self._samples) / seconds:.0f} samples/s"
        if step.weighing is not None:
            told += f", {step.weighing.effective:.0f} of a batch count"
        if step.unusable:
            told += f", {step.unusable} samples unusable"
        if self._bar is not None:
            self._bar.set_postfix_str(told)
            self._bar.update(1)
        elif now - self._said > _PLAIN_SECONDS or step.step == self._trainer.steps:
            self._said = now
            left = seconds / (step.step - self._first) * (self._trainer.steps - step.step)
            ending = f", {left:.0f} s left" if step.step < self._trainer.steps else ""
            self._console.say(f"train: {step.step} of {self._trainer.steps} steps, {told}, {seconds:.0f} s{ending}")

    def note(self, message: str) -> None:
        """Says something without disturbing the bar."""
        if self._bar is not None:
            self._bar.write(message, file=sys.stderr)
        else:
            self._console.say(message)

    def close(self) -> None:
        """Ends the display."""
        if self._bar is not None:
            self._bar.close()


def one_line(found: dict[str, Any]) -> str:
    """What trying the model came to, for a message while training."""
    if "accuracy" in found:
        return f"accuracy {found['accuracy']:.1%}"
    ways = (("image to text", found["image_to_text"]), ("text to image", found["text_to_image"]))
    return "; ".join(f"{way} " + ", ".join(f"{k} {share:.1%}" for k, share in shares.items()) for way, shares in ways)


def show_results(results: dict[str, Any]) -> str:
    """What is printed at the end, from results.json's content."""
    lines = [
        f"{results['model']}: {results['samples_seen']} samples seen ({results['epochs']:g} epochs of "
        f"{results['samples']}), loss {results['loss'] if results['loss'] is None else round(results['loss'], 3)}"
    ]
    lines += [f"{count} samples could not be used: {reason}" for reason, count in results["unusable"].items()]
    if (found := results.get("retrieval")) is not None:
        names = list(found["image_to_text"])
        rows = [
            ["image to text", *(f"{found['image_to_text'][name]:.1%}" for name in names)],
            ["text to image", *(f"{found['text_to_image'][name]:.1%}" for name in names)],
            ["by chance", *(f"{min(1.0, int(name[2:]) / found['pictures']):.1%}" for name in names)],
        ]
        title = f"{found['pictures']} pictures, {found['captions']} captions"
        lines += ["", table([title, *names], rows)]
        lines += [f"{count} could not be used: {reason}" for reason, count in found["unusable"].items()]
    if (found := results.get("accuracy")) is not None:
        chance = 1 / found["classes"]
        lines.append(f"accuracy on {found['pictures']} pictures: {found['accuracy']:.1%}, by chance {chance:.1%}")
        lines += [f"{count} could not be used: {reason}" for reason, count in found["unusable"].items()]
    return "\n".join(lines)
