"""Steps, epochs, evaluation; two ranks against one process that sees the images of both."""

import contextlib
import copy
import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from yacs.config import CfgNode

from classification.data.batch import Batch, Data
from classification.distributed import Ranks
from classification.engine import Engine
from classification.evaluation import evaluate
from classification.random_states import seed_everything
from classification.results import BadFilesError, StepResult
from classification.runs.run import prepare
from internimage.script import DivergedError

ONE_RANK = Ranks(0, 1, torch.device("cpu"))


def import_tiny_run() -> ModuleType:
    """The module beside this file, which has no package and is a script as well."""
    import importlib.util

    path = Path(__file__).with_name("tiny_run.py")
    spec = importlib.util.spec_from_file_location("tiny_run", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tiny = import_tiny_run()


def make_engine(batch_norm: bool = True, **train: object) -> Engine:
    return tiny.tiny_engine(tiny.tiny_config(**train), ONE_RANK, batch_norm=batch_norm)


def train(engine: Engine, num_epochs: int) -> list[float]:
    """Trains whole epochs as a run does; returns their losses."""
    losses = []
    for _ in range(num_epochs):
        losses.append(engine.train_epoch().train_loss)
        engine.end_epoch()
        engine.next_epoch()
    return losses


def weights(engine: Engine) -> dict[str, torch.Tensor]:
    """A copy of the final weights."""
    return {name: value.clone() for name, value in engine.final_state().items()}


class EnoughError(Exception):
    """Ends an epoch early."""


def steps_of(engine: Engine, count: int) -> list[StepResult]:
    """Makes the first steps of an epoch."""
    made: list[StepResult] = []

    def stop(result: StepResult) -> None:
        made.append(result)
        if len(made) == count:
            raise EnoughError

    with contextlib.suppress(EnoughError):
        engine.train_epoch(on_step=stop)
    return made


def plain_loop(data: list[Data], *, num_epochs: int, batches_a_step: int = 1) -> nn.Module:
    """Training as the engine documents it, in float64: the mean loss of all ranks' batches.

    SGD with momentum 0.9, Nesterov, label smoothing 0.1, a cosine from BASE_LR * images / 512 that
    is set before each step; weight decay for matrices only.
    """
    torch.manual_seed(0)
    model = tiny.TinyNet(batch_norm=False).double()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=True)
    steps_per_epoch = len(data[0].train_loader) // batches_a_step
    images_a_step = 8 * batches_a_step * len(data)
    high, low = 1.0 * images_a_step / 512, 5e-6 * images_a_step / 512
    step = 0
    for epoch in range(num_epochs):
        iterators = [share.train_loader.batches(epoch) for share in data]
        for _ in range(steps_per_epoch):
            cosine = 0.5 * (1 + math.cos(math.pi * step / (4 * steps_per_epoch)))
            for group in optimizer.param_groups:
                group["lr"] = low + (high - low) * cosine
            optimizer.zero_grad()
            for iterator in iterators:
                for _ in range(batches_a_step):
                    images, labels, *_ = next(iterator)
                    loss = F.cross_entropy(model(images.double()), labels, label_smoothing=0.1)
                    (loss / (batches_a_step * len(data))).backward()
            optimizer.step()
            step += 1
    return model


def launch(folder: Path, *, num_ranks: int) -> list[dict]:
    """Lets gloo ranks of torchrun train; returns what each leaves."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(num_ranks), str(Path(tiny.__file__)), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=True) for rank in range(num_ranks)]


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What two gloo ranks of torchrun leave."""
    return launch(tmp_path_factory.mktemp("two_ranks"), num_ranks=2)


@pytest.fixture(scope="module")
def three_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What three leave: with them a sum depends on where in a bucket DDP has put a gradient."""
    return launch(tmp_path_factory.mktemp("three_ranks"), num_ranks=3)


def test_training_reduces_the_loss_and_finds_the_classes():
    engine = make_engine(BASE_LR=4.0, EPOCHS=12)
    before = engine.evaluate()
    losses = train(engine, 12)
    after = engine.evaluate()
    assert losses[-1] < 0.7 * losses[0]
    assert after.loss < before.loss
    assert after.top1 > 80


def test_one_rank_trains_as_a_plain_loop_does():
    engine = make_engine(batch_norm=False)
    train(engine, 2)
    expected = plain_loop([tiny.tiny_data(engine.config, ONE_RANK)], num_epochs=2)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(
            engine.model.state_dict()[name].double(), value, rtol=1e-4, atol=1e-6
        )
    assert engine.step == 12


def test_accumulated_batches_make_the_step_of_their_mean_loss():
    engine = make_engine(batch_norm=False, ACCUMULATION_STEPS=4)
    engine.train_epoch()
    data = tiny.tiny_data(engine.config, ONE_RANK)
    expected = plain_loop([data], num_epochs=1, batches_a_step=4)
    assert engine.step == 1  # six batches: the incomplete step is left out
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(
            engine.model.state_dict()[name].double(), value, rtol=1e-4, atol=1e-6
        )


@pytest.mark.slow
def test_two_ranks_train_as_one_process_with_the_images_of_both(two_ranks):
    config = tiny.tiny_config()
    shares = [tiny.tiny_data(config, Ranks(rank, 2, torch.device("cpu"))) for rank in range(2)]
    expected = plain_loop(shares, num_epochs=2)
    for name, value in expected.state_dict().items():
        for left in two_ranks:
            torch.testing.assert_close(
                left["plain"]["model"][name].double(), value, rtol=1e-4, atol=1e-6
            )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "batch_norm"])
def test_all_ranks_end_with_the_same_weights_statistics_and_scores(two_ranks, kind: str):
    first, second = (left[kind] for left in two_ranks)
    for weights in ("model", "final"):
        for name, value in first[weights].items():
            assert torch.equal(value, second[weights][name]), f"{weights} {name}"
    assert first["scores"] == second["scores"]
    assert first["losses"] == second["losses"]


@pytest.mark.slow
def test_two_ranks_evaluate_each_image_once(two_ranks):
    left = two_ranks[0]["plain"]
    model = tiny.TinyNet(batch_norm=False)
    model.load_state_dict(left["final"])
    images, labels = tiny.tiny_images(tiny.NUM_TEST, seed=2).tensors
    with torch.no_grad():
        logits = model(images)
    loss, top1, top5, num_images = left["scores"]
    assert num_images == tiny.NUM_TEST
    assert loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert top1 == pytest.approx(100 * (logits.argmax(1) == labels).double().mean().item())
    assert top5 == 100  # of three classes


def data_of(batches: list[Batch]) -> Data:
    return dataclasses.replace(tiny.tiny_data(tiny.tiny_config(), ONE_RANK), test_loader=batches)


def test_top1_and_top5_count_the_ranks_of_the_right_class():
    logits = torch.tensor([[9.0, 8, 7, 6, 5, 4], [9, 8, 7, 6, 5, 4], [9, 8, 7, 6, 5, 4]])
    batches = [
        Batch(logits[:2, :, None, None], torch.tensor([0, 4]), bad_files=("a.png",)),
        Batch(logits[:0, :, None, None], torch.tensor([], dtype=torch.int64), bad_files=("b", "c")),
        Batch(logits[2:, :, None, None], torch.tensor([5])),
    ]
    scores = evaluate(nn.Flatten(), data_of(batches), ONE_RANK)
    assert scores.top1 == pytest.approx(100 / 3)
    assert scores.top5 == pytest.approx(200 / 3)
    expected = F.cross_entropy(logits.double(), torch.tensor([0, 4, 5])).item()
    assert scores.loss == pytest.approx(expected)
    assert (scores.num_images, scores.num_bad_files) == (3, 3)


def test_evaluating_no_image_is_an_error():
    with pytest.raises(ValueError, match="expected images >= 1, got 0"):
        evaluate(nn.Flatten(), data_of([]), ONE_RANK)


def test_a_rank_without_a_batch_joins_the_forward_pass_where_ranks_wait_in_it():
    called = []
    batches = [Batch(torch.ones(0, 3, 4, 4), torch.tensor([], dtype=torch.int64))]
    batches.append(Batch(torch.ones(2, 3), torch.tensor([0, 1])))

    def forward(images: torch.Tensor) -> torch.Tensor:
        called.append(len(images))
        return images

    filler = torch.zeros(1, 3)
    scores = evaluate(forward, data_of(batches), ONE_RANK, filler=filler)
    assert called == [1, 2]
    assert scores.num_images == 2


def test_the_average_follows_the_weights_by_its_decay():
    engine = make_engine(EMA=CfgNode({"ENABLE": True, "DECAY": 0.75}))
    expected = {name: value.clone() for name, value in engine.model.named_parameters()}

    def follow(_: object) -> None:
        for name, value in engine.model.named_parameters():
            expected[name] = 0.75 * expected[name] + 0.25 * value.detach()

    engine.train_epoch(on_step=follow)
    own = {name: value.detach().clone() for name, value in engine.model.named_parameters()}
    assert not torch.equal(expected["head.weight"], own["head.weight"])
    for name, value in expected.items():
        torch.testing.assert_close(engine.final_state()[name], value)
        assert torch.equal(engine.model.get_parameter(name), own[name])  # as before


def test_the_gradient_is_clipped_to_the_norm_that_is_set():
    steps = []
    for clip in (0.0, 1e-3):
        engine = make_engine(CLIP_GRAD=clip, WEIGHT_DECAY=0.0)
        before = [parameter.detach().clone() for parameter in engine.model.parameters()]
        (result, *_) = steps_of(engine, 1)
        after = engine.model.parameters()
        moved = torch.stack([(a - b).norm() for a, b in zip(after, before, strict=True)]).norm()
        steps.append((result.gradient_norm, moved.item() / result.learning_rate))
    (free_norm, free_step), (clipped_norm, clipped_step) = steps
    assert free_norm == clipped_norm > 1e-2  # reported as it was before clipping
    # The first step of SGD with Nesterov momentum 0.9 is 1.9 times the gradient.
    assert free_step == pytest.approx(1.9 * free_norm, rel=1e-3)
    assert clipped_step == pytest.approx(1.9 * 1e-3, rel=1e-2)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_diverged_step_stops_the_run_and_leaves_the_weights(bad: float):
    engine = make_engine()
    train(engine, 1)
    before = copy.deepcopy(engine.model.state_dict())
    engine.data.train_loader.images.tensors[0][:] = bad
    with pytest.raises(DivergedError, match=r"epoch 2, step 7, at learning rate 0\.\d+"):
        engine.train_epoch()
    for name, value in engine.model.named_parameters():
        assert torch.equal(value, before[name]), name


def test_files_that_cannot_be_read_are_counted_until_they_are_too_many():
    engine = make_engine()
    engine.config.DATA.MAX_BAD_SHARE = 0.05  # 2.4 of 48 images
    whole = engine.data.train_loader.batches
    engine.data.train_loader.batches = lambda epoch, first: (
        batch._replace(bad_files=("bad.jpg",) * (i < 2)) for i, batch in enumerate(whole(epoch))
    )
    assert engine.train_epoch().num_bad_files == 2
    engine.next_epoch()
    assert engine.train_epoch().num_bad_files == 2  # counted anew in each epoch
    engine.next_epoch()
    engine.config.DATA.MAX_BAD_SHARE = 0.04  # 1.92
    with pytest.raises(BadFilesError, match=r"2 of 48 training files .*MAX_BAD_SHARE = 0\.04"):
        engine.train_epoch()
    assert engine.step_in_epoch == 2


@pytest.mark.parametrize("steps", [1, 4, 6])
def test_a_state_that_is_taken_up_within_an_epoch_goes_on_bit_by_bit(steps: int):
    options = {"EMA": CfgNode({"ENABLE": True, "DECAY": 0.9})}
    unbroken = make_engine(**options)
    train(unbroken, 1)
    states = []

    def keep(result: StepResult) -> None:
        if unbroken.step_in_epoch == steps:
            states.append(copy.deepcopy(unbroken.state_dict()))

    result = unbroken.train_epoch(on_step=keep)
    unbroken.end_epoch()
    resumed = make_engine(**options)
    resumed.load_state_dict(states[0])
    torch.rand(7)  # whatever is drawn before it goes on
    assert resumed.step == 6 + steps
    resumed_result = resumed.train_epoch()
    resumed.end_epoch()
    assert resumed_result.train_loss == result.train_loss
    assert resumed_result.gradient_norm == result.gradient_norm
    for name, value in weights(unbroken).items():
        assert torch.equal(value, weights(resumed)[name]), name
    for name, value in unbroken.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert resumed.step == unbroken.step == 12


@pytest.mark.slow
@pytest.mark.parametrize("ranks", ["two_ranks", "three_ranks"])
@pytest.mark.parametrize("kind", ["plain", "batch_norm"])
def test_ranks_go_on_within_an_epoch_bit_by_bit(request, ranks: str, kind: str):
    for left in (rank[kind] for rank in request.getfixturevalue(ranks)):
        assert left["resumed_loss"] == left["losses"][1]
        for weights_of in ("model", "final"):
            for name, value in left[weights_of].items():
                assert torch.equal(value, left[f"resumed_{weights_of}"][name]), name


def test_another_number_of_ranks_takes_up_the_end_of_an_epoch_and_no_step_of_it():
    engine = make_engine(EMA=CfgNode({"ENABLE": True, "DECAY": 0.9}))
    middle: list[dict] = []
    engine.train_epoch(on_step=lambda _: middle.append(copy.deepcopy(engine.state_dict())))
    state = copy.deepcopy(engine.state_dict())
    for saved in (state, middle[0]):
        saved["ranks"] *= 2  # as two ranks that saw the same
    resumed = make_engine(EMA=CfgNode({"ENABLE": True, "DECAY": 0.9}))
    with pytest.raises(ValueError, match="expected 2 ranks for a state made within an epoch"):
        resumed.load_state_dict(middle[0])
    resumed.load_state_dict(state)
    assert resumed.step == engine.step == 6
    result = resumed.train_epoch()  # nothing is left of the epoch but its sums
    assert result.train_loss == pytest.approx(engine.sums.loss / engine.sums.num_images)
    assert result.gradient_norm == pytest.approx(engine.sums.gradient_norm / 6)
    for name, value in weights(engine).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_a_state_of_another_model_is_one_clear_error():
    state = make_engine(batch_norm=False).state_dict()
    with pytest.raises(ValueError, match="expected .*got") as caught:
        make_engine(batch_norm=True).load_state_dict(state)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="averaged weights exactly with TRAIN.EMA.ENABLE = True"):
        make_engine(False, EMA=CfgNode({"ENABLE": True, "DECAY": 0.9})).load_state_dict(state)


def test_a_run_may_begin_at_a_later_epoch_of_its_schedule():
    unbroken, later = make_engine(), make_engine(START_EPOCH=2)
    train(unbroken, 2)
    assert later.train_epoch().learning_rate == unbroken.train_epoch().learning_rate
    assert later.step == unbroken.step == 18


def test_frozen_stages_do_not_learn(make_config):
    config = make_config("TRAIN.OPTIMIZER.FREEZE_BACKBONE", [0, 2], "DATA.BATCH_SIZE", 700)
    run = prepare(config, ONE_RANK)
    before = copy.deepcopy(run.engine.model.state_dict())
    run.engine.train_epoch()
    frozen = ("levels.0.", "levels.2.")
    for name, value in run.engine.model.named_parameters():
        assert torch.equal(value, before[name]) == name.startswith(frozen), name


def test_a_stage_that_the_model_does_not_have_cannot_be_frozen(make_config):
    with pytest.raises(ValueError, match="expected stages of the model, got 4"):
        prepare(make_config("TRAIN.OPTIMIZER.FREEZE_BACKBONE", [4]), ONE_RANK)


def test_epochs_and_ranks_draw_different_numbers_and_the_same_ones_again():
    def draw(seed: int, rank: int, epoch: int) -> float:
        seed_everything(seed, Ranks(rank, 4, torch.device("cpu")), epoch=epoch)
        return torch.rand(()).item()

    drawn = {draw(s, r, e) for s in range(3) for r in range(3) for e in range(3)}
    assert len(drawn) == 27
    assert draw(1, 2, 0) == draw(1, 2, 0)
