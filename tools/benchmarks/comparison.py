"""The command line of a comparison: one model with one backbone or another, as they take turns.

A benchmark of a task says what its contenders are, and which sizes of its model can be chosen.
"""

import argparse
import importlib
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tools.benchmarks.turns import Worker, measure, print_machine, print_tables, serve


def add_flags(parser: argparse.ArgumentParser, *, height: int, width: int) -> None:
    """Adds the flags of every benchmark that runs an image through models in processes.

    Args:
        parser: of the benchmark.
        height: of the image unless another is given, pixels.
        width: likewise.
    """
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0")
    parser.add_argument("--height", type=int, default=height, help="of the image, pixels")
    parser.add_argument("--width", type=int, default=width, help="of the image, pixels")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="a process")
    parser.add_argument("--worker", help=argparse.SUPPRESS)


def start(
    script: str, args: argparse.Namespace, keys: Sequence[str], name: str, **environment: str
) -> Worker:
    """Starts the process of a contender: the benchmark itself, with ``--worker NAME``.

    Args:
        script: the benchmark's file.
        args: of its command line.
        keys: the flags of its own that the process needs as well, without dashes.
        name: of the contender.
        **environment: further variables.
    """
    handed_on = ("device", "height", "width", "threads", *keys)
    flags = [f"--{key}={getattr(args, key)}" for key in handed_on]
    return Worker([script, "--worker", name, *flags], args.threads, **environment)


def compare(
    script: str,
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    *,
    contenders: str,
    options: Mapping[str, str],
    packages: Sequence[str],
) -> None:
    """Measures all contenders and prints the tables, or is the process of one of them.

    Args:
        script: the benchmark's file.
        parser: with the flags of :func:`add_flags` and those of the model.
        arguments: the command line; None takes the process's.
        contenders: name of the module with ``CONTENDERS``, ``build`` and ``forward_pass``.
        options: from the model's flags, without dashes, to the names that ``build`` has for them.
        packages: whose versions matter beside PyTorch's.
    """
    parser.add_argument("--rounds", type=int, default=7, help="images of each contender")
    parser.add_argument("--only", nargs="+", help="these contenders, InternImage-T among them")
    args = parser.parse_args(arguments)
    module = importlib.import_module(contenders)
    if args.worker:
        _work(args, module, **{name: getattr(args, flag) for flag, name in options.items()})
        return
    from tools.benchmarks.backbones import YARDSTICK, available

    print_machine(args, *packages)
    names = available(args.only or list(module.CONTENDERS), module.CONTENDERS)
    begin = partial(start, script, args, list(options))
    results = measure(names, begin, rounds=args.rounds, device=args.device)
    titles = {name: module.CONTENDERS[name].title for name in names}
    print_tables(*results, titles, YARDSTICK)


def _work(args: argparse.Namespace, contenders: Any, **options: Any) -> None:
    """The process of a contender: builds its model and answers questions about it."""
    import torch

    torch.set_num_threads(args.threads)
    model = contenders.build(contenders.CONTENDERS[args.worker], **options).to(args.device)
    run = contenders.forward_pass(model, args.height, args.width, args.device)
    serve(model, run, args.device)
