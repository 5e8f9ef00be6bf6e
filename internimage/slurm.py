"""Ranks under Slurm's ``srun``: its variables in the words of torchrun."""

import re
from collections.abc import Mapping, MutableMapping

# Ports that a job may meet on: those of Linux's own choice begin at 32768.
FIRST_PORT, NUM_PORTS = 20000, 12000


def name_ranks(environment: MutableMapping[str, str]) -> None:
    """Set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT in a task of srun.

    Nothing happens under torchrun, which names its ranks itself, or outside of srun: the shell of
    an allocation has some of Slurm's variables and is no rank. MASTER_ADDR and MASTER_PORT stay as
    they are where they are set.

    Args:
        environment: The variables of this process, ``os.environ``.

    Raises:
        ValueError: srun's variables are incomplete.
    """
    if "RANK" in environment or "SLURM_STEP_ID" not in environment:
        return
    environment["RANK"] = _read(environment, "SLURM_PROCID")
    environment["WORLD_SIZE"] = environment.get("SLURM_STEP_NUM_TASKS") or _read(
        environment, "SLURM_NTASKS"
    )
    environment["LOCAL_RANK"] = _read(environment, "SLURM_LOCALID")
    nodes = environment.get("SLURM_STEP_NODELIST") or _read(environment, "SLURM_JOB_NODELIST")
    environment.setdefault("MASTER_ADDR", first_host(nodes))
    # The job's number tells apart the jobs that share a machine; all of its tasks know it.
    number = int(_read(environment, "SLURM_JOB_ID")) + int(environment["SLURM_STEP_ID"])
    environment.setdefault("MASTER_PORT", str(FIRST_PORT + number % NUM_PORTS))


def first_host(nodes: str) -> str:
    """Return the first machine of Slurm's short form: ``gpu[003-006,009],x1`` is ``gpu003``."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    if first is None:
        raise ValueError(f"first_host: expected names of machines, got {nodes!r}")
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first.group())


def _read(environment: Mapping[str, str], name: str) -> str:
    if name not in environment:
        raise ValueError(f"name_ranks: expected srun's variable {name}, got none")
    return environment[name]
