"""Small image files and data sets of each storage, made by the tests themselves."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image

CLASSES = ("cat", "dog", "emu")


def picture(seed: int, size: tuple[int, int] = (24, 18)) -> Image.Image:
    """A smooth RGB picture of its own for each seed; ``size`` is width and height."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, format_: str = "JPEG", **options: object) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def write_folders(root: Path, *, train: int = 4, val: int = 2) -> Path:
    """train/<class>/deep er/3.jpg and val/<class>/...: so many images a class, of three classes."""
    seed = 0
    for half, count in (("train", train), ("val", val)):
        for name in CLASSES:
            folder = root / half / name / "deep er"
            folder.mkdir(parents=True)
            for number in range(count):
                seed += 1
                (folder / f"{number}.jpg").write_bytes(encode(picture(seed)))
    return root


def each_file(folders: Path, half: str) -> Iterator[tuple[str, int, bytes]]:
    """Path below the half, label and content of the images of ``write_folders``, sorted."""
    for path in sorted((folders / half).rglob("*.jpg")):
        relative = path.relative_to(folders / half)
        yield str(relative), CLASSES.index(relative.parts[0]), path.read_bytes()


def write_list(root: Path) -> Path:
    """The folders, and lists of the images in them."""
    write_folders(root)
    (root / "meta_data").mkdir()
    for half in ("train", "val"):
        lines = "".join(f"{path} {label}\n" for path, label, _ in each_file(root, half))
        (root / "meta_data" / f"{half}.txt").write_text(lines)
    return root


def write_zipped_list(root: Path) -> Path:
    """The same with zip archives of the lists."""
    write_list(root)
    for half in ("train", "val"):
        path = root / "meta_data" / f"{half}.txt"
        with zipfile.ZipFile(f"{path}.zip", "w") as archive:
            archive.write(path, path.name)
        path.unlink()
    return root


def write_zips(root: Path, *, prefix: bool = False, lists: bool = False) -> Path:
    """Zip archives of class folders, one member deflated, or of files with lists."""
    folders = write_folders(root.with_name(f"{root.name}_folders"))
    root.mkdir()
    for half in ("train", "val"):
        lines = []
        with zipfile.ZipFile(root / f"{half}.zip", "w") as archive:
            for number, (path, label, content) in enumerate(each_file(folders, half)):
                name = f"{number}.jpg" if lists else path
                inner = f"{half}/{name}" if prefix else name
                method = zipfile.ZIP_DEFLATED if number == 1 else zipfile.ZIP_STORED
                archive.writestr(inner, content, method)
                lines.append(f"{name}\t{label}\n")
        if lists:
            (root / f"{half}_map.txt").write_text("".join(lines))
    return root


def write_shards(root: Path, *, json: bool = False) -> Path:
    """Shards of five samples, written by the webdataset package."""
    folders = write_folders(root.with_name(f"{root.name}_folders"))
    root.mkdir()
    for half in ("train", "val"):
        pattern = str(root / f"imagenet-{half}-%04d.tar")
        with webdataset.ShardWriter(pattern, maxcount=5, verbose=0) as writer:
            for number, (_, label, content) in enumerate(each_file(folders, half)):
                target = {"json": {"label": label}} if json else {"cls": label}
                writer.write({"__key__": f"sample{number:06d}", "jpg": content, **target})
    return root


STORAGES = {
    "folder": write_folders,
    "list": write_list,
    "list in a zip": write_zipped_list,
    "zip of folders": write_zips,
    "zip of train/ and val/": lambda root: write_zips(root, prefix=True),
    "zip with lists": lambda root: write_zips(root, lists=True),
    "zip with lists and train/": lambda root: write_zips(root, lists=True, prefix=True),
    "shards": write_shards,
    "shards with json": lambda root: write_shards(root, json=True),
}
