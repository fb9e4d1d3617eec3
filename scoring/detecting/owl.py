"""OWL-ViT and OWLv2: every patch of the picture proposes a box, and is compared with every phrase.

Sources: Minderer et al. 2022, Simple open-vocabulary object detection with vision transformers, arXiv 2205.06230;
Minderer, Gritsenko and Houlsby 2023, Scaling open-vocabulary object detection, arXiv 2306.09683.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from chaffinch.scoring.detecting.objects import Found, Limits, corners, select
from chaffinch.scoring.detecting.queries import Queries, line_up, read_queries, tokenise

if TYPE_CHECKING:
    import torch

    from chaffinch.scoring.detecting.canvases import Prepared


class Owl:
    """A model that compares patches with phrases."""

    needs_phrases = True

    def __init__(self, network: Any, tokenizer: Any, vocabulary: Sequence[str] | None, limits: Limits) -> None:
        """Keeps the network, and embeds a fixed vocabulary.

        Args:
            network: on its device.
            tokenizer: the checkpoint's own.
            vocabulary: phrases to look for in every picture; None to read captions.
            limits: what is kept.
        """
        self._network, self._tokenizer, self._limits = network, tokenizer, limits
        self._squares = network.config.model_type == "owlv2"
        self._vocabulary = None if vocabulary is None else Queries(tuple(vocabulary))
        self._embedded = None if vocabulary is None else self._embed(vocabulary)

    @property
    def backbone(self) -> Any:
        """The part of the network that sees the picture alone."""
        return self._network.base_model.vision_model

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
            (n,) objects; each is the phrase that it is surest of.
        """
        import torch

        network = self._network
        phrases, which, counts = line_up(prompts)
        embedded = self._embed(phrases) if self._embedded is None else self._embedded  # (u, d)
        places = torch.from_numpy(which).to(embedded.device)
        asked = torch.arange(which.shape[1])[None] < torch.from_numpy(counts)[:, None]  # (n, p)
        features = network.image_embedder(pixels)[0]  # (n, rows, columns, d)
        # The heads are small and say where a box is: a share of the picture needs more than the 8 bits of a bfloat16.
        with torch.autocast(pixels.device.type, enabled=False):
            features = features.float()
            patches = features.flatten(1, 2)  # (n, q, d)
            logits = network.class_predictor(patches, embedded[places], asked.to(embedded.device))[0]
            boxes = corners(network.box_predictor(patches, features))
        if self._squares:
            sides = torch.tensor([one.size for one in pictures], dtype=torch.float32, device=boxes.device)  # (n, 2)
            boxes = boxes * (sides.amax(dim=1, keepdim=True) / sides).repeat(1, 2)[:, None]
        confidences, best = logits.float().max(dim=2)
        picked = select(boxes, confidences.sigmoid(), self._limits)
        labels = torch.gather(best, 1, picked.index).cpu().numpy()
        kept = picked.kept.sum(dim=1).tolist()
        found_boxes, sure = picked.boxes.cpu().numpy(), picked.confidences.cpu().numpy()
        per_phrase = logits.float().amax(dim=1).sigmoid().cpu().numpy()  # (n, p)
        return [
            Found(
                found_boxes[row, :k],
                sure[row, :k],
                [prompt.phrases[label] for label in labels[row, :k]],
                prompt.phrases,
                per_phrase[row, : len(prompt.phrases)],
            )
            for row, (prompt, k) in enumerate(zip(prompts, kept, strict=True))
        ]

    def _embed(self, phrases: Sequence[str]) -> "torch.Tensor":
        """(u, d) unit vectors of u phrases, float32."""
        import torch

        network = self._network
        length = network.config.text_config.max_position_embeddings
        tokens = tokenise(self._tokenizer, phrases, length, network.device)
        embedded = network.base_model.get_text_features(**tokens).pooler_output.float()
        return torch.nn.functional.normalize(embedded, dim=-1)
