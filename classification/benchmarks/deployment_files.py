"""The files that ``bench_deployment.py`` measures, and the operator's layers one by one."""

import statistics
import time
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

import internimage
from internimage.export import ExportOptions, ExportReport, ModelMetadata, export_onnx
from internimage.export.half import to_half
from internimage.variants import get_variant
from ops_dcnv3 import onnx as forms
from ops_dcnv3.onnxruntime import session_options
from ops_dcnv3.ops import dcnv3_packed
from ops_dcnv3.reference import Geometry

Precision = Literal["fp32", "fp16"]
TOLERANCES: dict[Precision, float] = {"fp32": 1e-5, "fp16": 2e-3}


def write_files(
    name: str, size: int | None, folder: Path, *, aot: bool
) -> tuple[int, dict[str, ExportReport]]:
    """Writes weights, input, PyTorch's output and all forms of a model with random weights.

    Args:
        name: of the model.
        size: of the image, pixels; None: the model's own.
        folder: for the files.
        aot: whether to compile it with AOTInductor too, which takes minutes.

    Returns:
        The image's size, pixels, and the reports of the exports.
    """
    torch.manual_seed(0)
    model = internimage.create_model(name).eval()
    side = size or get_variant(name).image_size
    image = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        expected = model(image)
    np.save(folder / "input.npy", image.numpy())
    np.save(folder / "expected.npy", expected.numpy())
    torch.save({"name": name, "weights": model.state_dict()}, folder / "model.pt")
    reports = write_forms(model, {"input": image}, folder)
    reports["half"] = write_file(model, {"input": image}, folder / "half.onnx", precision="fp16")
    if aot:
        with torch.no_grad():
            program = torch.export.export(model, (image,))
        torch._inductor.aoti_compile_and_package(program, package_path=str(folder / "model.pt2"))
    return side, reports


def write_forms(
    model: nn.Module, example: dict[str, Tensor], folder: Path, prefix: str = ""
) -> dict[str, ExportReport]:
    """Exports a model in every form of the operator."""
    return {
        form: write_file(model, example, folder / f"{prefix}{form}.onnx", operator=form)
        for form in get_args(forms.Form)
    }


def write_file(
    model: nn.Module,
    example: dict[str, Tensor],
    path: Path,
    *,
    operator: forms.Form = "grid_sample",
    precision: Precision = "fp32",
) -> ExportReport:
    """Exports a model for inputs of one size."""
    metadata = ModelMetadata(
        task="classification",
        model="benchmark",
        classes=[],
        mean=[0.0] * 3,
        std=[1.0] * 3,
        resize={"mode": "exact", "size": [1, 1], "filter": "bilinear"},
    )
    return export_onnx(
        to_half(model) if precision == "fp16" else model,
        example,
        path,
        output_names=["output"],
        dynamic_axes={},
        options=ExportOptions(operator=operator, precision=precision),
        metadata=metadata,
        tolerance=TOLERANCES[precision],
        reference=model,
    )


class Layer(nn.Module):
    """The operator alone, as the model calls it.

    Args:
        groups: of its channels.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.geometry = Geometry(3, 3, 1, 1, 1, 1, 1, 1, groups, 1.0, False)

    def forward(self, input: Tensor, offset_mask: Tensor) -> Tensor:
        """Returns the samples, (N, H, W, C)."""
        return dcnv3_packed(input, offset_mask, self.geometry, True)


def time_layers(
    name: str, size: int, folder: Path, threads: int, rounds: int
) -> list[dict[str, Any]]:
    """Returns the seconds of a layer of every stage in both forms, which take turns.

    Args:
        name: of the model.
        size: of its image, pixels.
        folder: for the files.
        threads: of each session.
        rounds: times ten passes of each form.
    """
    import onnxruntime

    variant = get_variant(name)
    results = []
    for stage, groups in enumerate(variant.groups):
        side, channels = size // 4 // 2**stage, variant.channels * 2**stage
        example = {
            "input": torch.randn(1, side, side, channels),
            "offset_mask": torch.randn(1, side, side, groups * 9 * 3),
        }
        write_forms(Layer(groups).eval(), example, folder, f"stage{stage}_")
        feed = {key: value.numpy() for key, value in example.items()}
        sessions = {}
        for form in get_args(forms.Form):
            options = session_options(num_threads=threads)
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            path = folder / f"stage{stage}_{form}.onnx"
            sessions[form] = onnxruntime.InferenceSession(path, options)
        seconds: dict[str, list[float]] = {form: [] for form in sessions}
        for _ in range(10 * rounds):
            for form, session in sessions.items():
                started = time.perf_counter()
                session.run(None, feed)
                seconds[form].append(time.perf_counter() - started)
        ratios = [a / b for a, b in zip(seconds["grid_sample"], seconds["node"], strict=True)]
        results.append(
            {form: statistics.median(values) for form, values in seconds.items()}
            | {
                "layer": f"1 x {side} x {side} x {channels}, {groups}",
                "ratio": statistics.median(ratios),
            }
        )
    return results
