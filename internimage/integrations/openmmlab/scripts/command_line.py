"""How a script of detection or segmentation ends: its mistakes as one line, its exit code."""

from __future__ import annotations

import gc
import logging
import re
import sys
import warnings
from collections.abc import Callable

import torch.distributed as dist
from mmengine.logging import MMLogger

from internimage.script import MISTAKES
from internimage.script import run_script as run_any_script

MEMORY_ADVICE = (
    "a smaller train_dataloader.batch_size, model.backbone.with_cp=True or --amp need less"
)

# What a registry says when a config has a wrong argument, and what asserts of mmcv, mmdet and
# pycocotools say about files: no type of error tells these from a fault of the program.
# Their words are those of mmengine 0.10, mmdet 3 and mmseg 1: another wording is no error here, but
# ends in a traceback where there was a line.
_CONFIG = re.compile(
    r"class `|is not in the .*registry|__init__\(\) (got an unexpected|missing)|should be one of",
    re.DOTALL,
)
_FILE = re.compile(r"failed to load image|Results do not correspond", re.DOTALL)

# What is said of images that do not make a batch, and what to do about it.
_SIZES = {
    "The image size in a batch should be the same": (
        "expected images of one size in a batch of an evaluation, got several sizes; "
        "val_dataloader.batch_size=1 and test_dataloader.batch_size=1 in --cfg-options take one "
        "at a time"
    ),
    "stack expects each tensor to be equal size": (
        "expected images of one size in a batch, got several sizes beyond "
        "model.data_preprocessor.size; a RandomCrop of that size in train_pipeline cuts them"
    ),
}


def run_script(
    name: str, script: Callable[[], None], *, hint: Callable[[], str] = lambda: ""
) -> int:
    """Run a script on this rank and return its exit code.

    Args:
        name: The script's name.
        script: All of its work. What it builds is out of use when it returns.
        hint: What follows the line about a mistake or a stop.
    """
    # Each line can go when its library no longer says it.
    # mmdet says so at every start: its metric of this name is one of several, and not used here.
    warnings.filterwarnings("ignore", message="faster_coco_eval is not installed")
    # mmseg advises at every start against its own default of a loss.
    warnings.filterwarnings("ignore", message="Default ``avg_non_ignore`` is False")
    # mmdet's pixel decoder calls it in the way of before.
    warnings.filterwarnings("ignore", message="torch.meshgrid: in an upcoming release")
    # mmengine's wrapper of models says it in the way of PyTorch before 2.13.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")

    def work() -> None:
        try:
            script()
        except Exception as error:
            reason = _mistake_in(error)
            if reason is None:
                raise
            raise ValueError(reason) from error
        if dist.is_initialized():
            gc.collect()  # a wrapper of the model holds the group as well
            dist.destroy_process_group()

    return run_any_script(
        name,
        work,
        memory_advice=MEMORY_ADVICE,
        hint=hint,
        log=_log,
    )


def _mistake_in(error: Exception) -> str | None:
    """Return the line about a mistake in a config or a file, None for another error."""
    text = str(error).strip()
    for words, line in _SIZES.items():
        if words in text:
            return line
    from_worker = "Original Traceback" in text  # a loader's worker says where in its program it was
    is_known = _CONFIG.search(text) or _FILE.search(text)
    if not is_known and not (from_worker and isinstance(error, MISTAKES)):
        return None
    # Of a worker's traceback the last line is "ValueError: ...".
    return text.splitlines()[-1].partition(": ")[2] if from_worker else text


def _log(text: str, is_error: bool) -> None:
    """Write to the log file of the run, if there is one yet, with where an error came from."""
    logger = MMLogger.get_current_instance()
    level = logging.ERROR if is_error else logging.WARNING
    origin = sys.exc_info() if is_error else None
    record = logger.makeRecord(logger.name, level, __file__, 0, text, (), origin)
    # The line itself goes to stderr: the logger's other handler would write it a second time.
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
