"""Images in, labels out.

Shape legend: N images, S side of the model's square image in pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from internimage.answers import Label
from internimage.checkpoint import Checkpoint, load_weights, read_checkpoint
from internimage.checkpoint_layouts import count_classes
from internimage.factory import create_model
from internimage.hub import download, find_release
from internimage.image import load_image, preprocess
from internimage.metadata import Preprocessing
from internimage.metaformer import InternImageMetaFormer, with_unknown_meta
from internimage.model import InternImage
from internimage.variants import get_variant

WHERE_WEIGHTS_COME_FROM = (
    "--checkpoint PATH for weights of your own or fetched by hand, a released name as the model "
    "(internimage list) to download its weights, or --random-weights to see the program work"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictor:
    """A model ready to classify.

    Args:
        model: in evaluation mode.
        model_name: what it is called.
        preprocessing: how its images are prepared.
        class_names: one a class, or none at all.
        weights: where the weights are from, in words.

    Raises:
        ValueError: the number of class names is neither 0 nor that of the classes.
    """

    model: InternImage
    model_name: str
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    weights: str

    def __post_init__(self) -> None:
        if self.class_names and len(self.class_names) != self.model.num_classes:
            raise ValueError(
                f"Predictor: expected {self.model.num_classes} class names, "
                f"got {len(self.class_names)}"
            )

    def prepare(self, path: str | Path) -> Tensor:
        """Read one image file as a batch of one (1, 3, S, S) on the model's device.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is no readable image.
        """
        device = next(self.model.parameters()).device
        return preprocess(load_image(path), self.preprocessing)[None].to(device)

    @torch.inference_mode()
    def classify(self, x: Tensor, topk: int = 5) -> list[list[Label]]:
        """Return the best classes of each image of a batch (N, 3, S, S), best first.

        Raises:
            ValueError: ``topk`` is less than 1.
        """
        if topk < 1:
            raise ValueError(f"Predictor.classify: expected topk >= 1, got {topk}")
        scores = _logits(self.model, x).float().softmax(dim=-1)
        if not scores.isfinite().all():
            raise ValueError(
                "Predictor.classify: expected finite scores, got NaN: the weights hold NaN or "
                "infinity, or overflow in their dtype"
            )
        best = scores.topk(min(topk, scores.shape[-1]), dim=-1)
        return [
            [
                Label(index=index, name=self.name_of(index), score=score)
                for index, score in zip(indices, values, strict=True)
            ]
            for indices, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def name_of(self, index: int) -> str | None:
        """Return the name of a class, None if the names are not known."""
        return self.class_names[index] if self.class_names else None


def build_predictor(
    model_name: str | None = None,
    checkpoint: str | Path | None = None,
    *,
    class_names: Sequence[str] = (),
    random_weights: bool = False,
    use_ema: bool = False,
    image_size: int | None = None,
    device: str = "cpu",
) -> Predictor:
    """Put a model, its weights and its preprocessing together.

    Args:
        model_name: a size or a release. None where the checkpoint says.
        checkpoint: file with the weights. None downloads those of a release.
        class_names: one a class; none takes the checkpoint's.
        random_weights: no weights: the answers mean nothing.
        use_ema: take the moving average of ``checkpoint``.
        image_size: side of the square image, pixels; None is the model's own.
        device: where the model runs.

    Raises:
        FileNotFoundError: the checkpoint does not exist.
        ConnectionError: the weights cannot be downloaded.
        ValueError: something is missing or does not fit; the message says what to give.
    """
    if random_weights and checkpoint is not None:
        raise ValueError("build_predictor: expected a checkpoint or random weights, got both")
    if use_ema and checkpoint is None:
        raise ValueError("build_predictor: expected a checkpoint beside use_ema, got none")
    saved = None if checkpoint is None else read_checkpoint(checkpoint, use_ema=use_ema)
    if model_name is None:
        if saved is None or saved.metadata is None:
            what = (
                "no model name" if saved is None else f"{checkpoint}, which does not name its model"
            )
            raise ValueError(
                f"build_predictor: expected a model name (internimage list), got {what}; "
                "give --model NAME"
            )
        model_name = saved.metadata.model_name
    release = find_release(model_name)
    weights = str(checkpoint)
    if saved is None and not random_weights:
        if release is None:
            get_variant(model_name)  # an unknown name is the error to report first
            raise ValueError(
                f"build_predictor: expected weights for {model_name}, got none; give "
                + WHERE_WEIGHTS_COME_FROM
            )
        saved, weights = read_checkpoint(download(release.name)), release.name

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # random weights are the same at every call
        model = _create_model(model_name, saved)
    if saved is None:
        weights = "random: the answers mean nothing"
    else:
        load_weights(model, saved.state_dict, origin=weights)
    metadata = None if saved is None else saved.metadata
    preprocessing = (
        metadata.preprocessing
        if metadata is not None
        else release.preprocessing
        if release is not None
        else Preprocessing(image_size=get_variant(model_name).image_size)
    )
    if image_size is not None:
        preprocessing = dataclasses.replace(preprocessing, image_size=image_size)
    return Predictor(
        model=model.eval().to(device),
        model_name=model_name,
        preprocessing=preprocessing,
        class_names=tuple(class_names) or (metadata.class_names if metadata is not None else ()),
        weights=weights,
    )


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Read class names from a text file, one a line, in the order of the classes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no text, or has no line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"read_class_names: expected an existing text file, got {path}")
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    except UnicodeDecodeError as error:
        raise ValueError(f"read_class_names: expected UTF-8 text, got {path}") from error
    names = tuple(name for name in names if name)
    if not names:
        raise ValueError(f"read_class_names: expected one name a line, got none in {path}")
    return names


def _create_model(model_name: str, saved: Checkpoint | None) -> InternImage:
    arguments = _model_arguments(model_name, saved)
    try:
        return create_model(model_name, **arguments)
    except (TypeError, ArithmeticError, RuntimeError) as error:  # kinds, overflows, allocations
        origin = "" if saved is None else " from the checkpoint"
        reason = str(error).partition("\n")[0][:200]  # PyTorch's text may hold a stack
        raise ValueError(
            f"build_predictor: expected arguments that make a {model_name}, "
            f"got {arguments}{origin} ({reason})"
        ) from error


def _model_arguments(model_name: str, saved: Checkpoint | None) -> Mapping[str, Any]:
    """Arguments of ``create_model`` that the checkpoint decides."""
    if saved is None:
        return {}
    if saved.metadata is not None:
        same = saved.metadata.model_name == model_name
        overrides = saved.metadata.overrides if same else {}
        return {**overrides, "num_classes": saved.metadata.num_classes}
    num_classes = count_classes(saved.state_dict)
    if find_release(model_name) is not None or num_classes is None:
        return {}
    # A bare size says nothing of the classes; the checkpoint's last layer does.
    return {"num_classes": num_classes}


def _logits(model: InternImage, x: Tensor) -> Tensor:
    if isinstance(model, InternImageMetaFormer):
        logits = model(with_unknown_meta(x))
    else:
        logits = model(x)
    assert isinstance(logits, Tensor)  # predictors are made with a head
    return logits
