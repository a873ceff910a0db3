"""What each library's own configuration says of pixels, as a `Preprocess`.

Each function reads the configuration as its library does, defaults included, and refuses what it cannot repeat. The
constants are the evaluation transforms of checkpoints that come without a configuration.
"""

from collections.abc import Mapping, Sequence
from math import floor
from typing import Any, Literal, NamedTuple, cast, get_args

from mirada.checkpoints.files import Files
from mirada.errors import MiradaError
from mirada.preprocess import TORCH_MODES, Interpolation, Preprocess, Resampler

__all__ = [
    "DINO", "DINOV2", "DINOV3", "DINOV3_SATELLITE", "VISSL", "from_hf", "from_open_clip", "from_timm",
    "from_torchvision", "hf_config", "mae", "openai",
]  # fmt: skip

Config = Mapping[str, Any]
Colour = tuple[float, float, float]
Rule = Literal["squash", "crop", "pad"]

IMAGENET: tuple[Colour, Colour] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP: tuple[Colour, Colour] = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF: tuple[Colour, Colour] = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
SATELLITE: tuple[Colour, Colour] = (0.430, 0.411, 0.296), (0.213, 0.156, 0.143)
BLACK = (0, 0, 0)


def from_torchvision(
    resize: int, crop: int, interpolation: str, *, antialias: bool = True, colours: tuple[Colour, Colour] = IMAGENET
) -> Preprocess:
    """Resize(resize), CenterCrop(crop), ToTensor, Normalize: torchvision's `ImageClassification` preset, as its weights
    name it, and what most recipes are. Without `antialias`, as the preset does with tensors if told to."""
    return Preprocess(
        (crop, crop), "crop", (resize, resize), _interpolation(interpolation, "torchvision"),
        "pillow" if antialias else "torch-float", antialias, fill=BLACK, mean=colours[0], std=colours[1],
    )  # fmt: skip


def mae(image_size: int = 224) -> Preprocess:
    """github.com/facebookresearch/mae util/datasets.py, build_transform: above 224 pixels nothing is cut off."""
    return from_torchvision(int(image_size / (224 / 256 if image_size <= 224 else 1)), image_size, "bicubic")


def openai(image_size: int) -> Preprocess:
    """github.com/openai/CLIP clip/clip.py, _transform; `image_size` is the model's input resolution."""
    return from_torchvision(image_size, image_size, "bicubic", colours=CLIP)


def from_timm(pretrained_cfg: Config) -> Preprocess:
    """`create_transform(**resolve_data_config(pretrained_cfg=...))`: what timm does at test time by default, and so at
    `input_size`, even where there is a `test_input_size`."""
    cfg = {key: value for key, value in pretrained_cfg.items() if value}  # as timm: what is empty is as good as absent
    channels, height, width = _sides(cfg.get("input_size", (3, 224, 224)), 3, "timm's input_size")
    if channels != 3:
        raise MiradaError(f"timm's input_size is {cfg['input_size']}: Mirada loads models of three channels only.")
    fraction, mode = _positive(cfg.get("crop_pct", 0.875), "timm's crop_pct"), cfg.get("crop_mode", "center")
    if mode not in TIMM_MODES:
        raise MiradaError(f"timm's crop_mode is {mode!r}: Mirada knows {', '.join(TIMM_MODES)}.")
    return Preprocess(
        (height, width), TIMM_MODES[mode], (floor(height / fraction), floor(width / fraction)),
        _interpolation(cfg.get("interpolation", "bicubic"), "timm"), fill=None if mode == "border" else BLACK,
        mean=_colour(cfg.get("mean", IMAGENET[0]), "timm's mean"),
        std=_colour(cfg.get("std", IMAGENET[1]), "timm's std"),
    )  # fmt: skip


TIMM_MODES: dict[str, Rule] = {"center": "crop", "squash": "squash", "border": "pad"}


def from_open_clip(preprocess_cfg: Config, image_size: int | Sequence[int]) -> Preprocess:
    """`image_transform_v2(PreprocessCfg(...), is_train=False)`. The size is the vision tower's `image_size`, which is
    what open_clip takes whatever the configuration says."""
    cfg = {key: value for key, value in preprocess_cfg.items() if value is not None}
    size = _pair(image_size, "open_clip's image_size")
    mode = cfg.get("resize_mode") or "shortest"
    if mode not in OPEN_CLIP_MODES:
        raise MiradaError(f"open_clip's resize_mode is {mode!r}: Mirada knows {', '.join(OPEN_CLIP_MODES)}.")
    smooth = cfg.get("interpolation") == "bilinear" and (mode != "shortest" or size[0] == size[1])
    return Preprocess(  # open_clip forgets `interpolation` on the way to the shorter side of an oblong
        size, OPEN_CLIP_MODES[mode], None, "bilinear" if smooth else "bicubic", fill=(cfg.get("fill_color", 0),) * 3,
        mean=_colour(cfg.get("mean") or CLIP[0], "open_clip's mean"),
        std=_colour(cfg.get("std") or CLIP[1], "open_clip's std"),
    )  # fmt: skip


OPEN_CLIP_MODES: dict[str, Rule] = {"shortest": "crop", "longest": "pad", "squash": "squash"}


class _Processor(NamedTuple):
    """The defaults of one of transformers' image processors. `resample` counts as Pillow does."""

    size: int
    shortest: bool  # whether one number stands for the shorter side, not for a square
    crop: int | None
    resample: int
    colours: tuple[Colour, Colour]


HF_PROCESSORS = {
    "ViT": _Processor(224, False, None, 2, HALF),
    "DeiT": _Processor(256, False, 224, 3, HALF),
    "Bit": _Processor(224, True, 224, 3, CLIP),
    "CLIP": _Processor(224, True, 224, 3, CLIP),
    "ConvNext": _Processor(384, True, None, 3, HALF),
    "Siglip": _Processor(224, False, None, 3, HALF),
    "DINOv3ViT": _Processor(224, False, None, 2, IMAGENET),
}
HF_MODEL_TYPES = {
    "vit": "ViT", "deit": "DeiT", "vit_mae": "ViT", "dinov2": "Bit", "dinov2_with_registers": "Bit", "clip": "CLIP",
    "dinov3_vit": "DINOv3ViT", "siglip": "Siglip", "siglip2": "Siglip2", "resnet": "ConvNext", "regnet": "ConvNext",
}  # fmt: skip
HF_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")


def hf_config(files: Files) -> Config | None:
    """The image processor's configuration among a checkpoint's files, where transformers looks for it; None if it has
    none."""
    both = files.json("processor_config.json") or {}
    found: Config | None = both.get("image_processor") or files.json("preprocessor_config.json")
    return found


def from_hf(config: Config | None, model_type: str, image_size: int | None = None) -> Preprocess:
    """What `AutoImageProcessor` of transformers makes of a `preprocessor_config.json`.

    That is the one that resizes with torchvision, which it takes if torchvision is there, as it mostly is; the one with
    Pillow differs by up to 11 grey levels at "bicubic" (see `Preprocess.resampler`). torchvision has no box or hamming
    interpolation and, for long, no lanczos, so that those are Pillow's.

    Args:
        config: the file's content (see `hf_config`). Without one transformers refuses to guess; here None stands for
            the defaults of the model type at `image_size`, so say in the model's provenance that they are assumed.
        model_type: of the model's config.json; its processor is the one of files that name none.
    """
    given = {key: value for key, value in (config or {}).items() if value is not None}
    name = str(given.get("image_processor_type") or given.get("feature_extractor_type") or "")
    for ending in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        name = name.removesuffix(ending)
    name = name or HF_MODEL_TYPES.get(model_type, model_type)
    if name not in HF_PROCESSORS:
        raise MiradaError(
            f"transformers' image processor {name!r} is not one of {', '.join(HF_PROCESSORS)}, which Mirada knows: "
            "load the model with one of those."
        )
    default = HF_PROCESSORS[name]
    if config is None and image_size is not None:
        given = {"size": image_size * default.size // (default.crop or default.size), "crop_size": image_size}
    if given.get("do_pad"):
        raise MiradaError("transformers' image processor is told to pad (do_pad), which Mirada does not know.")
    size, resize, box = _hf_sizes(name, given, default)
    interpolation = _hf_interpolation(given.get("resample", default.resample))
    resampler: Resampler = "torch" if interpolation in TORCH_MODES else "pillow"
    if name == "DINOv3ViT":  # resizes fractions, not bytes, and does not clamp what bicubic takes below 0 and above 1
        if interpolation not in ("nearest", "bilinear"):
            raise MiradaError(
                f"The image processor of DINOv3 is told to resize with {interpolation} interpolation, which leaves the "
                "range of pixels: Mirada knows nearest and bilinear."
            )
        resampler = "torch-float"
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if given.get("do_normalize", True):
        mean = _colour(given.get("image_mean", default.colours[0]), "transformers' image_mean")
        std = _colour(given.get("image_std", default.colours[1]), "transformers' image_std")
    factor = _positive(given.get("rescale_factor", 1 / 255), "transformers' rescale_factor")
    scale = 255 * (factor if given.get("do_rescale", True) else 1)
    return Preprocess(
        size, resize, box, interpolation, resampler, halves="down", fill=BLACK,
        mean=tuple(value / scale for value in mean), std=tuple(value / scale for value in std),
    )  # fmt: skip


def _hf_sizes(
    name: str, given: Config, default: _Processor
) -> tuple[tuple[int, int], Literal["squash", "crop", "none"], tuple[int, int] | None]:
    """The final size, how to resize, and what for."""
    crop = None
    if given.get("do_center_crop", default.crop is not None):
        crop = _hf_pair(given.get("crop_size", default.crop), "crop_size")
    if not given.get("do_resize", True):
        if crop is None:
            raise MiradaError("transformers' image processor neither resizes nor crops, so that no size is known.")
        return crop, "none", None
    size = given.get("size", default.size)
    if isinstance(size, int):
        shortest = given.get("default_to_square") is False if "default_to_square" in given else default.shortest
        size = {"shortest_edge": size} if shortest else {"height": size, "width": size}
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        side = int(size["shortest_edge"])
        if name == "ConvNext":
            if crop not in (None, (side, side)):
                raise MiradaError(f"transformers' image processor crops twice, to {side} and to {crop}: is that meant?")
            if side >= 384:
                return (side, side), "squash", None
            larger = int(side / _positive(given.get("crop_pct", 224 / 256), "transformers' crop_pct"))
            return (side, side), "crop", (larger, larger)
        if crop is not None:
            return crop, "crop", (side, side)
        raise MiradaError(
            f"transformers' image processor resizes the shorter side to {side} and does not crop, so that images keep "
            "their shapes: set do_center_crop and crop_size in preprocessor_config.json."
        )
    if name == "ConvNext":
        raise MiradaError(f"transformers' size is {size!r}: the image processor of ConvNext takes a shortest_edge.")
    box = _hf_pair(size, "size")
    return crop or box, "squash", box


def _hf_pair(size: Any, name: str) -> tuple[int, int]:
    """Height and width from what transformers accepts for it."""
    if isinstance(size, Mapping):
        if set(size) != {"height", "width"}:
            raise MiradaError(f"transformers' {name} is {dict(size)}: Mirada knows height and width, or shortest_edge.")
        size = size["height"], size["width"]
    return _pair(size, f"transformers' {name}")


def _hf_interpolation(resample: Any) -> Interpolation:
    if not isinstance(resample, int) or not 0 <= resample < len(HF_RESAMPLE):
        raise MiradaError(f"transformers' resample is {resample!r}: it must be a number from 0 to 5.")
    return cast(Interpolation, HF_RESAMPLE[resample])


def _interpolation(name: str, library: str) -> Interpolation:
    if name not in get_args(Interpolation):
        known = ", ".join(get_args(Interpolation))
        raise MiradaError(f"{library}'s interpolation is {name!r}: Mirada knows {known}.")
    return cast(Interpolation, name)


def _pair(value: int | Sequence[int], what: str) -> tuple[int, int]:
    """Height and width; one number stands for both."""
    height, width = _sides((value, value) if isinstance(value, int) else value, 2, what)
    return height, width


def _sides(value: Sequence[int], count: int, what: str) -> Sequence[int]:
    if not isinstance(value, Sequence) or len(value) != count or not all(isinstance(v, int) and v > 0 for v in value):
        raise MiradaError(f"{what} is {value!r}: it must be {count} whole numbers above 0.")
    return value


def _positive(value: Any, what: str) -> float:
    if not isinstance(value, (int, float)) or value <= 0:
        raise MiradaError(f"{what} is {value!r}: it must be a number above 0.")
    return value


def _colour(value: float | Sequence[float], what: str) -> Colour:
    """One number for all channels, or one for each."""
    values = (value,) * 3 if isinstance(value, (int, float)) else value
    if not isinstance(values, Sequence) or len(values) != 3 or not all(isinstance(v, (int, float)) for v in values):
        raise MiradaError(f"{what} is {value!r}: it must be three numbers, for red, green and blue.")
    return float(values[0]), float(values[1]), float(values[2])


# github.com/facebookresearch/dino eval_linear.py, eval_knn.py
DINO = from_torchvision(256, 224, "bicubic")
# github.com/facebookresearch/dinov2 dinov2/data/transforms.py, make_classification_eval_transform
DINOV2 = from_torchvision(256, 224, "bicubic")
# github.com/facebookresearch/dinov3 README.md, "Image transforms", for the weights LVD-1689M and SAT-493M
DINOV3 = Preprocess((256, 256), "squash", None, "bilinear", "torch", mean=IMAGENET[0], std=IMAGENET[1])
DINOV3_SATELLITE = Preprocess((256, 256), "squash", None, "bilinear", "torch", mean=SATELLITE[0], std=SATELLITE[1])
# github.com/facebookresearch/vissl configs/config/benchmark/linear_image_classification/imagenet1k/
VISSL = from_torchvision(256, 224, "bilinear")
