"""Classifiers as a codebase of mmdeploy's, beside its own for mmdet and mmseg.

mmdeploy's classification is for the models of mmpretrain, which ours are not. Importing this module
registers ``codebase_config = dict(type="internimage", task="Classification")``; mmdeploy has to be
there before (:func:`~.mmdeploy_adapter.import_mmdeploy`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from mmdeploy.codebase.base import CODEBASE, BaseBackendModel, BaseTask, MMCodebase
from mmdeploy.utils import Task, get_backend
from mmdeploy.utils.config_utils import register_codebase
from mmengine.registry import Registry
from PIL import Image
from torch import Tensor

from internimage.image import preprocess
from internimage.metadata import Preprocessing

NAME = "internimage"
TOPK = 5  # classes that mmdeploy's SDK answers

TASKS = Registry("internimage_tasks")

# Enlarges mmdeploy's enumeration of codebases, of which a deploy config names one.
register_codebase(NAME)


@CODEBASE.register_module(NAME)
class InternImageCodebase(MMCodebase):
    """The codebase: nothing of it is rewritten."""

    task_registry = TASKS

    @classmethod
    def register_deploy_modules(cls) -> None:
        """Nothing to do."""

    @classmethod
    def register_all_modules(cls) -> None:
        """Nothing to do."""


@TASKS.register_module(Task.CLASSIFICATION.value)
class Classification(BaseTask):
    """A classifier: images in, logits out.

    Args:
        model_cfg: with ``model.type``, the model's name, ``preprocessing``, and ``crop``: whether
            the middle of an image is cut out; else the whole is squeezed.
        deploy_cfg: the deploy config.
        device: where PyTorch runs.
    """

    def __init__(self, model_cfg: Any, deploy_cfg: Any, device: str) -> None:
        super().__init__(model_cfg, deploy_cfg, device)
        self.preprocessing = Preprocessing(**model_cfg.preprocessing)
        self.crop = bool(model_cfg.crop)

    def build_backend_model(self, model_files: Sequence[str], *_: Any, **__: Any) -> Any:
        """Return a function from inputs (N, 3, H, W) to logits (N, classes)."""
        onnx = self.deploy_cfg.onnx_config
        # mmdeploy's own codebases subclass BaseBackendModel and call this from there.
        wrapper = BaseBackendModel._build_wrapper(
            backend=get_backend(self.deploy_cfg),
            backend_files=list(model_files),
            device=self.device,
            input_names=list(onnx.input_names),
            output_names=list(onnx.output_names),
            deploy_cfg=self.deploy_cfg,
        )
        return lambda inputs: wrapper({onnx.input_names[0]: inputs})[onnx.output_names[0]]

    def create_input(
        self, images: Sequence[Image.Image], *_: Any, **__: Any
    ) -> tuple[dict[str, Any], Tensor]:
        """Return no metadata, and inputs (N, 3, S, S) of images of any size."""
        inputs = torch.stack([self._prepare(image) for image in images])
        return {}, inputs.to(self.device)

    def _prepare(self, image: Image.Image) -> Tensor:
        """Return the input (3, S, S) of an RGB image."""
        given = self.preprocessing
        if not self.crop:
            side = given.image_size
            image = image.resize((side, side), Image.Resampling[given.interpolation.upper()])
            # Of an image of this size, without a margin to be cut off, all is left as it is.
            given = dataclasses.replace(given, crop_ratio=1.0)
        return preprocess(image, given)

    @staticmethod
    def get_partition_cfg(partition_type: str, **_: Any) -> dict[str, Any]:
        """Refuse: the model is one part."""
        raise NotImplementedError(f"expected no partition, got {partition_type}")

    def get_preprocess(self, *_: Any, **__: Any) -> list[dict[str, Any]]:
        """Return the preparation of images in the words of mmdeploy's SDK."""
        # The keys are those that mmdeploy writes for mmpretrain's classifiers.
        given = self.preprocessing
        size = given.image_size
        resize: dict[str, Any] = dict(type="Resize", interpolation=given.interpolation)
        if self.crop:
            # -1: the size is that of the shorter side.
            resize |= dict(size=(round(size / given.crop_ratio), -1), keep_ratio=True)
        else:
            resize |= dict(size=(size, size), keep_ratio=False)
        return [
            dict(type="LoadImageFromFile"),
            resize,
            *([dict(type="CenterCrop", crop_size=(size, size))] if self.crop else []),
            dict(
                type="Normalize",
                mean=[255 * value for value in given.mean],  # the SDK's pixels are 0-255
                std=[255 * value for value in given.std],
                to_rgb=True,
            ),
            dict(type="ImageToTensor", keys=["img"]),
            dict(type="Collect", keys=["img"], meta_keys=["ori_shape", "img_shape"]),
        ]

    def get_postprocess(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Return what the SDK does with the logits."""
        return dict(type="LinearClsHead", params=dict(topk=TOPK))

    def get_model_name(self, *_: Any, **__: Any) -> str:
        """Return the model's name."""
        return str(self.model_cfg.model.type)
