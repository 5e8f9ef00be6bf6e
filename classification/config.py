"""Settings of a training run: defaults, YAML files with inheritance, command-line overrides.

Later sources win: the defaults below, the ``BASE`` files of a YAML file, the file itself, the
flags, and last ``--opts``. A key that no default names is an error, at every level, so that a
misspelt setting cannot pass unnoticed; and every key below changes what a run does.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from classification.conflicts import check_conflicts, warn_about_idle_settings
from classification.rules import check_value, to_known_choice
from internimage.script import nearest_hint

BASE_KEY = "BASE"  # a list of parent files, relative to the file that names them

# Keys of the original that are none here -> why.
REMOVED = {"LOCAL_RANK": "the launcher's environment or --local-rank says it"}


def get_default_config() -> CfgNode:
    """Returns the default settings, one group a concern."""
    config = CfgNode()
    config.SEED = 0
    config.OUTPUT = "output"  # run folder = OUTPUT/MODEL.NAME, and TAG in it unless "default"
    config.TAG = "default"
    config.PRINT_FREQ = 10  # steps between two updates of the progress bar and the event files
    config.SAVE_FREQ = 1  # epochs between two checkpoints to resume from
    config.SAVE_STEPS = 0  # steps between two checkpoints within an epoch; 0 saves none there
    config.SAVE_CKPT_NUM = 1  # how many of those are kept, beside the best
    config.EVAL_FREQ = 1  # epochs between two evaluations
    config.EVAL_MODE = False  # evaluate MODEL.RESUME or MODEL.PRETRAINED and stop
    config.EVAL_22K_TO_1K = False  # a 21,841-class model is evaluated on the 1,000 classes
    config.THROUGHPUT_MODE = False  # measure images a second and stop
    config.AMP_OPT_LEVEL = "O1"  # O0: float32; O1 and O2: autocast to AMP_TYPE
    config.AMP_TYPE = "float16"  # or bfloat16, which needs no loss scaling
    config.LOGGER = "tensorboard"  # beside metrics.csv: tensorboard, wandb or none

    config.DATA = CfgNode()
    config.DATA.DATASET = "imagenet"  # what it is: a name of classification/data/
    config.DATA.DATA_PATH = ""  # where it is
    config.DATA.STORAGE = "auto"  # how it is stored: folder, list, zip, shards; auto looks
    config.DATA.ZIP_MODE = False  # True: STORAGE zip
    config.DATA.IMG_ON_MEMORY = False  # read all files once and keep their bytes: CACHE_MODE
    config.DATA.CACHE_MODE = "part"  # full: every rank keeps all; part: its share; no: nothing
    config.DATA.MAX_BAD_SHARE = 0.01  # training stops when more files than this are unreadable
    config.DATA.BATCH_SIZE = 128  # images a rank
    config.DATA.IMG_SIZE = 224  # pixels
    config.DATA.INTERPOLATION = "bicubic"
    config.DATA.NUM_WORKERS = 8  # a rank; 0 loads in the training process
    config.DATA.PIN_MEMORY = True  # on CUDA

    config.MODEL = CfgNode()
    config.MODEL.TYPE = "intern_image"  # or intern_image_meta_former: an image, its time and place
    config.MODEL.NAME = ""  # empty: the name of the YAML file
    config.MODEL.ARCH = "internimage_t"  # the size, a name of internimage.list_models()
    config.MODEL.PRETRAINED = ""  # weights to start from: a file or a released name
    config.MODEL.RESUME = ""  # checkpoint of a run to go on with
    config.MODEL.NUM_CLASSES = None  # None: as many as the data has; more is allowed
    config.MODEL.DROP_RATE = 0.0
    config.MODEL.DROP_PATH_RATE = 0.1
    config.MODEL.DROP_PATH_TYPE = "linear"  # or uniform: the same rate in all blocks
    config.MODEL.LABEL_SMOOTHING = 0.1
    # None: as ARCH has it.
    config.MODEL.INTERN_IMAGE = CfgNode(dict.fromkeys(ARCH_OVERRIDES))

    config.TRAIN = CfgNode()
    config.TRAIN.START_EPOCH = 0  # of a run that does not resume: where its schedule begins
    config.TRAIN.EPOCHS = 300
    config.TRAIN.WARMUP_EPOCHS = 20
    # The three rates are for 512 images a step; a run multiplies them by (images a step) / 512.
    config.TRAIN.BASE_LR = 5e-4
    config.TRAIN.WARMUP_LR = 5e-7
    config.TRAIN.MIN_LR = 5e-6
    config.TRAIN.WEIGHT_DECAY = 0.05
    config.TRAIN.CLIP_GRAD = 5.0  # total gradient norm; 0 clips nothing
    config.TRAIN.AUTO_RESUME = True  # go on from the newest checkpoint in the run's folder
    config.TRAIN.ACCUMULATION_STEPS = 1  # batches a step; 0 counts as 1
    config.TRAIN.LR_LAYER_DECAY = False
    config.TRAIN.LR_LAYER_DECAY_RATIO = 0.875
    config.TRAIN.FINE_TUNE = False  # True: for weights of PRETRAINED; without them a warning
    config.TRAIN.RAND_INIT_FT_HEAD = False  # True: PRETRAINED's classifier starts afresh, small
    # Speed and memory.
    config.TRAIN.STRATEGY = "ddp"  # or fsdp, deepspeed: how ranks share the work and the memory
    config.TRAIN.ZERO_STAGE = 1  # of "deepspeed": 1, 2, 3
    config.TRAIN.OFFLOAD_OPTIMIZER = "none"  # of "deepspeed": cpu
    config.TRAIN.OFFLOAD_PARAM = "none"  # of "deepspeed" with ZERO_STAGE 3, of "fsdp": cpu
    config.TRAIN.DEEPSPEED_CONFIG = ""  # of "deepspeed": a JSON file for all that is not here
    config.TRAIN.GRAD_SCALER = True  # False: float16 without loss scaling
    config.TRAIN.USE_CHECKPOINT = False  # recompute the blocks in the backward pass: less memory
    config.TRAIN.CHANNELS_LAST = False  # memory format of the convolutions
    config.TRAIN.COMPILE = False  # torch.compile
    config.TRAIN.SYNC_BN = False  # batch statistics over all ranks
    config.TRAIN.LR_SCHEDULER = CfgNode()
    config.TRAIN.LR_SCHEDULER.NAME = "cosine"
    config.TRAIN.LR_SCHEDULER.DECAY_EPOCHS = 30  # of "step"
    config.TRAIN.LR_SCHEDULER.DECAY_RATE = 0.1  # of "step"
    config.TRAIN.OPTIMIZER = CfgNode()
    config.TRAIN.OPTIMIZER.NAME = "adamw"
    config.TRAIN.OPTIMIZER.EPS = 1e-8  # of "adamw"
    config.TRAIN.OPTIMIZER.BETAS = (0.9, 0.999)  # of "adamw"
    config.TRAIN.OPTIMIZER.MOMENTUM = 0.9  # of "sgd"
    config.TRAIN.OPTIMIZER.USE_ZERO = False  # of "ddp": each rank keeps a share of the states
    config.TRAIN.OPTIMIZER.DCN_LR_MUL = None  # learning-rate factor of the offset branches
    config.TRAIN.OPTIMIZER.FREEZE_BACKBONE = None  # stages (from 0) that do not learn
    config.TRAIN.EMA = CfgNode()
    config.TRAIN.EMA.ENABLE = False  # True: the averaged weights are evaluated and saved
    config.TRAIN.EMA.DECAY = 0.9998

    config.AUG = CfgNode()
    # All data sets but the digits: a mirrored or cropped digit is no digit.
    config.AUG.COLOR_JITTER = 0.4  # without AUTO_AUGMENT
    config.AUG.AUTO_AUGMENT = "rand-m9-mstd0.5-inc1"  # timm's notation; none
    config.AUG.HFLIP = 0.5  # probability
    config.AUG.CROP_SCALE = (0.08, 1.0)  # share of the image's area in a training crop
    # All.
    config.AUG.ROTATE = 0.0  # degrees to either side
    config.AUG.TRANSLATE = 0.0  # fraction of the image's side, to either side
    config.AUG.SCALE = 0.0  # size factor drawn from [1 - SCALE, 1 + SCALE]
    config.AUG.SHEAR = 0.0  # degrees to either side
    config.AUG.REPROB = 0.25  # random erasing
    config.AUG.REMODE = "pixel"
    config.AUG.RECOUNT = 1
    config.AUG.MIXUP = 0.8
    config.AUG.CUTMIX = 1.0
    config.AUG.CUTMIX_MINMAX = None
    config.AUG.MIXUP_PROB = 1.0
    config.AUG.MIXUP_SWITCH_PROB = 0.5
    config.AUG.MIXUP_MODE = "batch"
    config.AUG.RANDOM_RESIZED_CROP = False  # of the test images, beside TEST.CROP False
    config.AUG.MEAN = (0.485, 0.456, 0.406)
    config.AUG.STD = (0.229, 0.224, 0.225)

    config.TEST = CfgNode()
    config.TEST.CROP = True  # the middle square; False: the whole image, squeezed into a square
    config.TEST.SEQUENTIAL = False  # True: every rank evaluates all images, not its share
    config.TEST.WARMUP_STEPS = 50  # of THROUGHPUT_MODE: forward passes before the timed ones
    config.TEST.TIMED_STEPS = 30  # of THROUGHPUT_MODE
    return config


# Key of MODEL.INTERN_IMAGE -> argument of the model.
ARCH_OVERRIDES = {
    "CORE_OP": "core_op",
    "CHANNELS": "channels",
    "DEPTHS": "depths",
    "GROUPS": "groups",
    "MLP_RATIO": "mlp_ratio",
    "LAYER_SCALE": "layer_scale",
    "OFFSET_SCALE": "offset_scale",
    "POST_NORM": "post_norm",
    "RES_POST_NORM": "res_post_norm",
    "DW_KERNEL_SIZE": "dw_kernel_size",
    "LEVEL2_POST_NORM": "level2_post_norm",
    "LEVEL2_POST_NORM_BLOCK_IDS": "level2_post_norm_block_ids",
    "CENTER_FEATURE_SCALE": "center_feature_scale",
    "USE_CLIP_PROJECTOR": "use_clip_projector",
    "REMOVE_CENTER": "remove_center",
}


def get_config(path: str | Path, options: Sequence[str] = ()) -> CfgNode:
    """Reads the settings of a run.

    Args:
        path: A YAML file.
        options: ``KEY VALUE KEY VALUE ...``, applied last; keys are dotted (``TRAIN.EPOCHS``).

    Returns:
        The frozen settings.

    Raises:
        ValueError: A file is missing or no YAML mapping, a key is unknown, a value breaks a rule,
            or two contradict each other.
    """
    config = merge_config(path, options)
    check_config(config)
    config.freeze()
    return config


def merge_config(path: str | Path, options: Sequence[str] = ()) -> CfgNode:
    """Reads the settings as ``get_config`` does, without checking or freezing them.

    Raises:
        ValueError: A file is missing or no YAML mapping, or a key is unknown.
    """
    path = Path(path)
    config = get_default_config()
    _merge_file(config, path, children=())
    _merge_options(config, options)
    config.MODEL.NAME = config.MODEL.NAME or path.stem
    config.DATA.DATASET = config.DATA.DATASET.lower()  # the original's imagenet22K is imagenet22k
    # The original's default is 0, which means one batch a step there too.
    config.TRAIN.ACCUMULATION_STEPS = config.TRAIN.ACCUMULATION_STEPS or 1
    return config


def check_config(config: CfgNode) -> None:
    """Checks every value against its rule, and all of them against each other.

    A setting that has no effect beside the others is a warning.

    Raises:
        ValueError: A value breaks its rule, or two contradict each other.
    """
    defaults = dict(flatten(get_default_config()))
    for key, value in flatten(config):
        if value is not None:
            check_value(key, value)
        elif defaults[key] is not None:
            raise ValueError(f"config: expected a value for {key}, got None")
    check_conflicts(config)
    warn_about_idle_settings(config, defaults)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, of which YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for index, (key, _) in enumerate(node.value):
            if key.value in keys[:index]:
                problem = f"the key {key.value} for the second time"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep)


def _merge_file(config: CfgNode, path: Path, children: tuple[Path, ...]) -> None:
    """Merges a YAML file, its ``BASE`` files first."""
    if path.resolve() in children:
        raise ValueError(f"config: expected {BASE_KEY} files without a circle, got {path} twice")
    if not path.is_file():
        named = f" (named by {children[-1]})" if children else ""
        raise ValueError(f"config: expected an existing YAML file, got {path}{named}")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise ValueError(
            f"config: expected valid YAML in {path}, got {error.problem}{place}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"config: expected valid YAML in {path}, got {reason}") from error
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise ValueError(f"config: expected a mapping in {path}, got {type(content).__name__}")
    parents = content.pop(BASE_KEY, [])
    parents = [parents] if isinstance(parents, str) else parents
    if not isinstance(parents, list) or not all(isinstance(name, str) for name in parents):
        raise ValueError(
            f"config: expected {BASE_KEY} a file or a list of files in {path}, got {parents!r}"
        )
    for parent in filter(None, parents):  # the original writes [""] where there is none
        _merge_file(config, path.parent / parent, (*children, path.resolve()))
    for key, value in flatten(content):
        _set(config, key, value, source=str(path))


def _merge_options(config: CfgNode, options: Sequence[str]) -> None:
    if len(options) % 2:
        raise ValueError(f"config: expected KEY VALUE pairs, got {' '.join(options)}")
    defaults = dict(flatten(get_default_config()))
    for key, text in zip(options[::2], options[1::2], strict=True):
        try:
            # A text is taken as it is: a folder may be called 2026.
            value = text if isinstance(defaults.get(key), str) else yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        _set(config, key, value, source="--opts")


def _set(config: CfgNode, key: str, value: Any, *, source: str) -> None:
    """Sets one dotted key, with the type of its default."""
    known = [name for name, _ in flatten(get_default_config())]
    if key not in known:
        if key in REMOVED:
            raise ValueError(f"config: expected no {key} in {source}: {REMOVED[key]}")
        if isinstance(value, dict) or any(name.startswith(f"{key}.") for name in known):
            raise ValueError(f"config: expected keys under {key} in {source}, got {value!r}")
        hint = nearest_hint(key, known)
        raise ValueError(f"config: expected a known key in {source}, got {key}{hint}")
    group, _, leaf = key.rpartition(".")
    node = config
    for name in filter(None, group.split(".")):
        node = node[name]
    value = _coerce(key, value, dict(flatten(get_default_config()))[key], source=source)
    node[leaf] = to_known_choice(key, value)


def _coerce(key: str, value: Any, default: Any, *, source: str) -> Any:
    """Returns ``value`` in the type of ``default``; int counts as float, a list as a tuple."""
    if isinstance(value, str) and not isinstance(default, str):
        # YAML 1.1 reads 5e-4 as text: a float needs a dot there.
        try:
            value = None if value == "None" else float(value)
        except ValueError:
            pass
    if value is None or default is None:
        return tuple(value) if isinstance(value, list) else value
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        raise ValueError(
            f"config: expected {key} of type {type(default).__name__} in {source}, got {value!r}"
        )
    return value


def flatten(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, value) of every leaf."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
