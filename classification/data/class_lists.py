"""The classes of ImageNet, by their WordNet ids and in words.

timm's package data holds both lists: the 1,000 classes in the usual order, which is that of the
sorted ids, and the 21,841 of the Fall 2011 release in the order of the released 22K heads.
"""

import functools
from typing import Literal

from timm.data import ImageNetInfo

Subset = Literal["imagenet-1k", "imagenet-22k"]


@functools.cache
def wordnet_ids(subset: Subset) -> tuple[str, ...]:
    """Returns the WordNet id of each class, such as n01440764."""
    return tuple(ImageNetInfo(subset).label_names())


@functools.cache
def class_words(subset: Subset) -> tuple[str, ...]:
    """Returns the words of each class, such as "tench, Tinca tinca"; two may share theirs."""
    return tuple(ImageNetInfo(subset).label_descriptions())
