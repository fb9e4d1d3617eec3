"""OmDet-Turbo: a task and its phrases go in, and boxes of one phrase that overlap are thinned out.

Source: Zhao et al. 2024, Real-time transformer-based open-vocabulary detection, arXiv 2403.06892.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chaffinch.scoring.detecting.objects import Found, Limits, corners
from chaffinch.scoring.detecting.queries import Queries, line_up, read_queries, tokenise

if TYPE_CHECKING:
    import torch

    from chaffinch.scoring.detecting.canvases import Prepared

OVERLAP = 0.5
"""Of two boxes of one phrase whose intersection is more than this share of their union, the surer stays."""


class OmDet:
    """A model that looks for phrases and removes repeated boxes."""

    needs_phrases = True

    def __init__(self, network: Any, tokenizer: Any, vocabulary: Sequence[str] | None, limits: Limits) -> None:
        """Keeps the network, and encodes a fixed vocabulary.

        Args:
            network: on its device.
            tokenizer: the checkpoint's own.
            vocabulary: phrases to look for in every picture; None to read captions.
            limits: what is kept.
        """
        self._network, self._tokenizer, self._limits = network, tokenizer, limits
        self._length = network.config.text_config.max_position_embeddings
        self._vocabulary = None if vocabulary is None else Queries(tuple(vocabulary))
        self._encoded = None if self._vocabulary is None else self._encode([self._vocabulary], self._vocabulary.phrases)

    @property
    def backbone(self) -> Any:
        """The part of the network that sees the picture alone."""
        return self._network.vision_backbone

    def read(self, captions: Sequence[str]) -> list[Queries]:
        """Takes the noun phrases out of n captions; of a fixed vocabulary the same each time."""
        return read_queries(captions) if self._vocabulary is None else [self._vocabulary] * len(captions)

    def detect(
        self,
        pictures: "Sequence[Prepared]",
        pixels: "torch.Tensor",
        mask: "torch.Tensor",
        prompts: Sequence[Queries],
    ) -> list[Found]:
        """Finds what n prompts name in n pictures.

        Args:
            pictures: (n,) as prepared.
            pixels: (n, 3, height, width) float32.
            mask: not needed, since all pictures fill their canvas.
            prompts: (n,) of at least one phrase each.

        Returns:
            (n,) objects; a box that fits several phrases is one object for each.
        """
        import torch

        network = self._network
        phrases, which, counts = line_up(prompts)
        if self._encoded is None:
            classes, tasks, task_mask = self._encode(prompts, phrases)
        else:
            classes, tasks, task_mask = self._encoded
            tasks, task_mask = tasks.expand(-1, len(prompts), -1), task_mask.expand(len(prompts), -1)
        # Queries are chosen by the phrase they fit best: filled up with a phrase of its own, a prompt chooses the same.
        asked = classes[torch.from_numpy(which).to(classes.device)].transpose(0, 1)  # (p, n, d)
        states = network.encoder(network.vision_backbone(pixels), return_dict=True).extracted_states
        output = network.decoder(states, asked, tasks, task_mask, return_dict=True)
        boxes = corners(output.decoder_coords[-1])  # (n, q, 4)
        confidences = output.decoder_classes[-1].float().sigmoid()  # (n, q, p)
        earnest = torch.arange(which.shape[1])[None] < torch.from_numpy(counts)[:, None]  # (n, p)
        confidences = confidences.masked_fill(~earnest[:, None].to(confidences.device), -1)
        best = confidences.amax(dim=1).cpu().numpy()  # (n, p)
        found = []
        for prompt, sure, (kept, scores, labels) in zip(prompts, best, self._thin_out(boxes, confidences), strict=True):
            names = [prompt.phrases[label] for label in labels]
            found.append(Found(kept, scores, names, prompt.phrases, sure[: len(prompt.phrases)]))
        return found

    def _encode(self, prompts: Sequence[Queries], phrases: Sequence[str]) -> tuple["torch.Tensor", ...]:
        """Embeddings of u phrases, (u, d); of the n tasks, (t, n, d); and which of their tokens count, (n, t)."""
        language, device = self._network.language_backbone, self._network.device
        # Not by way of the network, which keeps what it met last in a cache of its own.
        classes = language(tokenise(self._tokenizer, phrases, self._length, device)["input_ids"], encode_type="class")
        texts = [f"Detect {', '.join(prompt.phrases)}." for prompt in prompts]
        tokens = tokenise(self._tokenizer, texts, self._length, device)
        tasks, mask = language(tokens["input_ids"], mask=tokens["attention_mask"], encode_type="task")
        return classes, tasks, mask

    def _thin_out(
        self, boxes: "torch.Tensor", confidences: "torch.Tensor"
    ) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Boxes, confidences and labels of each picture's objects, in one pass over all n."""
        import torch
        from torchvision.ops import batched_nms

        n, q, p = confidences.shape
        # As in transformers, a picture has as many candidates as there are queries, whatever the number of phrases.
        scores, places = torch.sort(confidences.flatten(1), dim=1, descending=True, stable=True)
        scores, places = scores[:, :q], places[:, :q]
        picture, rank = (scores > self._limits.floor).nonzero(as_tuple=True)
        place = places[picture, rank]
        score, box, label = scores[picture, rank], boxes[picture, place // p], place % p
        # In double precision, for groups are told apart by moving them away from each other.
        kept = batched_nms(box.double(), score.double(), picture * p + label, OVERLAP).sort().values
        owner = picture[kept].cpu().numpy()
        thin = [one[kept].cpu().numpy() for one in (box.clamp(0, 1), score, label)]
        rows = [np.flatnonzero(owner == number)[: self._limits.most] for number in range(n)]
        return [(thin[0][row], thin[1][row], thin[2][row]) for row in rows]
