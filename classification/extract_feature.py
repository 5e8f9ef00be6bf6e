r"""Saves what modules of a model put out for one image, and draws it.

    python classification/extract_feature.py --cfg classification/configs/NAME.yaml \
        --img photo.jpg --resume model.safetensors --keys levels.0 levels.2.blocks.3.dcn --save

leaves photo.safetensors, a tensor a key (``key#0``, ``key#1``, ... where a module has several), and
photo_pca.png, the first three principal components of each map as red, green and blue.
``--list-keys`` prints all keys and needs no image.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from classification.launch.startup import exit_on_ctrl_c

if __name__ == "__main__":
    exit_on_ctrl_c("extract_feature.py")

from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor
from yacs.config import CfgNode

from classification.data.transforms import build_preprocessing
from classification.distributed import start_ranks
from classification.feature_maps import draw_feature_maps, extract_features, list_keys
from classification.inference import build_saved_model
from classification.launch.arguments import SettingsParser
from classification.launch.command_line import run_script
from classification.models import build_model
from internimage import InternImage, InternImageMetaFormer, save_checkpoint
from internimage.heads import NUM_CLASSES
from internimage.image import load_image, normalize, resize_and_crop
from internimage.metaformer import with_unknown_meta
from internimage.processes import leave

NAME = "extract_feature.py"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = SettingsParser(NAME, "Saves what modules put out for an image.")
    parser.add_argument("--img", metavar="FILE", help="the image")
    parser.add_argument("--keys", nargs="+", default=[], metavar="KEY", help="names of modules")
    parser.add_argument("--list-keys", action="store_true", help="print all names and stop")
    parser.add_argument("--use-ema", action="store_true", help="the averaged ones of a ckpt_*.pth")
    parser.add_argument(
        "--save",
        nargs="?",
        const="",
        metavar="FILE",
        help="write FILE.safetensors and FILE_pca.png; without FILE beside the image",
    )

    def script() -> None:
        config, args = parser.parse_settings(arguments)
        if args.list_keys:
            num_classes = config.MODEL.NUM_CLASSES or NUM_CLASSES
            print(*list_keys(build_model(config, num_classes=num_classes)), sep="\n")
            return
        if args.img is None or not args.keys:
            raise ValueError("expected --img FILE and --keys KEY ..., or --list-keys, got neither")
        model = _build(config, use_ema=args.use_ema)
        device = start_ranks().device
        preprocessing = build_preprocessing(config)
        pixels = pil_to_tensor(resize_and_crop(load_image(args.img), preprocessing))  # (3, S, S)
        images = normalize(pixels, preprocessing.mean, preprocessing.std)[None].to(device)
        is_meta = isinstance(model, InternImageMetaFormer)
        inputs = with_unknown_meta(images) if is_meta else images
        features = extract_features(model.to(device), inputs, args.keys)
        for key, tensor in features.items():
            print(f"{key}  {tuple(tensor.shape)}  {tensor.dtype}")
        if args.save is None:
            return
        target = Path(args.save or args.img).with_suffix(".safetensors")
        if not target.parent.is_dir():
            raise ValueError(f"expected --save in an existing folder, got {target.parent}")
        try:
            _save(target, pixels, features)
        except OSError as error:
            reason = error.strerror or error
            raise OSError(
                f"expected --save in a writable folder, got {target}: {reason}"
            ) from error

    return run_script(NAME, script)


def _save(target: Path, pixels: Tensor, features: dict[str, Tensor]) -> None:
    save_checkpoint(features, target)
    print(target)
    if any(tensor.ndim == 4 for tensor in features.values()):
        picture = target.with_name(f"{target.stem}_pca.png")
        draw_feature_maps(picture, pixels, features)
        print(picture)


def _build(config: CfgNode, *, use_ema: bool) -> InternImage:
    """Builds the model with MODEL.RESUME's or MODEL.PRETRAINED's weights and classes."""
    saved = build_saved_model(config, use_ema=use_ema)
    if saved.weights is None:
        print(f"{NAME}: no --resume: the weights are random, the features mean nothing")
    else:
        print(saved.weights)
    return saved.model


if __name__ == "__main__":
    leave(main())
