"""Nothing is lost: killed at any step, stopped, on other ranks, the same command goes on."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from classification.distributed import Ranks
from classification.runs.checkpoint import BEST, list_checkpoints, load_state, save_state
from classification.runs.run import prepare
from classification.runs.run_folder import lock_run_folder

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / "classification" / "train.py"
ONE_RANK = Ranks(0, 1, torch.device("cpu"))
COARSE = ("DATA.BATCH_SIZE", 200)  # seven steps an epoch on one rank, three on each of two


def command(small_yaml: Path, out: Path, *options: object, num_ranks: int) -> list[str]:
    arguments = ["--cfg", small_yaml, "--output", out, "--opts", *COARSE, *options]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_ranks}"]
    return [sys.executable, *launcher, str(TRAIN), *map(str, arguments)]


def run(*arguments: object, num_ranks: int = 2) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments, num_ranks=num_ranks), capture_output=True, text=True, timeout=200
    )


def summary(out: Path) -> dict:
    return json.loads((out / "small" / "summary.json").read_text())


def processes_below(pid: int) -> list[int]:
    """The process and all that it started, found in /proc."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(grandchild for child in children for grandchild in processes_below(int(child)))]


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody waits for is dead as well."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(condition, seconds: float = 100.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "the state that the test waits for did not come"
        time.sleep(0.02)


# With random numbers in every part: affine augmentation, mixup, stochastic depth, random erasing.
SMALL = """
AMP_OPT_LEVEL: O0
LOGGER: none
DATA: {DATASET: digits, IMG_SIZE: 16, NUM_WORKERS: 0}
MODEL: {ARCH: internimage_test_t, DROP_PATH_RATE: 0.2}
TRAIN: {EPOCHS: 7, WARMUP_EPOCHS: 1, BASE_LR: 1.0e-2, EMA: {ENABLE: True, DECAY: 0.8}}
AUG: {ROTATE: 5.0, TRANSLATE: 0.05, REPROB: 0.25, MIXUP: 0.8, CUTMIX: 1.0}
"""
OPTIONS = ("SAVE_STEPS", 1, "SAVE_CKPT_NUM", 2)


def kill_everything(torchrun: int) -> None:
    os.killpg(torchrun, signal.SIGKILL)


def kill_torchrun(torchrun: int) -> None:
    os.kill(torchrun, signal.SIGKILL)


def kill_a_rank(torchrun: int) -> None:
    os.kill(processes_below(torchrun)[-1], signal.SIGKILL)


def ask_torchrun_to_stop(torchrun: int) -> None:
    os.kill(torchrun, signal.SIGTERM)


def ask_a_rank_to_stop(torchrun: int) -> None:
    os.kill(processes_below(torchrun)[-1], signal.SIGUSR1)  # it tells the other


# How a run is interrupted, and what it then says.
INTERRUPTIONS = [
    (kill_everything, ""),
    (kill_torchrun, ""),
    (kill_a_rank, "exitcode  : -9"),
    (ask_torchrun_to_stop, "is kept, the same command goes on from it"),
    (ask_a_rank_to_stop, "is kept, the same command goes on from it"),
]


@pytest.mark.slow
def test_interrupted_in_every_way_the_same_command_ends_with_the_same_weights(tmp_path: Path):
    """Two ranks; each attempt is interrupted at whatever it does after its first checkpoint."""
    small_yaml, out = tmp_path / "small.yaml", tmp_path / "out"
    small_yaml.write_text(SMALL)
    unbroken = run(small_yaml, tmp_path / "unbroken", *OPTIONS)
    assert unbroken.returncode == 0, unbroken.stderr
    reached = []
    for interrupt, said in INTERRUPTIONS:
        before = set(list_checkpoints(out / "small"))
        with subprocess.Popen(
            command(small_yaml, out, *OPTIONS, num_ranks=2),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:

            def has_saved(process=process, before=before) -> bool:
                assert process.poll() is None, "the run ended before it was interrupted"
                return bool(set(list_checkpoints(out / "small")) - before)

            wait_for(has_saved)
            ranks = processes_below(process.pid)[1:]
            assert len(ranks) >= 2
            interrupted = time.monotonic()
            interrupt(process.pid)
            _, errors = process.communicate(timeout=100)
        assert process.returncode != 0
        assert said in errors
        wait_for(lambda ranks=ranks: not any(is_alive(pid) for pid in ranks), seconds=60)
        assert time.monotonic() - interrupted < 60
        assert not (out / "small" / "summary.json").exists()
        reached.append(load_state(list_checkpoints(out / "small")[-1]))
    steps = [3 * state["epoch"] + state["step_in_epoch"] for state in reached]
    assert steps == sorted(set(steps))  # each attempt came further
    done = run(small_yaml, out, *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert "goes on after step" in done.stdout
    expected, resumed = summary(tmp_path / "unbroken"), summary(out)
    for key in ("weights_sha256", "top1", "top5", "best_epoch", "steps"):
        assert resumed[key] == expected[key], key
    assert not list((out / "small").glob(".ckpt*"))  # what a killed save left is gone


def train_here(make_config, *options: object) -> dict:
    config = make_config(*COARSE, *options)
    run = prepare(config, ONE_RANK)
    run.train()
    run.close()
    return json.loads((run.folder / "summary.json").read_text())


class CutError(Exception):
    """Stands for the end of a process."""


def cut_after(monkeypatch: pytest.MonkeyPatch, num_saves: int) -> None:
    """Lets the run end right behind a save."""
    from classification.runs import run as module

    real, calls = module.save_state, []

    def save(path: Path, state: dict) -> None:
        real(path, state)
        calls.append(path)
        if len(calls) == num_saves:
            raise CutError

    monkeypatch.setattr(module, "save_state", save)


@pytest.mark.slow
@pytest.mark.parametrize("num_saves", [2, 4, 5])
def test_the_newest_checkpoint_is_found_and_the_run_goes_on(
    make_config, monkeypatch, num_saves: int
):
    options = ("SAVE_STEPS", 3, "DATA.NUM_WORKERS", 0)
    expected = train_here(make_config, *options, "TAG", "unbroken")
    with monkeypatch.context() as patch:
        cut_after(patch, num_saves)
        with pytest.raises(CutError):
            train_here(make_config, *options)
    resumed = train_here(make_config, *options)
    assert train_here(make_config, *options) == resumed  # complete: nothing is done
    assert resumed["weights_sha256"] == expected["weights_sha256"]
    rows = [
        (Path(make_config().OUTPUT) / "small" / tag / "metrics.csv").read_text().splitlines()
        for tag in ("", "unbroken")
    ]
    scores = [[line.split(",")[:8] for line in lines] for lines in rows]
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_the_best_and_the_last_checkpoints_are_kept(make_config):
    options = ("SAVE_STEPS", 3, "SAVE_CKPT_NUM", 2, "TRAIN.EPOCHS", 3, "SAVE_FREQ", 2)
    done = train_here(make_config, *options)
    folder = Path(make_config().OUTPUT) / "small"
    best = load_state(folder / BEST)
    assert best["epoch"] + 1 == done["best_epoch"]
    assert done["best_top1"] >= done["top1"]
    assert [path.name for path in list_checkpoints(folder)] == [
        "ckpt_epoch_3_step_4.pth",  # steps 18 and 21 of the run; 21 is the end of the epoch
        "ckpt_epoch_3.pth",
    ]


@pytest.mark.slow
def test_fewer_ranks_go_on_from_the_end_of_an_epoch(make_config, monkeypatch):
    with monkeypatch.context() as patch:
        cut_after(patch, 4)  # epoch 1 after 3 and 6 steps and its end; epoch 2 after 2
        with pytest.raises(CutError):
            train_here(make_config, "SAVE_STEPS", 3, "SAVE_CKPT_NUM", 1)
    folder = Path(make_config().OUTPUT) / "small"
    for path in list_checkpoints(folder):  # as if two ranks had made them
        state = load_state(path)
        save_state(path, state | {"ranks": state["ranks"] * 2})
    with pytest.warns(
        UserWarning, match="is passed over, for an epoch before: .*ranks was 2 and is 1"
    ):
        done = train_here(make_config, "SAVE_STEPS", 3)
    assert (done["epochs"], done["steps"]) == (2, 14)
    rows = (folder / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2"]


@pytest.mark.slow
def test_a_checkpoint_to_go_on_from_makes_later_ones_void(make_config):
    train_here(make_config, "SAVE_STEPS", 3, "SAVE_CKPT_NUM", 9)
    folder = Path(make_config().OUTPUT) / "small"
    early = folder / "ckpt_epoch_1_step_3.pth"
    run = prepare(make_config(*COARSE, "MODEL.RESUME", early, "SAVE_CKPT_NUM", 9), ONE_RANK)
    assert (folder / "ckpt_epoch_2.pth").exists()  # until there is something new
    run.train()
    run.close()
    names = [path.name for path in list_checkpoints(folder)]
    assert names == ["ckpt_epoch_1_step_3.pth", "ckpt_epoch_1.pth", "ckpt_epoch_2.pth"]


@pytest.mark.slow
def test_other_batches_go_on_from_the_end_of_an_epoch(make_config, monkeypatch):
    with monkeypatch.context() as patch:
        cut_after(patch, 4)
        with pytest.raises(CutError):
            train_here(make_config, "SAVE_STEPS", 3)
    with pytest.warns(UserWarning, match="DATA.BATCH_SIZE was 200 and is 100"):
        done = train_here(make_config, "SAVE_STEPS", 3, "DATA.BATCH_SIZE", 100)
    assert done["steps"] == 28


@pytest.mark.slow
def test_a_command_with_resume_goes_on_from_what_it_saved_itself(make_config, monkeypatch):
    train_here(make_config, "SAVE_STEPS", 3, "SAVE_CKPT_NUM", 9, "MODEL.NAME", "former")
    former = Path(make_config().OUTPUT) / "former" / "ckpt_epoch_1_step_3.pth"
    options = ("MODEL.RESUME", former, "SAVE_STEPS", 3, "SAVE_CKPT_NUM", 1)
    expected = train_here(make_config, *options, "TAG", "unbroken")
    with monkeypatch.context() as patch:
        cut_after(patch, 2)
        with pytest.raises(CutError):
            train_here(make_config, *options)
    run = prepare(make_config(*COARSE, *options), ONE_RANK)
    assert run.engine.step == 7
    run.close()
    assert train_here(make_config, *options)["weights_sha256"] == expected["weights_sha256"]
    # In the folder itself, where the file that it began from has been removed by now.
    folder = run.folder
    (folder / "summary.json").unlink()
    state = load_state(folder / "ckpt_epoch_2.pth")
    gone = folder / "ckpt_epoch_1.pth"
    save_state(folder / "ckpt_epoch_2.pth", copy.deepcopy(state) | {"resumed_from": str(gone)})
    gone.unlink(missing_ok=True)
    again = prepare(make_config(*COARSE, *options[2:], "MODEL.RESUME", gone), ONE_RANK)
    assert again.engine.step == 14
    again.close()


@pytest.mark.slow
def test_the_best_checkpoint_is_a_place_to_go_back_to(make_config):
    train_here(make_config, "SAVE_CKPT_NUM", 9, "TRAIN.EPOCHS", 3)
    folder = Path(make_config().OUTPUT) / "small"
    save_state(folder / BEST, copy.deepcopy(load_state(folder / "ckpt_epoch_1.pth")))
    options = ("MODEL.RESUME", folder / BEST, "SAVE_CKPT_NUM", 9, "TRAIN.EPOCHS", 3)
    run = prepare(make_config(*COARSE, *options), ONE_RANK)
    assert {path.name for path in run.history.abandoned} == {"ckpt_epoch_2.pth", "ckpt_epoch_3.pth"}
    run.close()


@pytest.mark.slow
def test_the_best_checkpoint_is_the_last_resort(make_config):
    train_here(make_config)
    folder = Path(make_config().OUTPUT) / "small"
    save_state(folder / BEST, copy.deepcopy(load_state(folder / BEST)))  # a file of its own
    (folder / "ckpt_epoch_2.pth").write_bytes(b"PK")
    (folder / "summary.json").unlink()
    with pytest.warns(UserWarning, match="a damaged checkpoint is skipped: .*ckpt_epoch_2.pth"):
        done = train_here(make_config)
    assert done["epochs"] == 2


@pytest.mark.slow
def test_steps_are_saved_at_the_end_of_an_epoch_as_well(make_config):
    options = ("SAVE_STEPS", 7, "SAVE_FREQ", 99, "EVAL_FREQ", 99, "SAVE_CKPT_NUM", 9)
    train_here(make_config, *options, "TRAIN.EPOCHS", 3)
    folder = Path(make_config().OUTPUT) / "small"
    names = [path.name for path in list_checkpoints(folder)]
    assert names == [f"ckpt_epoch_{epoch}.pth" for epoch in (1, 2, 3)]


@pytest.mark.slow
def test_a_state_saved_for_its_score_is_evaluated_again_and_has_one_row(make_config, monkeypatch):
    options = ("SAVE_FREQ", 9, "TRAIN.EPOCHS", 3)
    with monkeypatch.context() as patch:
        cut_after(patch, 1)
        with pytest.raises(CutError):
            train_here(make_config, *options)
    train_here(make_config, *options)
    folder = Path(make_config().OUTPUT) / "small"
    rows = (folder / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2", "3"]
    assert (folder / BEST).exists()


@pytest.mark.slow
def test_a_folder_with_a_run_of_other_settings_is_not_touched(make_config):
    train_here(make_config)
    folder = Path(make_config().OUTPUT) / "small"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="expected SEED = 0 as in .*; the folder holds a run with"):
        train_here(make_config, "SEED", 1)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_classes(make_config, monkeypatch):
    train_here(make_config)
    names = tuple("1203456789")
    with monkeypatch.context() as patch:
        patch.setattr("classification.data.digits.CLASS_NAMES", names)
        with pytest.raises(ValueError, match="10, of which class 0 is 1 and was 0"):
            train_here(make_config, "TRAIN.EPOCHS", 3)


@pytest.mark.slow
def test_damaged_bytes_are_found_in_a_file_that_is_named(make_config):
    train_here(make_config)
    path = Path(make_config().OUTPUT) / "small" / "ckpt_epoch_1.pth"
    path = path if path.exists() else path.with_name("ckpt_epoch_2.pth")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"expected a whole checkpoint, got {path} with damaged"):
        train_here(make_config, "MODEL.RESUME", path, "MODEL.NAME", "other")


@pytest.mark.slow
def test_two_processes_do_not_train_in_one_folder(tmp_path: Path):
    script = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from classification.runs.run_folder import lock_run_folder
lock = lock_run_folder(Path({str(tmp_path)!r}))
print("locked", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "locked\n"
        with (
            pytest.warns(UserWarning, match="waiting for the process that trains in"),
            pytest.raises(ValueError, match="expected a folder in which nobody trains, got "),
        ):
            lock_run_folder(tmp_path, timeout=0.1)
        process.kill()
    lock_run_folder(tmp_path, timeout=10).release()
