"""Pascal Context, 59 classes: the background is ignored."""

_base_ = "pascal_context.py"

# A 0 in a mask is the background, which is ignored; class 0 is its 1.
reduce_zero_label = True

check = dict(type="CheckSegMap", num_classes=59)
train_pipeline = [*_base_.train_pipeline[:2], check, *_base_.train_pipeline[3:]]
test_pipeline = [*_base_.test_pipeline[:-2], check, _base_.test_pipeline[-1]]
views = _base_.tta_pipeline[1].transforms
tta_pipeline = [
    _base_.tta_pipeline[0],
    dict(type="TestTimeAug", transforms=[*views[:-2], [check], views[-1]]),
]

dataset = dict(type="PascalContextDataset59", reduce_zero_label=reduce_zero_label)
train_dataloader = dict(dataset=dict(dataset, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader

# Parts are no settings: they do not go into the config.
del check, views, dataset
