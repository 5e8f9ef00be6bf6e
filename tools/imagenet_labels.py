"""Which class each validation image of ImageNet-1k has, from the official devkit or from a list."""

import io
import re
import tarfile
from pathlib import Path

from classification.data.class_lists import wordnet_ids

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"


def read_val_labels(path: Path) -> dict[str, str]:
    """Returns the WordNet id of each image, by the file's name without its suffix.

    Args:
        path: The devkit, packed (ILSVRC2012_devkit_t12.tar.gz) or unpacked, or a text file of lines
            ``NAME LABEL``: the label is a WordNet id, or a class from 0 to 999 in their order.

    Raises:
        ValueError: It is none of these.
    """
    if path.is_dir():
        return _join_devkit(_find(path, GROUND_TRUTH).read_bytes(), _find(path, META).read_bytes())
    if not path.is_file():
        raise ValueError(f"read_val_labels: expected the devkit or a list, got no file at {path}")
    if tarfile.is_tarfile(path):
        return _join_devkit(*_read_devkit(path))
    return _read_list(path)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / "data" / name, *folder.glob(f"*/data/{name}")):
        if path.is_file():
            return path
    raise ValueError(f"read_val_labels: expected data/{name} of the devkit in {folder}, got none")


def _read_devkit(path: Path) -> tuple[bytes, bytes]:
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = Path(member.name).name
                if member.isreg() and name in (GROUND_TRUTH, META):
                    stream = archive.extractfile(member)
                    assert stream is not None  # it is a regular file
                    contents[name] = stream.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(
            f"read_val_labels: expected a whole devkit, got {path} ({error})"
        ) from error
    for name in (GROUND_TRUTH, META):
        if name not in contents:
            raise ValueError(f"read_val_labels: expected {name} in the devkit, got none in {path}")
    return contents[GROUND_TRUTH], contents[META]


def _join_devkit(ground_truth: bytes, meta: bytes) -> dict[str, str]:
    """Returns the labels: line i has the devkit's own number of the class of image i, from 1."""
    from scipy.io import loadmat  # comes with scikit-learn

    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        ids = {
            int(number): str(wordnet_id)
            for number, wordnet_id in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)
        }
        numbers = [int(line) for line in ground_truth.split()]
    except Exception as error:  # loadmat raises what its parser happens to raise
        raise ValueError(
            f"read_val_labels: expected {META} and {GROUND_TRUTH} as in the devkit, "
            f"got {type(error).__name__}: {error}"
        ) from error
    labels = {}
    known = set(wordnet_ids("imagenet-1k"))
    for index, number in enumerate(numbers, start=1):
        if ids.get(number) not in known:
            raise ValueError(
                f"read_val_labels: expected one of the 1,000 classes in line {index} of "
                f"{GROUND_TRUTH}, got {number}"
            )
        labels[f"ILSVRC2012_val_{index:08}"] = ids[number]
    return labels


def _read_list(path: Path) -> dict[str, str]:
    known = wordnet_ids("imagenet-1k")
    classes = {wordnet_id: wordnet_id for wordnet_id in known}
    classes |= {str(index): wordnet_id for index, wordnet_id in enumerate(known)}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"read_val_labels: expected UTF-8 text, got {path}") from error
    labels: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        match = re.fullmatch(r"(.*\S)\s+(\S+)", line)
        if match is None or match[2] not in classes:
            raise ValueError(
                f"read_val_labels: expected NAME and a class (0-999 or a WordNet id) in line "
                f"{number} of {path}, got {line[:80]!r}"
            )
        labels[Path(match[1]).stem] = classes[match[2]]
    return labels
