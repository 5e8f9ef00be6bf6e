"""deploy.py of detection and segmentation: the exact export, or the conversion by mmdeploy."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from internimage.export import ExportReport
from internimage.integrations.openmmlab.export.deploy_arguments import (
    SEGMENTATION,
    ConversionRequest,
    ExportRequest,
    parse_deploy,
)
from internimage.integrations.openmmlab.scripts.command_line import run_script
from internimage.integrations.openmmlab.scripts.config_file import check_task, read_config
from internimage.integrations.openmmlab.scripts.safe_loading import find_file


def main(name: str, configs: Path, arguments: Sequence[str] | None = None) -> int:
    """Run the command line of a deploy.py; return the exit code.

    Args:
        name: The script's name.
        configs: The folder of the task's configs, whose parent is the task's folder.
        arguments: The command line; None is the process's own.
    """

    def script() -> None:
        # The task's name is its folder's.
        request = parse_deploy(name, arguments, task=configs.parent.name)
        if isinstance(request, ExportRequest):
            export(request, configs)
        else:
            convert(request, configs)

    return run_script(name, script)


def export(request: ExportRequest, configs: Path) -> None:
    """Export exactly, and print how far the file is from PyTorch.

    Raises:
        ValueError: The config, the checkpoint or the options do not fit.
        OSError: A file is missing, or the output cannot be written.
    """
    # Packages print what is no part of the report, which programs may read.
    with contextlib.redirect_stdout(sys.stderr):
        report = _export(request, configs)
    print(report)


def _export(request: ExportRequest, configs: Path) -> ExportReport:
    config = read_config(request.model_config, request.cfg_options, configs=configs)
    check_task(config, configs)
    find_file(request.checkpoint)  # for its error, before anything is built
    if configs.parent.name == SEGMENTATION:
        from internimage.integrations.openmmlab.export.segmentor import export_segmentor

        return export_segmentor(
            config,
            request.checkpoint,
            request.output,
            request.options,
            argmax=request.argmax,
            keep=request.keep,
        )
    from internimage.integrations.openmmlab.export.detector import export_detector

    return export_detector(
        config, request.checkpoint, request.output, request.options, keep=request.keep
    )


def convert(request: ConversionRequest, configs: Path) -> None:
    """Convert by mmdeploy.

    Raises:
        ValueError: A config, the checkpoint or an image does not fit.
        OSError: A file is missing, or the folder cannot be written.
        ImportError: mmdeploy is not installed.
    """
    from internimage.integrations.openmmlab.export.conversion import convert

    convert(request, configs)
