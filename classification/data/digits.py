"""Handwritten digits: the 1,797 real scans of 8x8 pixels that scikit-learn brings along.

Source: UCI, Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998); 43 people wrote
them. No download, 10 classes of about 180 images, brightness 0-16 with 0 for paper.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

CLASS_NAMES = tuple(str(digit) for digit in range(10))
NUM_TEST_IMAGES = 360  # 20 % of 1,797
MAX_BRIGHTNESS = 16


class Digits(Dataset):
    """One half of the fixed, stratified 80/20 split, in memory.

    The split depends on nothing: 1,437 images to train on, 360 to test on, each digit in both in
    the same proportion.

    Args:
        train: The training half or the test half.
        transform: From an 8x8 grey image in RGB to what the model takes.
    """

    class_names = CLASS_NAMES

    def __init__(
        self, *, train: bool, transform: Callable[[Image.Image], torch.Tensor] | None = None
    ) -> None:
        # Imported here: scikit-learn takes a second, which runs on other data need not wait.
        from sklearn.datasets import load_digits

        digits = load_digits()
        train_indices, test_indices = split_indices(digits.target)
        self.indices = train_indices if train else test_indices
        brightness = np.rint(digits.images[self.indices] * (255 / MAX_BRIGHTNESS))
        self.images = [Image.fromarray(b.astype(np.uint8)).convert("RGB") for b in brightness]
        self.labels = digits.target[self.indices].tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor | Image.Image, int]:
        image = self.images[index]
        return (self.transform(image) if self.transform else image), self.labels[index]


def split_indices(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the training and of the test images.

    Args:
        labels: (num_images,) The class of each image.

    Returns:
        Two sorted arrays without a common element, of all but 360 and of 360 indices.
    """
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(
        np.arange(len(labels)), test_size=NUM_TEST_IMAGES, stratify=labels, random_state=0
    )
    return np.sort(train), np.sort(test)
