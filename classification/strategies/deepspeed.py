"""DeepSpeed's ZeRO: shares of the optimiser's states (1), of gradients (2), of the weights (3).

DeepSpeed itself trains in float32 here and the model's forward pass has its autocast, as under the
other strategies. DeepSpeed's own ways to 16 bits (0.19) do not fit: its fp16 and bf16 sections turn
the weights into 16 bits, so that they, their average and the statistics of batch norm differ from
what the other strategies compute, and its torch_autocast section clips gradients before it has
taken the loss scale out of them. The loss scale is GradScaler's, handed over by
``override_loss_scale``.

Weights and images keep their place in memory: ZeRO joins the weights into flat ones, so
TRAIN.CHANNELS_LAST is the images' alone.

Shape legend: N images of a batch on one rank, H W pixels, K classes.
"""

import importlib
import logging
import math
import os
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from yacs.config import CfgNode

from classification.distributed import Ranks
from classification.optim import build_optimizer
from classification.strategies.base import StepOutcome, Strategy
from classification.strategies.compiling import compile_blocks
from classification.strategies.deepspeed_config import deepspeed_config
from classification.strategies.precision import Precision, in_memory_format
from classification.strategies.process_group import ensure_process_group
from classification.strategies.states import (
    STATE_KEYS,
    check_model_state,
    check_optimizer_state,
    num_bytes,
    to_cpu,
)
from internimage import InternImage
from internimage.blocks import InternImageBlock


class ZeroStrategy(Strategy):
    """The strategy "deepspeed".

    Args:
        model: The classifier, which ``engine`` has taken apart.
        engine: DeepSpeed's engine.
        optimizer: Of torch.optim, over the flat shares of this rank.
        precision: Autocast and loss scale.
        memory_format: Of the images.
        ranks: This process among all.
        stage: 1, 2 or 3.
    """

    def __init__(
        self,
        model: InternImage,
        engine: Any,
        optimizer: torch.optim.Optimizer,
        *,
        precision: Precision,
        memory_format: torch.memory_format,
        ranks: Ranks,
        stage: int,
    ) -> None:
        self.model = model
        self.engine = engine
        self.optimizer = optimizer
        self.precision = precision
        self.memory_format = memory_format
        self.ranks = ranks
        self.stage = stage
        self.forward_is_collective = stage == 3

    def forward(self, inputs: Tensor | tuple[Tensor, ...]) -> Tensor:
        """See ``Strategy``."""
        inputs = in_memory_format(inputs, self.memory_format)
        if torch.is_grad_enabled():
            return self.engine(inputs).float()
        self._forget_whole_weights()
        logits = self.engine(inputs).float()
        self._forget_whole_weights()
        return logits

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """See ``Strategy``."""
        self.engine.set_gradient_accumulation_boundary(is_last)
        if self.precision.scaler.is_enabled():
            self.precision.scaler.scale(loss)  # makes the scale on the first call
            self.engine.optimizer.override_loss_scale(self.precision.scaler.get_scale())
        self.engine.backward(loss, scale_wrt_gas=False)

    def step(self, *, clip_grad: float) -> StepOutcome:
        """See ``Strategy``."""
        self.engine.optimizer.clip_grad = clip_grad
        self.engine.step()
        overflowed = bool(self.engine.optimizer.overflow)
        norm = math.inf if overflowed else float(self.engine.get_global_grad_norm())
        self.precision.count_step(overflowed=overflowed)
        return StepOutcome(norm, skipped=overflowed and self.precision.scaler.is_enabled())

    def model_state(self) -> dict[str, Tensor]:
        """See ``Strategy``."""
        state = {}
        for key, tensor in self.model.state_dict(keep_vars=True).items():
            whole = self._whole(tensor)
            if self.ranks.is_main:
                state[key] = to_cpu(whole)
        return state

    @torch.no_grad()
    def load_model_state(self, state: Mapping[str, Tensor]) -> None:
        """See ``Strategy``."""
        own = self.model.state_dict(keep_vars=True)
        check_model_state(state, {key: whole_shape(tensor) for key, tensor in own.items()})
        for key, tensor in own.items():
            share = self._share(state[key], tensor)
            _local(tensor).copy_(share)
            if tensor.requires_grad:  # the copy that the optimiser works on
                if self.stage == 3:
                    self._utils.safe_set_local_fp32_param(tensor, share)
                else:
                    self._utils.safe_set_full_fp32_param(tensor, share)

    def optimizer_state(self) -> dict[str, Any]:
        """See ``Strategy``."""
        states: dict[str, dict[str, Tensor]] = {}
        held = list(self.optimizer.state.values())
        self._link_states()
        for name, parameter in self._named_parameters().items() if held else ():
            state = {}
            for key in STATE_KEYS[type(self.optimizer)]:
                # There is one count of steps for all parameters.
                whole = (
                    held[0][key]
                    if key == "step"
                    else self._utils.safe_get_full_optimizer_state(parameter, key)
                )
                if self.ranks.is_main:
                    state[key] = to_cpu(whole)
            states[name] = state
        if not self.ranks.is_main:
            return {}
        return {"optimizer": states, "scaler": self.precision.scaler.state_dict()}

    @torch.no_grad()
    def load_optimizer_state(self, state: Mapping[str, Any]) -> None:
        """See ``Strategy``."""
        named = self._named_parameters()
        shapes = {name: whole_shape(parameter) for name, parameter in named.items()}
        scaler = self.precision.scaler
        kind = type(self.optimizer)
        check_optimizer_state(state, shapes, kind, has_scale=scaler.is_enabled())
        steps = {float(values.get("step", 0)) for values in state["optimizer"].values()}
        if len(steps) > 1:
            raise ValueError(
                "load_optimizer_state: expected one number of steps for all parameters, "
                f"got {sorted(steps)}"
            )
        if scaler.is_enabled():
            scaler.load_state_dict(dict(state["scaler"]))
        self.optimizer.state.clear()
        if not state["optimizer"]:
            return
        (step,) = steps
        for flat in self._flat_shares():
            self.optimizer.state[flat] = {
                key: flat.new_tensor(step) if key == "step" else torch.zeros_like(flat)
                for key in STATE_KEYS[kind]
            }
        self._link_states()
        for name, parameter in named.items():
            for key, value in state["optimizer"][name].items():
                if key == "step":
                    continue
                share = self._share(value, parameter)
                if self.stage == 3:
                    self._utils.safe_set_local_optimizer_state(parameter, share, key)
                else:
                    self._utils.safe_set_full_optimizer_state(parameter, share, key)

    def tensors_to_average(self) -> list[Tensor]:
        """See ``Strategy``."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return [_local(tensor) for tensor in tensors if tensor.is_floating_point()]

    def bytes_held(self) -> dict[str, int]:
        """See ``Strategy``.

        The copy of the weights that ZeRO steps on counts as the optimiser's.
        """
        parameters = [_local(parameter) for parameter in self.model.parameters()]
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        storages = {parameter.untyped_storage().data_ptr() for parameter in parameters}
        copies = [
            flat
            for flat in self._flat_shares()
            if flat.untyped_storage().data_ptr() not in storages
        ]
        return {
            "parameters": sum(map(num_bytes, parameters)),
            "optimizer": sum(map(num_bytes, [*states, *copies])),
        }

    def close(self) -> None:
        """See ``Strategy``."""
        self.engine.destroy()
        del self.engine, self.model, self.optimizer

    @property
    def _utils(self) -> ModuleType:
        return importlib.import_module("deepspeed.utils")

    def _flat_shares(self) -> list[Tensor]:
        """Returns this rank's shares of all parameters, which the optimiser works on."""
        if self.stage == 3:
            return self.engine.optimizer.fp32_partitioned_groups_flat
        return self.engine.optimizer.single_partition_of_fp32_groups

    def _link_states(self) -> None:
        """Lets ZeRO-1 and -2 find a parameter's part of the flat states.

        DeepSpeed 0.19 does so in the first step, after the first parameter group and before the
        others have any state.
        """
        if self.stage < 3:
            self.engine.optimizer._hp_optimizer_states_linked = False
            self.engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _forget_whole_weights(self) -> None:
        """Lets ZeRO-3 gather anew what it keeps for later: the shares may have been exchanged."""
        if self.stage == 3:
            self.engine.optimizer.empty_partition_cache()

    def _whole(self, tensor: Tensor) -> Tensor:
        """Returns a whole parameter or buffer; *collective*."""
        shape = whole_shape(tensor)
        if not hasattr(tensor, "ds_tensor"):
            return tensor
        share = _local(tensor).to(self.ranks.device)
        flat = share.new_empty(self.ranks.world_size, share.numel())
        dist.all_gather(list(flat), share)
        return flat.flatten()[: shape.numel()].view(shape)  # the last share may be filled up

    def _share(self, whole: Tensor, like: Tensor) -> Tensor:
        """Returns the part of a whole tensor that this rank keeps of ``like``, on the device."""
        whole = whole.to(self.ranks.device)
        if not hasattr(like, "ds_tensor"):
            return whole
        size = _local(like).numel()
        flat = whole.new_zeros(size * self.ranks.world_size)
        flat[: whole.numel()] = whole.flatten()
        return flat[size * self.ranks.rank :][:size]


def build_zero(config: CfgNode, model: InternImage, ranks: Ranks, *, factor: float) -> ZeroStrategy:
    """Builds the strategy "deepspeed"; see ``build_strategy``."""
    deepspeed = _import_deepspeed(ranks)
    ensure_process_group(ranks)
    os.environ.setdefault("LOCAL_RANK", str(ranks.device.index or 0))  # DeepSpeed insists on it
    precision = Precision(config, ranks.device)
    # On the model's own method: the engine switches off an autocast that it finds around itself.
    model.forward = precision.autocast()(model.forward)  # type: ignore[method-assign]
    stage = config.TRAIN.ZERO_STAGE
    if stage == 3:
        # A block's weights come and go together, as DCNv3 reads those of its parts directly.
        deepspeed.utils.set_z3_leaf_modules(model, [InternImageBlock], raise_if_not_found=False)
        if config.TRAIN.COMPILE:
            compile_blocks(model)
    optimizer = build_optimizer(config, model, factor=factor)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        config=deepspeed_config(config, ranks.world_size, device=ranks.device),
    )
    if config.TRAIN.COMPILE and stage < 3:
        engine.compile()
    channels_last = config.TRAIN.CHANNELS_LAST
    return ZeroStrategy(
        model,
        engine,
        optimizer,
        precision=precision,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
        ranks=ranks,
        stage=stage,
    )


def whole_shape(tensor: Tensor) -> torch.Size:
    """Returns the shape of a parameter or buffer before ZeRO-3 took it apart."""
    return getattr(tensor, "ds_shape", tensor.shape)


def _local(tensor: Tensor) -> Tensor:
    """Returns the memory of this rank behind a parameter or buffer."""
    return getattr(tensor, "ds_tensor", tensor).detach()


def _import_deepspeed(ranks: Ranks) -> ModuleType:
    """Imports DeepSpeed, for the device of this run and with warnings from one rank.

    Raises:
        ImportError: It is not installed.
    """
    if ranks.device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    try:
        deepspeed = importlib.import_module("deepspeed")
    except ModuleNotFoundError as error:
        if error.name != "deepspeed":
            raise
        raise ImportError(
            "build_strategy: expected DeepSpeed for TRAIN.STRATEGY deepspeed, got none installed: "
            "DS_BUILD_OPS=0 pip install --no-build-isolation 'internimage[deepspeed]'"
        ) from error
    # On a CPU it would compile, for minutes, a kernel that only inference calls.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # PyTorch 2.13 has new names for what DeepSpeed 0.19 calls, in every step, hence for the whole
    # process. Can go with the DeepSpeed that uses them.
    warnings.filterwarnings("ignore", "`torch.distributed.*` is deprecated", FutureWarning)
    logger = importlib.import_module("deepspeed.utils").logger
    logger.setLevel(logging.WARNING if ranks.is_main else logging.ERROR)
    return deepspeed
