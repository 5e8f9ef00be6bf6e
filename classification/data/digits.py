"""Handwritten digits: the 1,797 real scans of 8x8 pixels that scikit-learn brings along.

Source: UCI, Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998); 43 people wrote
them. No download, 10 classes of about 180 images, brightness 0-16 with 0 for paper.
"""

import numpy as np
from PIL import Image
from yacs.config import CfgNode

from classification.data.source import ArraySource, ImageSets

CLASS_NAMES = tuple(str(digit) for digit in range(10))
NUM_TEST_IMAGES = 360  # 20 % of 1,797
MAX_BRIGHTNESS = 16


class Digits(ArraySource):
    """One half of the fixed, stratified 80/20 split, in memory.

    The split depends on nothing: 1,437 images to train on, 360 to test on, each digit in both in
    the same proportion.

    Args:
        train: The training half or the test half.
    """

    def __init__(self, *, train: bool) -> None:
        # Imported here: scikit-learn takes a second, which runs on other data need not wait.
        from sklearn.datasets import load_digits

        digits = load_digits()
        train_indices, test_indices = split_indices(digits.target)
        self.indices = train_indices if train else test_indices
        brightness = np.rint(digits.images[self.indices] * (255 / MAX_BRIGHTNESS))
        pixels = np.repeat(brightness.astype(np.uint8)[..., None], 3, axis=-1)
        super().__init__(pixels, digits.target[self.indices], CLASS_NAMES, name="digits")

    @property
    def images(self) -> list[Image.Image]:
        """All images, 8x8 pixels in RGB."""
        return [Image.fromarray(pixels) for pixels in self.pixels]


def build_digits(config: CfgNode) -> ImageSets:
    """Builds both halves; nothing of the settings is read."""
    return ImageSets(Digits(train=True), Digits(train=False), CLASS_NAMES, kind="digits")


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
