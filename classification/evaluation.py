"""Evaluation of a classifier on the test images of all ranks.

Shape legend: N images of a batch on one rank, H W pixels, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from classification.data.batch import Batch, Data
from classification.distributed import Ranks, max_over_ranks, sum_over_ranks

Forward = Callable[[Tensor | tuple[Tensor, ...]], Tensor]


@dataclass(frozen=True)
class Scores:
    """An evaluation on all ranks.

    Args:
        loss: Mean cross-entropy an image, without label smoothing.
        top1: Percent of images whose class has the largest logit.
        top5: Percent of images whose class is among the five largest.
        num_images: Images that were evaluated.
        num_bad_files: Images that were left out, since their files could not be read.
    """

    loss: float
    top1: float
    top5: float
    num_images: int
    num_bad_files: int = 0


@torch.no_grad()
def evaluate(
    forward: Forward,
    data: Data,
    ranks: Ranks,
    *,
    filler: Tensor | tuple[Tensor, ...] | None = None,
    on_batch: Callable[[tuple[str, ...]], object] = lambda _: None,
) -> Scores:
    """Evaluates a classifier on the images of all ranks, each counted once.

    Args:
        forward: Images (N, 3, H, W), or a tuple of them and times and places, to logits (N, K); of
            a model in evaluation mode.
        data: The images.
        ranks: This process among all.
        filler: Where ranks wait for each other in ``forward``: what a rank that has no batch left
            calls it with, so that all call it equally often.
        on_batch: Called after each batch, equally often on every rank, with the files of it that
            could not be read; may raise.

    Raises:
        ValueError: There is no image.
    """
    # Sums of loss, top-1 hits, top-5 hits, images and bad files.
    sums = torch.zeros(5, dtype=torch.float64, device=ranks.device)
    batches = iter(data.test_loader)
    for _ in range(max_over_ranks(len(data.test_loader), ranks)):
        batch = next(batches, None)
        if batch is not None:
            sums[4] += len(batch.bad_files)
        if batch is not None and len(batch.labels):
            images, *meta = to_inputs(batch, data.finish_test, ranks.device)
            logits = forward((images, *meta) if meta else images).float()
            sums[:4] += _count(logits, batch.labels.to(ranks.device, non_blocking=True))
        elif filler is not None:
            forward(filler)
        on_batch(() if batch is None else batch.bad_files)
    if data.test_is_shared:
        sums = sum_over_ranks(sums)
    loss_sum, top1_hits, top5_hits, num_images, num_bad = sums.tolist()
    if not num_images:
        raise ValueError("evaluate: expected images >= 1, got 0")
    return Scores(
        loss=loss_sum / num_images,
        top1=100 * top1_hits / num_images,
        top5=100 * top5_hits / num_images,
        num_images=int(num_images),
        num_bad_files=int(num_bad),
    )


def to_inputs(
    batch: Batch, finish: Callable[[Tensor], Tensor], device: torch.device
) -> tuple[Tensor, ...]:
    """Returns what the model takes: images (N, 3, H, W), then times and places if there are any."""
    images, *meta = (tensor.to(device, non_blocking=True) for tensor in (batch.images, *batch.meta))
    return finish(images), *meta


def _count(logits: Tensor, labels: Tensor) -> Tensor:
    """Sums of loss, top-1 hits, top-5 hits and images: logits (N, K), labels (N,) -> (4,)."""
    top5 = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = top5 == labels[:, None]  # (N, 5)
    loss = F.cross_entropy(logits, labels, reduction="sum")
    count = torch.full_like(loss, len(labels), dtype=torch.float64)
    return torch.stack([loss.double(), hits[:, 0].sum().double(), hits.sum().double(), count])
