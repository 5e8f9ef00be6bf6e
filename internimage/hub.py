"""The released models: name, files, preprocessing, published results; and their download.

No checksum of a released file was ever published, so none is here. ``huggingface_hub`` checks the
size of what it downloads and resumes a broken transfer; reading the file then checks every key and
shape against the model.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from internimage.metadata import Preprocessing
from internimage.variants import unknown_name

PTH_REPOSITORY = "OpenGVLab/InternImage"
SAFETENSORS_FILE = "model.safetensors"
HUB_URL = "https://huggingface.co"
REFUSALS = (401, 403, 404, 410, 451)
"""HTTP statuses that asking again does not change."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReleasedModel:
    """One released checkpoint.

    Args:
        name: the released file's name without its suffix; the model's name here.
        variant: its size.
        num_classes: 1,000 (ImageNet-1k), 21,841 (ImageNet-22k) or 8,142 (iNaturalist 2018).
        image_size: side of the image, pixels.
        pretraining: data behind it.
        repository: repository of its own that holds ``model.safetensors``; None where there is
            none.
        top1: published top-1 accuracy, percent; None where none was published.
        metaformer: whether the head also takes time and place.
    """

    name: str
    variant: str
    num_classes: int
    image_size: int
    pretraining: str
    repository: str | None
    top1: float | None = None
    metaformer: bool = False

    @property
    def preprocessing(self) -> Preprocessing:
        """Bicubic to the full image size, no margin, ImageNet's mean and standard deviation."""
        return Preprocessing(image_size=self.image_size)

    @property
    def pth_file(self) -> str:
        """Name of the ``.pth`` file in :data:`PTH_REPOSITORY`."""
        return f"{self.name}.pth"


def _classifier(size: str, image_size: int, tag: str, top1: float) -> ReleasedModel:
    name = f"internimage_{size}_{tag}_{image_size}"
    pretraining = {"1k": "ImageNet-1k", "22kto1k": "ImageNet-22k"}[tag]
    return ReleasedModel(
        name=name,
        variant=f"internimage_{size}",
        num_classes=1000,
        image_size=image_size,
        pretraining="joint 427M, ImageNet-22k" if size in ("h", "g") else pretraining,
        repository=f"OpenGVLab/{name}",
        top1=top1,
    )


def _pretrained(size: str, tag: str, repository: str, pretraining: str) -> ReleasedModel:
    return ReleasedModel(
        name=f"internimage_{size}_{tag}",
        variant=f"internimage_{size}",
        num_classes=21841,
        image_size=384,
        pretraining=pretraining,
        repository=f"OpenGVLab/internimage_{size}_{repository}_384",
    )


_RELEASED = (
    _classifier("t", 224, "1k", 83.5),
    _classifier("s", 224, "1k", 84.2),
    _classifier("b", 224, "1k", 84.9),
    _classifier("l", 384, "22kto1k", 87.7),
    _classifier("xl", 384, "22kto1k", 88.0),
    _classifier("h", 640, "22kto1k", 89.6),
    _classifier("g", 512, "22kto1k", 90.1),
    _pretrained("l", "22k_192to384", "22k", "ImageNet-22k"),
    _pretrained("xl", "22k_192to384", "22k", "ImageNet-22k"),
    _pretrained("h", "jointto22k_384", "jointto22k", "joint 427M, ImageNet-22k"),
    _pretrained("g", "pretrainto22k_384", "jointto22k", "joint 427M, ImageNet-22k"),
    ReleasedModel(
        name="internimage_h_22ktoinat18_384",
        variant="internimage_h",
        num_classes=8142,
        image_size=384,
        pretraining="joint 427M, ImageNet-22k",
        repository=None,
        top1=92.6,
        metaformer=True,
    ),
)

RELEASED: dict[str, ReleasedModel] = {release.name: release for release in _RELEASED}
"""Every released classification checkpoint by name."""

_ALIASES = {
    release.repository.partition("/")[2]: release.name
    for release in _RELEASED
    if release.repository is not None
}


def find_release(name: str) -> ReleasedModel | None:
    """Return the release of this name or hub repository; None if there is none."""
    return RELEASED.get(_ALIASES.get(name, name))


def default_release(variant: str) -> ReleasedModel:
    """Return the first ImageNet-1k classifier of a size.

    Raises:
        ValueError: none was released.
    """
    for release in _RELEASED:
        if release.variant == variant:
            return release
    raise ValueError(f"default_release: expected a released size, got {variant!r}")


def download(name: str, *, source: Literal["safetensors", "pth"] | None = None) -> Path:
    """Download a released checkpoint into the hub's cache, or find it there; return its path.

    Args:
        name: a name of :data:`RELEASED`.
        source: the file to take; None is safetensors where a repository holds it, else ``.pth``.

    Raises:
        ValueError: the name is unknown, or there is no such file.
        ConnectionError: no network and not in the cache; the message says how to do it by hand.
        PermissionError: the hub answers, but does not give the file.
    """
    release = find_release(name)
    if release is None:
        raise ValueError(unknown_name("download", name, list(RELEASED)))
    if source is None:
        source = "pth" if release.repository is None else "safetensors"
    if source == "safetensors":
        if release.repository is None:
            raise ValueError(
                f"download: expected source = 'pth' for {release.name}, got {source!r}"
            )
        repository, file = release.repository, SAFETENSORS_FILE
    else:
        repository, file = PTH_REPOSITORY, release.pth_file

    try:
        return download_file(repository, file)
    except FileNotFoundError as error:
        other = "pth" if source == "safetensors" else "safetensors"
        raise ValueError(f"{error}; try source={other!r}") from error


def download_file(repository: str, file: str) -> Path:
    """Download one file of a repository into the hub's cache, or find it there; return its path.

    Raises:
        FileNotFoundError: the repository has no such file.
        ConnectionError: no network and not in the cache; the message says how to do it by hand.
        PermissionError: the hub answers, but does not give the file.
    """
    # Here and not on top: half a second of import that only a download needs.
    from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
    )

    url = hf_hub_url(repository, file)
    name = Path(file).stem if repository == PTH_REPOSITORY else repository.partition("/")[2]
    try:
        if not isinstance(try_to_load_from_cache(repository, file), str):
            _ask_once(url)
        return Path(hf_hub_download(repo_id=repository, filename=file))
    except LocalEntryNotFoundError as error:
        raise ConnectionError(_by_hand(name, url, error.__cause__ or error)) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(f"download: expected {file} in {repository}, got none") from error
    except HfHubHTTPError as error:
        raise PermissionError(
            f"download: expected {url} to be open to everybody, got {_first_line(error)}"
        ) from error
    except OSError as error:
        raise ConnectionError(_by_hand(name, url, error)) from error


def _ask_once(url: str) -> None:
    """Ask the hub for a file once; without a network hf_hub_download would ask for half a minute.

    Raises:
        ConnectionError: there is no way to the hub.
        HfHubHTTPError: the hub has no such file, or not for everybody.
    """
    from huggingface_hub import get_hf_file_metadata
    from huggingface_hub.errors import HfHubHTTPError

    try:
        get_hf_file_metadata(url)
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in REFUSALS:
            raise
    except Exception as error:  # of requests or httpx: it depends on huggingface_hub's version
        # What is merely slow or busy is left to hf_hub_download, which waits and asks again.
        if "timeout" not in type(error).__name__.lower():
            raise ConnectionError(_first_line(error)) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _by_hand(name: str, url: str, reason: BaseException) -> str:
    return (
        f"download: expected a network connection or {name} in the cache of huggingface_hub, got "
        f"neither ({_first_line(reason)}); by hand: fetch {url} with any browser, then give the "
        "file's path (load_checkpoint(model, PATH), or --checkpoint PATH on the command line)"
    )
