"""A slow twin of the detector: one picture at a time through transformers' own processor, model and post-processing.

Loaded by the fixture `slow_detector`, since test modules do not import each other.
"""

import numpy as np
import torch
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

GROUNDING = ("grounding-dino", "mm-grounding-dino")
TOLERANCE = 1e-4


def load(folder):
    """transformers' own model and processor."""
    return AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def look(family, twin, pairs, texts, floor, pads=None):
    """Objects one picture at a time: (confidence, box as clipped shares, phrase), the surest first."""
    network, processor = twin
    found = []
    for row, ((_, picture), text) in enumerate(zip(pairs, texts, strict=True)):
        options = {}
        if pads is not None and pads[row] is not None:
            options = {"images_kwargs": {"pad_size": dict(zip(("height", "width"), pads[row], strict=True))}}
        inputs = processor(images=picture, text=text, return_tensors="pt", **options)
        with torch.no_grad():
            outputs = network(**inputs)
        sizes = [(picture.height, picture.width)]
        if family in GROUNDING:
            (result,) = processor.post_process_grounded_object_detection(
                outputs, inputs.input_ids, threshold=floor, text_threshold=0.25, target_sizes=sizes
            )
        else:
            (result,) = processor.post_process_grounded_object_detection(
                outputs, threshold=floor, target_sizes=sizes, text_labels=[text]
            )
        shares = result["boxes"] / torch.tensor([picture.width, picture.height] * 2)
        objects = zip(result["scores"].tolist(), shares.clamp(0, 1).tolist(), result["text_labels"], strict=True)
        found.append(sorted(objects, key=lambda one: -one[0]))
    return found


def assert_same(measured, expected, tolerance=TOLERANCE):
    """The same objects in the same order, where confidences further apart than the tolerance make an order."""
    assert len(measured["boxes"]) == len(expected)
    confidences = np.array(measured["confidences"])
    assert (np.diff(confidences) <= 0).all()
    np.testing.assert_allclose(confidences, [one[0] for one in expected], rtol=0, atol=tolerance)
    left = list(zip(measured["confidences"], measured["boxes"], measured["phrases"], strict=True))
    for confidence, box, phrase in expected:
        match = next(
            (
                one
                for one in left
                if abs(one[0] - confidence) <= tolerance
                and np.abs(np.subtract(one[1], box)).max() <= tolerance
                and one[2] == phrase
            ),
            None,
        )
        assert match is not None, (confidence, box, phrase, left)
        left.remove(match)
