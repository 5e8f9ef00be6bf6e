"""80,000 steps for Mask2Former on InternImage-H: rates that fall with each layer of the backbone.

The embeddings of queries, levels, classes and masks have the stem's rate, the smallest, as in the
released models.
"""

_base_ = "schedule_80k.py"

optim_wrapper = dict(
    optimizer=dict(lr=2e-5),
    paramwise_cfg=dict(
        layer_decay_rate=0.95,
        first_layer_names=(
            "query_embed",
            "query_feat",
            "level_embed",
            "cls_embed",
            "mask_embed",
        ),
    ),
)
