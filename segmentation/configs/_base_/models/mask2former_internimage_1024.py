"""Mask2Former, 1024 wide with 32 heads and 200 queries: ADE20K and COCO-Stuff."""

_base_ = "mask2former_internimage.py"

width = dict(embed_dims=1024, feedforward_channels=4096)
attention = dict(embed_dims=1024, num_heads=32)

model = dict(
    decode_head=dict(
        feat_channels=1024,
        out_channels=1024,
        num_queries=200,
        positional_encoding=dict(num_feats=512),
        pixel_decoder=dict(
            positional_encoding=dict(num_feats=512),
            encoder=dict(layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=width)),
        ),
        transformer_decoder=dict(
            layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=width)
        ),
    )
)

# Parts are no settings: they do not go into the config.
del width, attention
