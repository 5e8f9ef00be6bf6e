"""Which images a rank trains on and evaluates, and in which order."""

import numpy as np
import torch

from classification.distributed import Ranks

SHARDS_AT_A_TIME = 16
"""An epoch mixes the images of so many shards, then goes on to the next ones."""


def share_of(num_images: int, ranks: Ranks) -> range:
    """Returns every world_size-th image: each image is one rank's.

    DistributedSampler would repeat images until all ranks have equally many, and an evaluation
    would count them twice.

    Args:
        num_images: The size of the data set.
        ranks: This process among all.
    """
    return range(ranks.rank, num_images, ranks.world_size)


class TrainOrder:
    """The images of one rank in each epoch: the ranks' are disjoint, and equally many.

    Images that are left over when all are dealt out sit out an epoch; the next one has others.

    Args:
        num_images: The size of the data set.
        ranks: This process among all.
        seed: SEED.
        groups: (num_images,) The file of each image, ascending: a rank reads from
            ``SHARDS_AT_A_TIME`` at a time. None shuffles all images.
        keep_share: The rank has the same share of the images in each epoch.
    """

    def __init__(
        self,
        num_images: int,
        ranks: Ranks,
        *,
        seed: int,
        groups: np.ndarray | None = None,
        keep_share: bool = False,
    ) -> None:
        self.num_images = num_images
        self.ranks = ranks
        self.seed = seed
        self.groups = groups
        self.keep_share = keep_share

    def __len__(self) -> int:
        """Returns the number of images of a rank and epoch."""
        return self.num_images // self.ranks.world_size

    @property
    def share(self) -> np.ndarray:
        """The images that a rank draws from with ``keep_share``."""
        return np.asarray(share_of(self.num_images, self.ranks))

    def of_epoch(self, epoch: int) -> np.ndarray:
        """Returns the images of this rank in their order, (len(self),)."""
        if self.keep_share:
            # A generator for each rank: with one for all, the ranks' images would be neighbours in
            # the data set, of one class.
            generator = _generator(self.seed, epoch, self.ranks.rank)
            order = torch.randperm(len(self.share), generator=generator).numpy()
            return self.share[order][: len(self)]
        if self.groups is not None:
            rank = self.ranks.rank
            return self._by_shards(epoch)[rank * len(self) : (rank + 1) * len(self)]
        generator = _generator(self.seed, epoch)
        order = torch.randperm(self.num_images, generator=generator).numpy()
        return order[: len(self) * self.ranks.world_size][self.ranks.rank :: self.ranks.world_size]

    def _by_shards(self, epoch: int) -> np.ndarray:
        """Returns all images: shards in a random order, mixed ``SHARDS_AT_A_TIME`` at a time."""
        assert self.groups is not None
        generator = _generator(self.seed, epoch)
        place = torch.randperm(int(self.groups[-1]) + 1, generator=generator).numpy()
        keys = torch.rand(self.num_images, generator=generator, dtype=torch.float64).numpy()
        return np.lexsort((keys, place[self.groups] // SHARDS_AT_A_TIME))


def _generator(*numbers: int) -> torch.Generator:
    """Returns a generator that neighbouring numbers do not share: their sum would be one."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    return torch.Generator().manual_seed(seed)
