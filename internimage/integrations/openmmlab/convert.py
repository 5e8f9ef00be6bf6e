"""State dicts of OpenMMLab's 2022 generation, renamed for today's: a pure function.

R-CNNs, UPerNet and SegFormer heads kept their names. DINO and Mask2Former did not: a transformer
was a part of its head, its layers were built from lists (``attentions.0``, ``ffns.0``), and
InternImage-G's feed-forward layers were cut in four.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_DINO = "bbox_head.transformer."
# InternImage-G's fc1_0.weight, fc1_0.bias, ..., fc2_0.weight, ... and the one fc2_bias.
_SPLIT_FFN = re.compile(r"^(.*\.ffns\.0\.)(fc[12])_(?:(\d+)\.(weight|bias)|(bias))$")

# Longer names before those that they begin with. The groups are put together by `_rename`.
_RULES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"^bbox_head\.transformer\.level_embeds$"), "level_embed"),
    (re.compile(r"^bbox_head\.transformer\.enc_output_norm\."), "memory_trans_norm."),
    (re.compile(r"^bbox_head\.transformer\.enc_output\."), "memory_trans_fc."),
    (re.compile(r"^bbox_head\.transformer\.query_embed\."), "query_embedding."),
    (
        # linear layers and activations took turns: 0, 2, ... are now 0, 1, ...
        re.compile(r"^bbox_head\.transformer\.decoder\.ref_point_head\.(\d+)\."),
        lambda match: f"decoder.ref_point_head.layers.{int(match[1]) // 2}.",
    ),
    # From here on the transformer is a part of the detector, beside its head.
    (re.compile(r"^bbox_head\.transformer\."), ""),
    (re.compile(r"^bbox_head\.label_embedding\."), "dn_query_generator.label_embedding."),
    # DINO's encoder, and Mask2Former's below pixel_decoder.
    (re.compile(r"^((?:.*\.)?encoder\.layers\.\d+\.)attentions\.0\."), r"\1self_attn."),
    (re.compile(r"^(decoder\.layers\.\d+\.)attentions\.0\."), r"\1self_attn."),
    (re.compile(r"^(decoder\.layers\.\d+\.)attentions\.1\."), r"\1cross_attn."),
    # Mask2Former looks at the image first
    (re.compile(r"^(.*\btransformer_decoder\.layers\.\d+\.)attentions\.0\."), r"\1cross_attn."),
    (re.compile(r"^(.*\btransformer_decoder\.layers\.\d+\.)attentions\.1\."), r"\1self_attn."),
    # "_" is that of Mask2Former's transformer_decoder.
    (re.compile(r"^((?:.*[._])?(?:en|de)coder\.layers\.\d+\.)ffns\.0\."), r"\1ffn."),
)


def convert_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a released detector or segmentor.

    The prefix ``module.`` of data-parallel training comes off, and so do the copies of the weights
    that the old moving-average hook kept beside them (``ema_backbone_...``).

    Args:
        state_dict: weights of a whole model, with old names or new ones.

    Returns:
        The same tensors under today's names, in the same order; names that are new already stay.
        The quarters of a feed-forward layer are one tensor.

    Raises:
        TypeError: a value is no tensor, as in a whole checkpoint.
        ValueError: two keys become one, or a quarter of a feed-forward layer is missing.
    """
    require_tensors("convert_state_dict", state_dict)
    weights = dict(state_dict)
    while weights and all(key.startswith("module.") for key in weights):
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    flat_names = {"ema_" + key.replace(".", "_") for key in weights}
    weights = {key: value for key, value in weights.items() if key not in flat_names}
    weights = _join_split_ffns(weights)
    # The neck of the released CB-DINO is a list of one. A neck of several parts is another's. The
    # prefix that tells is gone after the loop.
    is_listed_neck = any(key.startswith(_DINO) for key in weights) and not any(
        key.startswith("neck.1.") for key in weights
    )
    converted: dict[str, Tensor] = {}
    old_names: dict[str, str] = {}
    for old, value in weights.items():
        new = _rename(old)
        if is_listed_neck and new.startswith("neck.0."):
            new = "neck." + new.removeprefix("neck.0.")
        if new in converted:
            raise ValueError(
                f"convert_state_dict: expected one tensor for {new}, got {old_names[new]} and {old}"
            )
        converted[new], old_names[new] = value, old
    return converted


def convert_on_load(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Rename released weights in place, before ``module`` takes its own from them.

    For ``register_load_state_dict_pre_hook`` of a whole detector or segmentor, so that whoever
    loads a released checkpoint need not know that its names are others.

    Args:
        module: what loads.
        state_dict: of ``module`` and of what it may be a part of.
        prefix: what the names of ``module`` begin with there.
    """
    convert_in_place(convert_state_dict, state_dict, prefix)


def convert_in_place(
    convert: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    state_dict: dict[str, Tensor],
    prefix: str,
) -> None:
    """Rename what a module will load; names that are today's keep their order.

    Args:
        convert: :func:`convert_state_dict`, or the like of other models.
        state_dict: of the module and of what it may be a part of.
        prefix: what the names of the module begin with there.
    """
    own = {
        key.removeprefix(prefix): value
        for key, value in state_dict.items()
        if key.startswith(prefix)
    }
    converted = convert(own)
    # Names are all that is compared: a conversion that joins tensors changes their names as well.
    if list(converted) == list(own):
        return
    for key in own:
        del state_dict[prefix + key]
    state_dict.update({prefix + key: value for key, value in converted.items()})


def require_tensors(name: str, state_dict: Mapping[str, Any]) -> None:
    """Refuse, in the words of the function ``name``, a mapping that holds more than tensors.

    Raises:
        TypeError: a value is no tensor, as in a whole checkpoint.
    """
    for key, value in state_dict.items():
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name}: expected names with a tensor each, got {key!r} with "
                f"{type(value).__name__}; of a checkpoint give its state_dict"
            )


def _rename(key: str) -> str:
    # All rules in turn, not the first that fits: a layer of DINO loses its prefix by one and has
    # its parts renamed by others.
    for pattern, replacement in _RULES:
        key = pattern.sub(replacement, key)
    return key


def _join_split_ffns(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put InternImage-G's feed-forward layers together, under the names of ordinary ones.

    ``fc1`` is cut along its outputs, ``fc2`` along its inputs with one bias for all.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in weights.items():
        if match := _SPLIT_FFN.match(key):
            parts.setdefault(match[1], {})[key.removeprefix(match[1])] = value
    joined: dict[str, Tensor] = {}
    done: set[str] = set()
    for key, value in weights.items():
        match = _SPLIT_FFN.match(key)
        if match is None:
            joined[key] = value
        elif match[1] not in done:  # the whole layer comes where its first part stood
            done.add(match[1])
            for name, tensor in _join_ffn(match[1], parts[match[1]]).items():
                if match[1] + name in weights:
                    raise ValueError(
                        f"convert_state_dict: expected one tensor for {match[1]}{name}, got it "
                        f"and {key}"
                    )
                joined[match[1] + name] = tensor
    return joined


def _join_ffn(prefix: str, parts: dict[str, Tensor]) -> dict[str, Tensor]:
    count = sum(name.startswith("fc1_") and name.endswith(".weight") for name in parts)
    expected = {"fc2_bias"} | {
        name
        for i in range(count)
        for name in (f"fc1_{i}.weight", f"fc1_{i}.bias", f"fc2_{i}.weight")
    }
    if not count or expected != set(parts):
        raise ValueError(
            f"convert_state_dict: expected {prefix}fc1_i.weight, fc1_i.bias, fc2_i.weight for "
            f"every i and fc2_bias, got {', '.join(sorted(parts))}"
        )
    # With F the hidden width: fc1 is (F, D) in mmcv's layer, fc2 (D, F).
    return {
        "layers.0.0.weight": torch.cat([parts[f"fc1_{i}.weight"] for i in range(count)]),  # (F, D)
        "layers.0.0.bias": torch.cat([parts[f"fc1_{i}.bias"] for i in range(count)]),
        # (D, F): each part takes its own share of the hidden numbers, and the output is their sum.
        "layers.1.weight": torch.cat([parts[f"fc2_{i}.weight"] for i in range(count)], dim=1),
        "layers.1.bias": parts["fc2_bias"],
    }
