"""The flags of the scripts and the settings that they are short for.

Later sources win: the YAML file, a JSON file of DeepSpeed, accelerate's launcher, the flags,
``--opts``. A flag that is not given changes nothing. The original's spellings are here; every flag
may be written with ``_`` for ``-`` as well.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from yacs.config import CfgNode

from classification.config import get_config, merge_config
from classification.launch.accelerate_launch import asks_for_cpu, launcher_options
from classification.launch.command_line import Parser
from classification.strategies.deepspeed_json import json_options
from internimage.downloads import download, is_url
from internimage.slurm import name_ranks


class Flag(NamedTuple):
    """A flag that sets one key.

    Args:
        name: As it is typed.
        key: The setting.
        metavar: Name of its value in the help; "" where it has none.
        help: The help.
        value: What it sets without a value of its own.
    """

    name: str
    key: str
    metavar: str
    help: str
    value: str = "True"


FLAGS = (
    Flag("--batch-size", "DATA.BATCH_SIZE", "N", "images a rank"),
    Flag("--dataset", "DATA.DATASET", "NAME", "data set; folder is one of your own"),
    Flag("--data-path", "DATA.DATA_PATH", "DIR", "where it is"),
    Flag("--zip", "DATA.ZIP_MODE", "", "it is stored as zip archives"),
    Flag("--cache-mode", "DATA.CACHE_MODE", "MODE", "with DATA.IMG_ON_MEMORY: no, part or full"),
    Flag("--pretrained", "MODEL.PRETRAINED", "WEIGHTS", "start from a file or a released name"),
    Flag("--resume", "MODEL.RESUME", "PTH", "go on from a ckpt_*.pth"),
    Flag("--accumulation-steps", "TRAIN.ACCUMULATION_STEPS", "N", "batches a step"),
    Flag("--use-checkpoint", "TRAIN.USE_CHECKPOINT", "", "recompute blocks: less memory"),
    Flag("--amp-opt-level", "AMP_OPT_LEVEL", "LEVEL", "O0: float32; O1, O2: AMP_TYPE"),
    Flag("--output", "OUTPUT", "DIR", "the run's folder is DIR/NAME of the YAML"),
    Flag("--tag", "TAG", "TAG", "the run's folder is DIR/NAME/TAG"),
    Flag("--eval", "EVAL_MODE", "", "evaluate --resume or --pretrained and stop"),
    Flag("--throughput", "THROUGHPUT_MODE", "", "measure images a second and stop"),
    Flag("--save-ckpt-num", "SAVE_CKPT_NUM", "N", "checkpoints kept beside the best"),
    Flag("--strategy", "TRAIN.STRATEGY", "NAME", "ddp, fsdp or deepspeed"),
    Flag("--use-zero", "TRAIN.OPTIMIZER.USE_ZERO", "", "ddp: share the optimiser's states"),
    Flag("--zero-stage", "TRAIN.ZERO_STAGE", "N", "deepspeed: 1, 2 or 3"),
    Flag("--offload-optimizer", "TRAIN.OFFLOAD_OPTIMIZER", "WHERE", "deepspeed: cpu or none"),
    Flag("--offload-param", "TRAIN.OFFLOAD_PARAM", "WHERE", "fsdp, deepspeed 3: cpu or none"),
    Flag("--disable-grad-scalar", "TRAIN.GRAD_SCALER", "", "float16 without loss scaling", "False"),
    Flag("--logger", "LOGGER", "NAME", "tensorboard, wandb or none"),
)


class SettingsParser(Parser):
    """A parser with the flags above, ``--cfg``, ``--opts`` and ``--local-rank``.

    Args:
        name: The script's name.
        description: What it does, a sentence.
    """

    def __init__(self, name: str, description: str) -> None:
        super().__init__(name, description)
        for flag in FLAGS:
            text = f"{flag.help}: {flag.key}"
            if flag.metavar:
                self.add_argument(flag.name, dest=flag.key, metavar=flag.metavar, help=text)
            else:
                self.add_argument(
                    flag.name, dest=flag.key, action="store_const", const=flag.value, help=text
                )
        self.add_argument(
            "--local-rank",
            metavar="N",
            help="device of this process, where the environment has no LOCAL_RANK",
        )

    def parse_settings(
        self, arguments: Sequence[str] | None = None
    ) -> tuple[CfgNode, argparse.Namespace]:
        """Parses the command line into settings and what it says besides.

        Raises:
            ValueError: A flag, a file, a key or a value is wrong.
            ConnectionError: A checkpoint is an address, and there is no way to it.
        """
        typed = sys.argv[1:] if arguments is None else arguments
        args = self.parse_known([self._as_registered(text) for text in typed])
        name_ranks(os.environ)
        _take_local_rank(args.local_rank)
        launcher = launcher_options(os.environ)
        if asks_for_cpu(os.environ):
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # read at the first use of CUDA, still to come
        given = {
            flag.key: getattr(args, flag.key)
            for flag in FLAGS
            if getattr(args, flag.key) is not None
        }
        implied = _implied(launcher | given)
        options = [*_as_list(launcher | implied | given), *args.opts]
        draft = merge_config(args.cfg, options)
        for key, source in (
            ("MODEL.RESUME", draft.MODEL.RESUME),
            ("MODEL.PRETRAINED", draft.MODEL.PRETRAINED),
        ):
            if is_url(source):
                options += [key, str(download(source))]
        if draft.TRAIN.STRATEGY == "deepspeed" and draft.TRAIN.DEEPSPEED_CONFIG:
            options = [*_as_list(json_options(draft.TRAIN.DEEPSPEED_CONFIG)), *options]
        config = get_config(args.cfg, options)
        _check_flags(given, config)
        if launcher and os.environ.get("RANK", "0") == "0":
            said = ", ".join(f"{key} {value}" for key, value in launcher.items())
            print(f"{self.prog}: accelerate's launcher says {said}; flags and --opts win")
        return config, args

    def _as_registered(self, text: str) -> str:
        """Returns a flag that is typed with ``_`` for ``-``, or the other way round, as it is."""
        name, equals, value = text.partition("=")
        names = {known.replace("_", "-"): known for known in self._option_string_actions}
        return names.get(name.replace("_", "-"), name) + equals + value


def parse_arguments(arguments: Sequence[str] | None = None) -> tuple[CfgNode, bool]:
    """Returns the settings that train.py's command line describes, and whether to overwrite.

    Raises:
        ValueError: A flag, a file, a key or a value is wrong.
    """
    parser = SettingsParser("train.py", "Trains a classifier under torchrun.")
    parser.add_argument(
        "--overwrite", action="store_true", help="remove the files of a run in the folder"
    )
    config, args = parser.parse_settings(arguments)
    return config, args.overwrite


def _take_local_rank(text: str | None) -> None:
    """Lets ``--local-rank`` stand in for LOCAL_RANK: launchers before torchrun pass only that."""
    if text is None:
        return
    if not text.isdecimal():
        raise ValueError(f"expected --local-rank an integer >= 0, got {text}")
    os.environ.setdefault("LOCAL_RANK", text)


def _implied(chosen: dict[str, str]) -> dict[str, str]:
    """Returns what the flags and the launcher say about other settings of the YAML file.

    fsdp and deepspeed share the optimiser's states anyway: a recipe with USE_ZERO, which is ddp's
    way to do so, takes ``--strategy`` without a second flag.
    """
    shares_states = chosen.get("TRAIN.STRATEGY", "ddp").lower() != "ddp"
    return {"TRAIN.OPTIMIZER.USE_ZERO": "False"} if shares_states else {}


def _check_flags(given: dict[str, str], config: CfgNode) -> None:
    """Refuses a flag that has no effect beside the others."""
    if "TRAIN.ZERO_STAGE" in given and config.TRAIN.STRATEGY != "deepspeed":
        raise ValueError(
            f"expected --strategy deepspeed beside --zero-stage, got {config.TRAIN.STRATEGY}"
        )


def _as_list(options: dict[str, str]) -> list[str]:
    return [text for pair in options.items() for text in pair]
