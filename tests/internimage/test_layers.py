from __future__ import annotations

import pytest
import torch
from torch import nn

from internimage.layers import AttentionPool
from ops_dcnv3.layers import build_activation, build_norm


@pytest.mark.parametrize("norm_layer", ["LN", "BN"])
@pytest.mark.parametrize("input_layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("output_layout", ["channels_first", "channels_last"])
def test_norms_act_on_channels_in_every_layout(norm_layer, input_layout, output_layout):
    torch.manual_seed(0)
    last = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    norm = build_norm(6, norm_layer, input_layout=input_layout, output_layout=output_layout)
    norm.double().train()
    x = last.permute(0, 3, 1, 2) if input_layout == "channels_first" else last
    y = norm(x)
    if output_layout == "channels_first":
        y = y.permute(0, 2, 3, 1)
    axes, eps = ((3,), 1e-6) if norm_layer == "LN" else ((0, 1, 2), 1e-5)
    centred = last - last.mean(axes, keepdim=True)
    expected = centred / (centred.square().mean(axes, keepdim=True) + eps).sqrt()
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("norm_layer", "layouts", "index"),
    [
        ("LN", ("channels_first", "channels_first"), "1"),
        ("LN", ("channels_first", "channels_last"), "1"),
        ("LN", ("channels_last", "channels_last"), "0"),
        ("BN", ("channels_first", "channels_first"), "0"),
        ("BN", ("channels_last", "channels_last"), "1"),
    ],
)
def test_a_norm_has_the_index_of_the_released_keys(norm_layer, layouts, index):
    norm = build_norm(4, norm_layer, input_layout=layouts[0], output_layout=layouts[1])
    assert {key.split(".")[0] for key in norm.state_dict()} == {index}


@pytest.mark.parametrize(
    ("name", "kind"), [("GELU", nn.GELU), ("ReLU", nn.ReLU), ("SiLU", nn.SiLU)]
)
def test_activations_have_their_names(name, kind):
    assert isinstance(build_activation(name), kind)
    with pytest.raises(ValueError, match=f"expected act_layer in .*got '{name.lower()}'"):
        build_activation(name.lower())


def test_attention_pooling_is_attention_written_out(fill):
    pool = fill(AttentionPool(12, num_heads=3, out_channels=5).double())
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    attention = pool.cross_dcn
    query = pool.norm1_q(x.mean(1, keepdim=True)) @ attention.q.weight.T + attention.q_bias
    key = pool.norm1_k(x) @ attention.k.weight.T + attention.k_bias
    value = pool.norm1_v(x) @ attention.v.weight.T + attention.v_bias
    heads = []
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        weights = (query[..., part] @ key[..., part].transpose(1, 2) / 2).softmax(-1)
        heads.append(weights @ value[..., part])
    joined = torch.cat(heads, dim=-1)[:, 0]
    expected = joined @ attention.proj.weight.T + attention.proj.bias
    torch.testing.assert_close(pool(x), expected, rtol=0, atol=1e-10)
