"""A segmentor ready to predict: mmseg's model and pipeline, around images that are in memory.

Shape legend: H W image size in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmseg.datasets  # noqa: F401  the registry would import it later, and it prints
import numpy as np
import torch
from mmseg.models.segmentors.base import BaseSegmentor
from PIL import Image
from torch import nn

from internimage.answers import MAX_INDEXED, ClassShare, class_shares, label_image
from internimage.integrations.openmmlab.prediction.loading import (
    ModelStep,
    Sources,
    build_model,
    facts_of_data_set,
    names_of,
    pipeline_of,
    read_sources,
    with_augmentation,
)
from internimage.integrations.openmmlab.segmentation import InternImageSegmentor
from internimage.integrations.openmmlab.segmentation.palettes import (
    Colour,
    PaletteName,
    as_colours,
    lay_colours,
    named_palette,
    random_palette,
)


class Segmentor:
    """Images in, label maps and pictures out.

    Args:
        model: a segmentor of mmseg in evaluation mode, or the same behind test-time augmentation.
        pipeline: the transforms of its test set for an image in memory.
        num_labels: how many classes it tells apart.
        class_names: one a class, for the first classes or for none.
        palette: colours of the first classes; the others get some that are easily told apart.
        checkpoint: where the weights are from.
        config: where the config is from.
    """

    def __init__(
        self,
        model: nn.Module,
        pipeline: Sequence[Mapping[str, Any]],
        *,
        num_labels: int,
        class_names: Sequence[str],
        palette: Sequence[Colour],
        checkpoint: str = "",
        config: str = "",
    ) -> None:
        self.model = model
        self.num_labels = num_labels
        self.class_names = tuple(class_names)
        # The random ones from the place on where the given end: a class keeps its colour.
        self.palette = [*palette, *random_palette(num_labels)[len(palette) :]][:num_labels]
        self.checkpoint = checkpoint
        self.config = config
        self.pipeline = pipeline
        self._step = ModelStep(model, pipeline)

    def segment(self, image: np.ndarray) -> np.ndarray:
        """Return the class of every pixel of one image.

        Args:
            image: (H, W, 3), uint8, blue-green-red.

        Returns:
            (H, W), uint8, or uint16 of more than 256 classes.

        Raises:
            ValueError: the image is of no use to the model, or an answer is not finite.
        """
        sample = self._step(image)
        # Models without scores look at them before. The sum alone: a truth value for every score
        # would be as large as a quarter of them. In float32: float16's ends at 65504.
        scores = sample.seg_logits.data if "seg_logits" in sample else None
        if scores is not None and not torch.isfinite(scores.sum(dtype=torch.float32)):
            raise ValueError(
                "Segmentor.segment: expected finite scores, got NaN or infinity: the weights hold "
                "it, or overflow in their dtype"
            )
        labels = sample.pred_sem_seg.data.squeeze(0).cpu().numpy()  # (H, W), int64
        return labels.astype(np.uint8 if self.num_labels <= MAX_INDEXED else np.uint16)

    def describe(self, label_map: np.ndarray) -> list[ClassShare]:
        """Return the classes of what :meth:`segment` returned, the largest first."""
        counts = np.bincount(label_map.ravel(), minlength=self.num_labels)
        return self.shares(dict(enumerate(counts.tolist())))

    def shares(self, pixels: Mapping[int, int]) -> list[ClassShare]:
        """Return the classes of which there are pixels, the largest first.

        Args:
            pixels: how many, by label.
        """
        return class_shares(pixels, self.class_names)

    def draw(self, image: np.ndarray, label_map: np.ndarray, *, opacity: float = 0.5) -> np.ndarray:
        """Return the image with the colours of the classes laid over it.

        Args:
            image: (H, W, 3), uint8, blue-green-red.
            label_map: (H, W), as :meth:`segment` returns it.
            opacity: of the colours, 0-1.

        Returns:
            (H, W, 3), uint8, blue-green-red.
        """
        return lay_colours(image, label_map, self.palette, opacity=opacity)

    def label_image(self, label_map: np.ndarray) -> Image.Image:
        """Return a label map (H, W) as an image whose pixel values are the labels."""
        return label_image(label_map, self.palette)


def build_segmentor(
    checkpoint: str | Path,
    config: str | Path | None = None,
    *,
    device: str = "cpu",
    palette: PaletteName | None = None,
    tta: bool = False,
    cfg_options: Mapping[str, Any] | None = None,
    configs: Path | None = None,
) -> Segmentor:
    """Put a segmentor, its weights, its pipeline and its class names together.

    Args:
        checkpoint: a file, an address or the name of a released segmentor; those of mmseg 0.x are
            renamed as they load.
        config: file with the config. None takes the one that mmengine writes into checkpoints.
        device: where the model runs.
        palette: colours; None takes the checkpoint's, else those of the config's data set while
            they suffice, else random ones.
        tta: predict with the config's test-time augmentation.
        cfg_options: settings that override those of ``config``, by their dotted names.
        configs: folder in which today's config is looked for when ``config`` is one of mmseg 0.x,
            for the error.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: something is missing or does not fit; the message says what to give.
    """
    sources = read_sources(
        "segmentor", checkpoint, config, cfg_options=cfg_options, configs=configs
    )
    pipeline = pipeline_of(sources, tta=tta)
    model = build_model(sources, BaseSegmentor, scope="mmseg", device=device)
    num_labels = count_labels(model)
    # The released heads of Cityscapes have 150 outputs, of which 19 have ever been trained.
    names = names_of(sources, num_labels, fewer=True)
    colours = palette_of(sources, len(names) or num_labels, name=palette)
    # Augmentation averages scores: they are kept for it.
    if tta:
        model = with_augmentation(model, sources)
    elif isinstance(model, InternImageSegmentor):
        # 150 classes of a photo of 12 megapixels would be 7 GB.
        model.test_cfg = {**(model.test_cfg or {}), "keep_scores": False}
    return Segmentor(
        model,
        pipeline,
        num_labels=num_labels,
        class_names=names,
        palette=colours,
        checkpoint=sources.checkpoint,
        config=sources.config,
    )


def count_labels(model: nn.Module) -> int:
    """Return how many labels a segmentor of mmseg may give to a pixel."""
    heads = model.decode_head
    # Of mmseg's cascades the last head predicts.
    head: Any = heads[-1] if isinstance(heads, nn.ModuleList) else heads
    # A single output is compared with a threshold: what it is not is a label as well.
    return head.out_channels if head.out_channels > 1 else 2


def palette_of(
    sources: Sources, num_classes: int, *, name: PaletteName | None = None
) -> list[Colour]:
    """Return the colours of a segmentor's classes.

    Args:
        sources: of the segmentor.
        num_classes: how many there are to be at least.
        name: of a palette; None takes the checkpoint's, else that of the config's data set while
            they suffice, else random ones.

    Raises:
        ValueError: the named palette has fewer colours.
    """
    if name is not None:
        return named_palette(name, num_classes)
    saved = sources.saved_palette
    if saved is not None and len(saved) >= num_classes:
        return saved
    of_data_set = facts_of_data_set(sources, "palette")
    if of_data_set and len(of_data_set) >= num_classes:
        return as_colours(of_data_set)
    return random_palette(num_classes)
