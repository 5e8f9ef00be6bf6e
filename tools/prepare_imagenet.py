"""Unpacks ImageNet-1k's official tar files to train/WNID/*.JPEG and val/WNID/*.JPEG.

python tools/prepare_imagenet.py --out imagenet --train ILSVRC2012_img_train.tar \
    --val ILSVRC2012_img_val.tar --val-labels ILSVRC2012_devkit_t12.tar.gz

Each image is written once, straight from the archive. The same command, given again, goes on where
an earlier one ended: it keeps the files whose sizes are right. WNID is a class's WordNet id.
"""

import argparse
import hashlib
import os
import re
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from classification.data.class_lists import wordnet_ids
from tools.command_line import progress, run_tool
from tools.imagenet_labels import read_val_labels

NAME = "prepare_imagenet"
NUM_TRAIN_IMAGES = 1_281_167
NUM_VAL_IMAGES = 50_000
# Of the official files, as PyTorch's torchvision has them too.
MD5 = {
    "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
    "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
}
BUFFER = 1 << 20  # bytes


class Image(NamedTuple):
    """An image in an archive.

    Args:
        name: The file's name, without folders.
        wordnet_id: Its class.
        size: Bytes.
        content: To read them from.
    """

    name: str
    wordnet_id: str
    size: int
    content: IO[bytes]


class Count(NamedTuple):
    """What happened to the images of an archive.

    Args:
        written: How many were written now.
        kept: How many were there already.
    """

    written: int
    kept: int


def train_images(path: Path) -> Iterator[Image]:
    """Yields the images of the training archive, a tar file that holds one tar file a class.

    Raises:
        ValueError: The archive is cut off or no such archive.
    """
    known = set(wordnet_ids("imagenet-1k"))
    with _open_tar(path) as outer:
        for class_member in _members(outer, path):
            wordnet_id = class_member.name.removesuffix(".tar")
            if not class_member.name.endswith(".tar") or wordnet_id not in known:
                raise ValueError(
                    f"{NAME}: expected WNID.tar of the 1,000 classes in {path}, "
                    f"got {class_member.name!r}"
                )
            stream = _content(outer, class_member)
            where = f"{path}:{class_member.name}"
            with stream, _open_tar(where, stream) as inner:
                for member in _members(inner, where):
                    yield Image(member.name, wordnet_id, member.size, _content(inner, member))


def val_images(path: Path, labels: dict[str, str]) -> Iterator[Image]:
    """Yields the images of the validation archive, a flat tar file.

    Args:
        path: The archive.
        labels: From a file's name without its suffix to its WordNet id.

    Raises:
        ValueError: The archive is cut off or no such archive, or an image has no label.
    """
    with _open_tar(path) as archive:
        for member in _members(archive, path):
            wordnet_id = labels.get(Path(member.name).stem)
            if wordnet_id is None:
                raise ValueError(
                    f"{NAME}: expected a label for each image of {path} in --val-labels, "
                    f"got none for {member.name}"
                )
            yield Image(member.name, wordnet_id, member.size, _content(archive, member))


def unpack(images: Iterator[Image], out: Path, *, advance: Callable[[float], None]) -> Count:
    """Writes images to ``out/WNID/``, and nothing that is there already.

    Args:
        images: What to write.
        out: A folder, made where it is missing.
        advance: Called with each image's size in bytes.

    Raises:
        ValueError: A class folder holds files that the archive does not.
        OSError: The disk is full; what was written before stays.
    """
    out.mkdir(parents=True, exist_ok=True)
    there = {folder.name: _sizes(folder) for folder in out.iterdir() if folder.is_dir()}
    names: Counter[str] = Counter()
    seen: dict[str, set[str]] = {}
    written = 0
    for image in images:
        folder = out / image.wordnet_id
        if image.wordnet_id not in seen:
            folder.mkdir(exist_ok=True)
            seen[image.wordnet_id] = set()
        if image.name in seen[image.wordnet_id]:
            raise ValueError(f"{NAME}: expected each image once, got {image.name} twice")
        seen[image.wordnet_id].add(image.name)
        if there.get(image.wordnet_id, {}).get(image.name) != image.size:
            _write(folder / image.name, image)
            written += 1
        names[image.wordnet_id] += 1
        advance(image.size)
    for wordnet_id, sizes in there.items():
        strange = sorted(sizes.keys() - seen.get(wordnet_id, set()))
        if strange:
            raise ValueError(
                f"{NAME}: expected nothing but the archive's images in {out / wordnet_id}, "
                f"got {len(strange)} other files, the first {strange[0]}"
            )
    return Count(written, names.total() - written)


def check_md5(path: Path, expected: str) -> None:
    """Compares a file's MD5 with the official one.

    Raises:
        ValueError: They differ.
    """
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file, progress(f"MD5 of {path.name}", path.stat().st_size) as advance:
        while block := file.read(BUFFER):
            digest.update(block)
            advance(len(block))
    if digest.hexdigest() != expected:
        raise ValueError(f"{NAME}: expected MD5 {expected} of {path}, got {digest.hexdigest()}")


def _write(path: Path, image: Image) -> None:
    """Writes a file that has its name only once it is whole."""
    partial = path.with_name(f".{path.name}.part")  # its suffix is no image's
    try:
        with partial.open("wb") as file:
            while block := image.content.read(BUFFER):
                file.write(block)
        os.replace(partial, path)
    except tarfile.TarError as error:
        raise ValueError(
            f"{NAME}: expected a whole tar file, got one that ends within {image.name} ({error})"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _sizes(folder: Path) -> dict[str, int]:
    """Returns the bytes of each file, without the leftovers of a killed process."""
    for leftover in folder.glob(".*.part"):
        leftover.unlink()
    return {entry.name: entry.stat().st_size for entry in os.scandir(folder)}


def _open_tar(path: Path | str, stream: IO[bytes] | None = None) -> tarfile.TarFile:
    try:
        if stream is None:
            return tarfile.open(path, "r:")
        return tarfile.open(fileobj=stream, mode="r:")
    except tarfile.TarError as error:
        raise ValueError(f"{NAME}: expected a tar file, got {path} ({error})") from error


def _members(archive: tarfile.TarFile, path: Path | str) -> Iterator[tarfile.TarInfo]:
    """Yields the files; a name that leads elsewhere, or a link, is no image of ImageNet."""
    try:
        for member in archive:
            if member.isdir() and member.name in (".", "./"):
                continue
            member.name = member.name.removeprefix("./")
            plain = re.fullmatch(r"\w[\w.-]*", member.name, re.ASCII)
            if not plain or not member.isreg() or member.issparse():
                raise ValueError(
                    f"{NAME}: expected plain files without folders in {path}, got {member.name!r}"
                )
            yield member
    except tarfile.TarError as error:
        raise ValueError(f"{NAME}: expected a whole tar file, got {path} ({error})") from error


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(member)
    assert content is not None  # _members lets regular files through alone
    return content


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=NAME, description="Unpacks ImageNet-1k's official tar files to class folders."
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to fill")
    parser.add_argument("--train", type=Path, metavar="TAR", help="ILSVRC2012_img_train.tar")
    parser.add_argument("--val", type=Path, metavar="TAR", help="ILSVRC2012_img_val.tar")
    parser.add_argument(
        "--val-labels",
        type=Path,
        metavar="PATH",
        help="of --val: the devkit (archive or folder), or a text file of lines NAME LABEL",
    )
    parser.add_argument("--check", action="store_true", help="compare MD5 sums first (minutes)")
    parser.add_argument(
        "--allow-partial", action="store_true", help="accept archives of fewer images"
    )
    args = parser.parse_args(arguments)
    return run_tool(NAME, lambda: _prepare(args), resumes=True)


def _prepare(args: argparse.Namespace) -> None:
    if args.train is None and args.val is None:
        raise ValueError(f"{NAME}: expected --train, --val or both, got neither")
    if (args.val is None) != (args.val_labels is None):
        raise ValueError(f"{NAME}: expected --val and --val-labels together, got one of them")
    labels = {} if args.val is None else read_val_labels(args.val_labels)
    for path, official in zip((args.train, args.val), MD5, strict=True):
        if path is not None and not path.is_file():
            raise ValueError(f"{NAME}: expected the file {official}, got no file at {path}")
        if path is not None and args.check:
            check_md5(path, MD5[official])
    halves = (
        ("train", args.train, NUM_TRAIN_IMAGES, lambda: train_images(args.train)),
        ("val", args.val, NUM_VAL_IMAGES, lambda: val_images(args.val, labels)),
    )
    for half, path, expected, images in halves:
        if path is None:
            continue
        with progress(half, path.stat().st_size) as advance:
            count = unpack(images(), args.out / half, advance=advance)
        total = sum(count)
        print(f"{args.out / half}: {total:,} images ({count.written:,} written now)")
        if total != expected and not args.allow_partial:
            raise ValueError(
                f"{NAME}: expected {expected:,} images in {path} or --allow-partial, got {total:,}"
            )


if __name__ == "__main__":
    sys.exit(main())
