"""The command lines of train.py, test.py and get_flops.py, with the original's spellings.

What an old spelling means is said once, in a warning; what has no meaning any more is refused with
what to use. Every flag may be written with ``_`` for ``-``.
"""

from __future__ import annotations

import argparse
import ast
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from mmengine.config import DictAction

from internimage.script import Parser

LAUNCHERS = ("none", "pytorch", "slurm", "mpi")

CfgOptions = dict[str, Any]


class ScriptParser(Parser):
    """The flags that all scripts have.

    Args:
        name: The script's name.
        description: What it does, a sentence.
    """

    def __init__(self, name: str, description: str) -> None:
        super().__init__(name, description)
        # Optional for argparse: parse_all says in the scripts' own words that it is missing.
        self.add_argument("config", nargs="?", metavar="CONFIG", help="a config file")
        self.add_argument(
            "--cfg-options",
            nargs="+",
            action=KeyValues,
            default={},
            metavar="KEY=VALUE",
            help="settings that override the config's: model.backbone.with_cp=True",
        )

    def add_run_flags(self) -> None:
        """Add the flags of scripts that run under a launcher and leave files."""
        self.add_argument("--work-dir", metavar="DIR", help="folder for what the run leaves")
        self.add_argument(
            "--launcher",
            choices=LAUNCHERS,
            help="who started the ranks; under torchrun it need not be given",
        )
        self.add_argument(
            "--local-rank",
            type=int,
            metavar="N",
            help="device of this process, where the environment has no LOCAL_RANK",
        )
        self.add_argument("--gpu-ids", type=int, nargs="+", metavar="N", help="the GPU to use")
        self.add_argument("--gpu-id", type=int, metavar="N", help="the same")
        self.add_argument("--gpus", type=int, metavar="N", help="old: the number of GPUs")

    def parse_all(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Parse the command line.

        Raises:
            ValueError: A flag is unknown, lacks its value, or has a wrong one, or there is no
                CONFIG.
        """
        typed = sys.argv[1:] if arguments is None else arguments
        parsed = self.parse_known([self._as_registered(text) for text in typed])
        if parsed.config is None:
            raise ValueError("expected CONFIG, a config file, got none")
        return parsed

    def _as_registered(self, text: str) -> str:
        """Return a flag that is typed with ``_`` for ``-``, or the other way round, as it is."""
        if not text.startswith("--"):
            return text
        name, equals, value = text.partition("=")
        # The value behind "=" stays as it was typed: it may be a path with "_".
        names = {known.replace("_", "-"): known for known in self._option_string_actions}
        return names.get(name.replace("_", "-"), name) + equals + value


class _WithDicts(ast.NodeTransformer):
    """Writes ``dict(a=1)``, as configs do, in the way of literals."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        is_dict = isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args
        if not is_dict or any(keyword.arg is None for keyword in node.keywords):
            return node  # dict(**other) among them: literal_eval refuses what is no literal
        keys: list[ast.expr | None] = [ast.Constant(keyword.arg) for keyword in node.keywords]
        return ast.Dict(keys, [keyword.value for keyword in node.keywords])


class KeyValues(DictAction):
    """KEY=VALUE pairs; a value in brackets or quotes may hold spaces."""

    # mmengine's own splits at "=" without a look, so that a pair without one is a bare ValueError,
    # and takes every space out of a value.
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Add the pairs to those before."""
        options = dict(getattr(namespace, self.dest) or {})
        for text in values:
            key, equals, value = text.partition("=")
            if not equals or not key:
                parser.error(f"expected KEY=VALUE behind {option_string}, got {text}")
            options[key] = self._to_value(parser, key, value)
        setattr(namespace, self.dest, options)

    def _to_value(self, parser: argparse.ArgumentParser, key: str, text: str) -> Any:
        if text.startswith(("(", "[", "{", "'", '"', "dict(")):
            try:
                return ast.literal_eval(_WithDicts().visit(ast.parse(text, mode="eval")))
            except (ValueError, SyntaxError):
                pass  # words without quotes, [a,b], are mmengine's own form
        if " " in text and not set(text) & set("[](),"):
            return text  # a sentence, or a path: mmengine's own would take its spaces out
        try:
            return self._parse_iterable(text)
        except (AssertionError, RecursionError):  # mmengine asserts that brackets are in pairs
            parser.error(f"expected brackets in pairs and texts in quotes, got {key}={text}")


def parse_train(name: str, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line of a train.py says.

    Raises:
        ValueError: A flag is unknown, lacks its value, contradicts another or means nothing here.
    """
    parser = ScriptParser(name, "Trains the model of a config.")
    parser.add_run_flags()
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="PTH",
        help="go on from a checkpoint; without one from the newest of the work dir",
    )
    parser.add_argument("--load-from", metavar="WEIGHTS", help="start from a model: a file or name")
    parser.add_argument("--no-validate", action="store_true", help="train without evaluating")
    parser.add_argument("--seed", type=int, metavar="N", help="of all random numbers")
    parser.add_argument("--diff-seed", action="store_true", help="another seed for each rank")
    parser.add_argument("--deterministic", action="store_true", help="only repeatable kernels")
    parser.add_argument("--auto-scale-lr", action="store_true", help="rate for the real batch size")
    parser.add_argument("--amp", action="store_true", help="float16 on a GPU, bfloat16 on a CPU")
    parser.add_argument("--resume-from", metavar="PTH", help="old: --resume PTH")
    parser.add_argument("--auto-resume", action="store_true", help="old: --resume")
    parser.add_argument("--options", nargs="+", action=KeyValues, help="old: --cfg-options")
    args = parser.parse_all(arguments)
    _take_old_options(args, "cfg_options")
    if args.resume_from is not None:
        _take_old(args, "resume", "--resume-from", f"--resume {args.resume_from}", args.resume_from)
    if args.auto_resume:
        _take_old(args, "resume", "--auto-resume", "--resume", "auto")
    if args.resume not in (None, "auto") and args.load_from is not None:
        raise ValueError(
            f"expected one of --resume and --load-from, got {args.resume} and {args.load_from}; "
            "the first goes on with a run, the second starts a new one from weights"
        )
    _take_gpus(args)
    return args


def parse_test(name: str, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line of a test.py says.

    Raises:
        ValueError: A flag is unknown, lacks its value, contradicts another or means nothing here.
    """
    parser = ScriptParser(name, "Evaluates a checkpoint.")
    parser.add_run_flags()
    parser.add_argument("weights", nargs="?", metavar="CHECKPOINT", help="a file or released name")
    parser.add_argument("--checkpoint", metavar="CHECKPOINT", help="the same")
    parser.add_argument("--out", metavar="PKL", help="write all predictions to this file")
    parser.add_argument("--fuse-conv-bn", action="store_true", help="merge batch norms: faster")
    parser.add_argument(
        "--format-only", action="store_true", help="write files for a server, compute no score"
    )
    parser.add_argument(
        "--eval", nargs="+", metavar="METRIC", help="bbox, segm, mIoU, cityscapes, ..."
    )
    parser.add_argument("--show", action="store_true", help="show predictions in a window")
    parser.add_argument("--show-dir", metavar="DIR", help="draw predictions into this folder")
    parser.add_argument("--show-score-thr", type=float, metavar="X", help="boxes to draw (0.3)")
    parser.add_argument("--opacity", type=float, metavar="X", help="label maps to draw (0.5)")
    parser.add_argument("--gpu-collect", action="store_true", help="gather results over GPUs")
    parser.add_argument("--tmpdir", metavar="DIR", help="folder that all ranks see, for results")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation of the config")
    parser.add_argument("--aug-test", action="store_true", help="old: --tta")
    parser.add_argument(
        "--eval-options",
        nargs="+",
        action=KeyValues,
        default={},
        metavar="KEY=VALUE",
        help="arguments of the metric: classwise=True",
    )
    parser.add_argument("--options", nargs="+", action=KeyValues, help="old: --eval-options")
    parser.add_argument("--dir-name", metavar="X", help="old: no effect")
    args = parser.parse_all(arguments)
    _take_old_options(args, "eval_options")
    if args.aug_test:
        _take_old(args, "tta", "--aug-test", "--tta", True)
    if (args.weights is None) == (args.checkpoint is None):
        given = "none" if args.weights is None else f"{args.weights} and {args.checkpoint}"
        raise ValueError(f"expected one CHECKPOINT behind CONFIG, got {given}")
    args.checkpoint = args.checkpoint or args.weights
    for flag in ("show_score_thr", "opacity"):
        if getattr(args, flag) is not None and not (args.show or args.show_dir):
            typed = flag.replace("_", "-")
            warnings.warn(f"--{typed} has no effect without --show or --show-dir", stacklevel=2)
    if args.opacity is not None and not 0 <= args.opacity <= 1:
        raise ValueError(f"expected --opacity from 0 to 1, got {args.opacity}")
    if args.dir_name is not None:
        warnings.warn(
            "--dir-name has no effect, nor had it ever one; --work-dir, --show-dir and --out say "
            "where files go",
            stacklevel=2,
        )
    if args.format_only and args.eval:
        raise ValueError(
            f"expected one of --format-only, which computes no score, and --eval, got both "
            f"({' '.join(args.eval)})"
        )
    if args.gpu_collect and args.tmpdir:
        raise ValueError(f"expected one of --gpu-collect and --tmpdir, got both ({args.tmpdir})")
    _take_gpus(args)
    return args


def parse_flops(
    name: str,
    arguments: Sequence[str] | None = None,
    *,
    shape: tuple[int, int] = (800, 1280),  # of the published FLOPs on COCO
) -> argparse.Namespace:
    """Return what the command line of a get_flops.py says, ``shape`` as (height, width).

    Args:
        name: The script's name.
        arguments: The command line; None is the process's own.
        shape: What ``--shape`` is where it is not given.

    Raises:
        ValueError: A flag is unknown, lacks its value, or has a wrong one.
    """
    parser = ScriptParser(name, "Counts parameters and operations of the model of a config.")
    parser.add_argument(
        "--shape",
        type=int,
        nargs="+",
        default=list(shape),
        metavar="N",
        help=f"HEIGHT WIDTH, or one side ({shape[0]} {shape[1]})",
    )
    parser.add_argument(
        # 32 is the stride of the last stage.
        "--size-divisor",
        type=int,
        default=32,
        help="round the shape up to a multiple (32)",
    )
    args = parser.parse_all(arguments)
    if len(args.shape) > 2 or min(args.shape) < 1:
        raise ValueError(
            f"expected --shape HEIGHT WIDTH >= 1, got {' '.join(map(str, args.shape))}"
        )
    if args.size_divisor < 1:
        raise ValueError(f"expected --size-divisor >= 1, got {args.size_divisor}")
    args.shape = (args.shape[0], args.shape[-1])  # one side is both
    return args


def _take_old_options(args: argparse.Namespace, name: str) -> None:
    if args.options is None:
        return
    # In the original --options was --cfg-options for train.py, and --eval-options for test.py.
    new = f"--{name.replace('_', '-')}"
    if getattr(args, name):
        raise ValueError(
            f"expected one of --options and {new}, got both; --options is its old name"
        )
    _take_old(args, name, "--options", new, args.options, is_empty=True)


def _take_old(
    args: argparse.Namespace, name: str, old: str, new: str, value: Any, *, is_empty: bool = False
) -> None:
    """Set what an old flag stands for, and say so."""
    before = getattr(args, name)
    if not is_empty and before not in (None, False, value):
        raise ValueError(f"expected one of {old} and {new.split()[0]}, got both")
    warnings.warn(f"{old} is an old spelling; from now on: {new}", stacklevel=4)
    setattr(args, name, value)


def _take_gpus(args: argparse.Namespace) -> None:
    """Make one ``gpu_id`` of the flags about GPUs: a process uses one.

    Raises:
        ValueError: They ask for several GPUs, or contradict each other.
    """
    many = args.gpus if args.gpus is not None else len(args.gpu_ids or [0])
    if many != 1:
        raise ValueError(
            f"expected one GPU, which is all that one process uses, got {many}; "
            f"dist_{_script_of(args)}.sh CONFIG GPUS starts a process for each"
        )
    if args.gpus is not None:
        warnings.warn("--gpus has no effect: a process uses one GPU", stacklevel=3)
    if args.gpu_ids is not None:
        if args.gpu_id not in (None, args.gpu_ids[0]):
            raise ValueError(
                f"expected one of --gpu-ids and --gpu-id, got {args.gpu_ids[0]} and {args.gpu_id}"
            )
        args.gpu_id = args.gpu_ids[0]


def _script_of(args: argparse.Namespace) -> str:
    """Return which of train and test the arguments are for."""
    return "test" if hasattr(args, "checkpoint") else "train"
