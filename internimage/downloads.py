"""Checkpoints behind an address, https://... in the place of a path."""

import hashlib
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlparse

import torch
from filelock import FileLock


def is_url(text: str) -> bool:
    """Return whether a path is an address."""
    return text.startswith(("https://", "http://"))


def download(url: str) -> Path:
    """Download a file into PyTorch's cache once; all ranks of a machine may ask at a time.

    Returns:
        The file in the cache, named as in the address.

    Raises:
        ValueError: The address names no file.
        ConnectionError: The file is not in the cache and cannot be had.
    """
    name = Path(unquote(urlparse(url).path)).name
    if not name:
        raise ValueError(f"download: expected the address of a file, got {url}")
    # Every address has a folder of its own: model.safetensors is the name of many files.
    folder = hashlib.sha256(url.encode()).hexdigest()[:12]
    target = Path(torch.hub.get_dir()) / "checkpoints" / folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):  # the first rank downloads, the others find the file
        if not target.is_file():
            try:
                # to a temporary file first: a broken transfer leaves nothing under the name
                torch.hub.download_url_to_file(url, str(target), progress=False)
            except (HTTPError, URLError, OSError) as error:
                raise ConnectionError(
                    f"download: expected {url} within reach, or the file at {target}, got neither "
                    f"({' '.join(str(error).split())}); by hand: fetch it with any browser and "
                    "give the file's path"
                ) from error
    return target
