"""The pixels of each library's own transform, to a grey level, from that library's own configuration."""

import importlib.util
import io
import json
import os
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import open_clip
import pyarrow.parquet as pq
import pytest
import timm
import torch
import torchvision
from matplotlib import cbook
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torchvision.transforms import v2

from mirada.checkpoints import pixels
from mirada.checkpoints.files import LocalFiles
from mirada.errors import MiradaError
from mirada.preprocess import Preprocess

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers

T = torchvision.transforms
BICUBIC = T.InterpolationMode.BICUBIC
SHARED = Path(os.environ.get("MIRADA_DATA", "no-data"))  # a folder of real data sets, where there is one
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def photographs() -> list[Image.Image]:
    """A portrait that matplotlib carries, two landscapes of scikit-learn's, and some of ImageNet's."""
    files = [Path(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))]
    if learn := importlib.util.find_spec("sklearn"):
        files += sorted(Path(str(learn.origin)).parent.glob("datasets/images/*.jpg"))
    found: list[Path | io.BytesIO] = list(files)
    if (sample := SHARED / "imagenet1k_sample" / "all.parquet").is_file():
        rows = next(pq.ParquetFile(sample).iter_batches(batch_size=12, columns=["image"])).to_pydict()["image"]
        found += [io.BytesIO(row["bytes"] if isinstance(row, dict) else row) for row in rows]
    return [Image.open(file).convert("RGB") for file in found]


PHOTOGRAPHS = photographs()
HOPPER = PHOTOGRAPHS[0]  # 512x600
SMALL = HOPPER.resize((131, 90))
ODD = [
    SMALL, SMALL.transpose(Image.Transpose.ROTATE_90), HOPPER.crop((150, 100, 167, 119)),
    HOPPER.crop((100, 0, 380, 600)), HOPPER.crop((0, 200, 60, 207)), HOPPER.crop((250, 0, 251, 18)),
    HOPPER.crop((200, 300, 218, 301)), Image.new("RGB", (1, 1), (9, 200, 77)),
]  # fmt: skip
HAIRS = [HOPPER.crop((250, 0, 252, 400)), HOPPER.crop((0, 300, 500, 303))]  # too long to be made whole


def same(preprocess, theirs, images=(*PHOTOGRAPHS, *ODD)):
    """Whether every pixel of every image is, to a grey level in 255, that of the original's transform."""
    std = torch.tensor(preprocess.std)[:, None, None]
    for image in images:
        expected, found = theirs(image), preprocess(image)
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype == torch.float32
        assert ((found - expected).abs() * std * 255).max() < 1.001, image.size
    assert len(images) == 1 or not torch.equal(preprocess(images[0]), preprocess(images[1]))
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


# --- timm --------------------------------------------------------------------------------------------------------


def of_timm(cfg):
    return create_transform(**resolve_data_config(pretrained_cfg=cfg))


@pytest.mark.parametrize("cfg", [
    {"num_classes": 10},
    {"input_size": (3, 224, 224), "crop_pct": 0.875, "interpolation": "bilinear"},
    {"input_size": (3, 224, 224), "crop_pct": 0.9, "interpolation": "bicubic", "mean": (0.5,) * 3, "std": (0.5,) * 3},
    {"input_size": (3, 224, 224), "crop_pct": 0.95, "interpolation": "bicubic", "crop_mode": None},
    {"input_size": (3, 384, 384), "crop_pct": 1.0, "interpolation": "bicubic", "crop_mode": "center"},
    {"input_size": (3, 518, 518), "crop_pct": 1.0, "test_input_size": (3, 640, 640), "test_crop_pct": 0.5},
    {"input_size": (3, 378, 378), "crop_pct": 1.0, "crop_mode": "squash"},
    {"input_size": (3, 225, 225), "crop_pct": 0.9, "crop_mode": "squash", "interpolation": "bilinear"},
    {"input_size": (3, 224, 224), "crop_pct": 1.0, "crop_mode": "border"},
    {"input_size": (3, 225, 225), "crop_pct": 0.9, "crop_mode": "border", "mean": (0.1, 0.9, 0.3)},
    {"input_size": (3, 224, 160), "crop_pct": 0.9},
    {"input_size": (3, 160, 224), "crop_pct": 0.95, "interpolation": "bilinear"},
    {"input_size": (3, 160, 224), "crop_pct": 0.9, "crop_mode": "border"},
    {"input_size": (3, 160, 224), "crop_pct": 1.0, "crop_mode": "squash", "interpolation": "lanczos"},
    {"input_size": (3, 64, 64), "crop_pct": 1.1, "interpolation": "nearest"},
    {"input_size": (3, 64, 64), "interpolation": "box"},
    {"input_size": (3, 64, 64), "interpolation": "hamming"},
], ids=str)  # fmt: skip
def test_timm(cfg):
    same(pixels.from_timm(json.loads(json.dumps(cfg))), of_timm(cfg))


def test_a_hair_is_cut_before_it_takes_gigabytes():
    cfg = {"input_size": (3, 384, 384), "crop_pct": 1.0, "interpolation": "bicubic"}
    same(pixels.from_timm(cfg), of_timm(cfg), HAIRS)


def test_timm_as_its_published_models_are_configured():
    distinct = {}
    for name in timm.list_pretrained(["vit_*", "deit*", "coatnet*", "resnet18*", "resnet50*", "regnety*"]):
        cfg = timm.get_pretrained_cfg(name).to_dict()
        if cfg["input_size"][0] == 3:
            distinct.setdefault(pixels.from_timm(cfg), cfg)
    assert len(distinct) > 20
    for preprocess, cfg in distinct.items():
        same(preprocess, of_timm(cfg), [SMALL])


# --- open_clip ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cfg", [
    {"size": 224},
    {"size": 336, "interpolation": "bilinear", "resize_mode": "shortest"},
    {"size": 256, "resize_mode": "squash", "mean": (0.5,) * 3, "std": (0.5,) * 3},
    {"size": (160, 224), "resize_mode": "squash", "interpolation": "bilinear"},
    {"size": 224, "resize_mode": "longest"},
    {"size": (224, 160), "resize_mode": "longest", "fill_color": 127, "interpolation": "random"},
    {"size": (160, 225), "resize_mode": "shortest", "interpolation": "bilinear"},
], ids=str)  # fmt: skip
def test_open_clip(cfg):
    read = json.loads(json.dumps(cfg))
    same(pixels.from_open_clip(read, read["size"]), image_transform_v2(PreprocessCfg(**cfg), is_train=False))


def test_open_clip_as_its_published_models_are_configured():
    distinct = {}
    for name, tag in open_clip.list_pretrained():
        size = open_clip.get_model_config(name)["vision_cfg"].get("image_size", 224)
        cfg = open_clip.get_pretrained_cfg(name, tag)
        full = {key: cfg[key] for key in ("mean", "std", "interpolation", "resize_mode") if cfg.get(key) is not None}
        distinct.setdefault(pixels.from_open_clip(cfg, size), PreprocessCfg(**full, size=size))
    assert len(distinct) > 10
    for preprocess, cfg in distinct.items():
        same(preprocess, image_transform_v2(cfg, is_train=False), [SMALL])


# --- torchvision -------------------------------------------------------------------------------------------------


def test_torchvision():
    distinct = {}
    for name in torchvision.models.list_models(include=["vit_*", "resnet*", "regnet*"]):
        for weights in torchvision.models.get_model_weights(name):
            theirs = weights.transforms()
            (resize,), (crop,) = theirs.resize_size, theirs.crop_size
            distinct[pixels.from_torchvision(resize, crop, theirs.interpolation.value)] = theirs
    assert len(distinct) >= 5
    for preprocess, theirs in distinct.items():
        same(preprocess, theirs)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_torchvision_without_antialias(interpolation):
    mode = T.InterpolationMode(interpolation)
    theirs = torchvision.transforms._presets.ImageClassification(
        crop_size=97, resize_size=100, interpolation=mode, antialias=False
    )
    preprocess = pixels.from_torchvision(100, 97, interpolation, antialias=False)
    same(preprocess, lambda image: theirs(v2.functional.pil_to_tensor(image)))
    smooth = pixels.from_torchvision(100, 97, interpolation).pixels(HOPPER).float()
    assert (preprocess.pixels(HOPPER) - smooth).abs().max() > 9  # the test could tell


# --- transformers ------------------------------------------------------------------------------------------------

IN = {"image_mean": list(IMAGENET[0]), "image_std": list(IMAGENET[1])}
PROCESSORS = [
    ("vit", "ViT", {}),
    ("vit", "ViT", {"size": {"height": 384, "width": 384}}),
    ("vit", "ViT", {"size": {"height": 160, "width": 225}, "resample": 3}),
    ("vit", "ViT", {"resample": 0}),
    ("vit", "ViT", {"do_normalize": False}),
    ("vit", "ViT", {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [63.5] * 3}),
    ("vit", "ViT", {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}),
    ("deit", "DeiT", {}),
    ("deit", "DeiT", {"size": {"height": 438, "width": 438}, "crop_size": {"height": 384, "width": 384}, **IN}),
    ("vit_mae", "ViT", {"resample": 3, **IN}),
    ("dinov2", "Bit", {"size": {"shortest_edge": 256}, **IN}),
    ("dinov2_with_registers", "Bit", {"size": {"shortest_edge": 256}, "crop_size": {"height": 225, "width": 160}}),
    ("dinov2", "Bit", {"do_resize": False, "crop_size": {"height": 101, "width": 100}}),
    ("dinov2", "Bit", {"size": {"shortest_edge": 100}, "crop_size": {"height": 225, "width": 224}}),
    ("dinov3_vit", "DINOv3ViT", {}),
    ("dinov3_vit", "DINOv3ViT", {"size": {"height": 384, "width": 384}}),
    ("clip", "CLIP", {}),
    ("clip", "CLIP", {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}),
    ("siglip", "Siglip", {}),
    ("siglip", "Siglip", {"size": {"height": 256, "width": 256}, "resample": 2}),  # the fixed sizes of SigLIP 2
    ("resnet", "ConvNext", {"size": {"shortest_edge": 224}, **IN}),
    ("regnet", "ConvNext", {"size": {"shortest_edge": 224}, "crop_pct": 0.95}),
    ("regnet", "ConvNext", {}),
]


def processor(folder, backend="torchvision"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = transformers.AutoImageProcessor.from_pretrained(folder, backend=backend)
        return lambda image: torch.as_tensor(found(images=image, return_tensors="pt")["pixel_values"][0])


@pytest.mark.parametrize(("model_type", "name", "options"), PROCESSORS, ids=str)
def test_transformers(model_type, name, options, tmp_path):
    getattr(transformers, f"{name}ImageProcessor")(**options).save_pretrained(tmp_path)
    config = pixels.hf_config(LocalFiles(tmp_path))
    assert config["image_processor_type"] == f"{name}ImageProcessor"
    preprocess = pixels.from_hf(config, model_type)
    same(preprocess, processor(tmp_path))
    box = preprocess.box or preprocess.size
    bordered = preprocess.resize == "none" or any(made < side for made, side in zip(box, preprocess.size, strict=True))
    if preprocess.resampler == "torch" and not bordered:  # on which side the odd pixel of a border is, they disagree
        same(replace(preprocess, resampler="pillow"), processor(tmp_path, "pil"))


@pytest.mark.parametrize(("model_type", "config"), [
    ("vit", {"feature_extractor_type": "ViTFeatureExtractor", "size": 224, "resample": 2, "do_normalize": True, **IN}),
    ("vit", {"image_processor_type": "ViTImageProcessorFast", "size": [100, 120], "crop_size": None}),
    ("deit", {"feature_extractor_type": "DeiTFeatureExtractor", "size": 256, "crop_size": 224, "resample": 3}),
    ("clip", {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224, "resample": 3}),
    ("clip", {"image_processor_type": "CLIPImageProcessor", "size": 100, "crop_size": 96, "image_mean": 0.4}),
    ("regnet", {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224, "crop_pct": 0.875, "resample": 3}),
    ("siglip", {"image_processor_type": "SiglipImageProcessorFast", "size": {"height": 64, "width": 96}}),
], ids=str)  # fmt: skip
def test_transformers_configurations_of_older_versions(model_type, config, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    kind = (config.get("image_processor_type") or config["feature_extractor_type"]).removesuffix("Fast")
    theirs = getattr(transformers, kind.replace("FeatureExtractor", "ImageProcessor"))
    found = theirs(**{key: value for key, value in config.items() if not key.endswith("_type")})
    preprocess = pixels.from_hf(pixels.hf_config(LocalFiles(tmp_path)), model_type)
    same(preprocess, lambda image: found(images=image, return_tensors="pt")["pixel_values"][0])


def test_transformers_keeps_an_image_processor_with_its_tokenizer_in_one_file():
    inner = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 100}, "crop_size": 96}
    both = {"processor_config.json": {"image_processor": inner}, "preprocessor_config.json": {"size": 7}}
    assert pixels.hf_config(SimpleNamespace(json=both.get)) == inner
    old = {"processor_config.json": {"image_seq_length": 3}, "preprocessor_config.json": {"size": 7}}
    assert pixels.hf_config(SimpleNamespace(json=old.get)) == {"size": 7}
    assert pixels.hf_config(SimpleNamespace(json={}.get)) is None


def test_transformers_without_a_configuration():
    defaults = {"vit": "ViT", "deit": "DeiT", "dinov2": "Bit", "siglip": "Siglip", "resnet": "ConvNext"}
    for model_type, name in defaults.items():
        theirs = getattr(transformers, f"{name}ImageProcessor")()
        assert pixels.from_hf(None, model_type) == pixels.from_hf(json.loads(theirs.to_json_string()), model_type)
    assert pixels.from_hf(None, "deit", 384) == replace(pixels.from_hf(None, "deit"), size=(384, 384), box=(438, 438))
    assert pixels.from_hf(None, "clip", 336) == replace(pixels.from_hf(None, "clip"), size=(336, 336), box=(336, 336))
    assert pixels.from_hf(None, "vit", 32) == replace(pixels.from_hf(None, "vit"), size=(32, 32), box=(32, 32))
    assert pixels.from_hf({}, "vit", 32).size == (224, 224)  # what is there is read as it is


# --- recipes without a configuration -----------------------------------------------------------------------------


def recipe(resize, crop, interpolation=BICUBIC, colours=IMAGENET):
    return T.Compose([T.Resize(resize, interpolation), T.CenterCrop(crop), T.ToTensor(), T.Normalize(*colours)])


@pytest.mark.parametrize(("preprocess", "theirs"), [
    (pixels.openai(224), recipe(224, 224, colours=CLIP)),
    (pixels.openai(336), recipe(336, 336, colours=CLIP)),
    (pixels.DINO, recipe(256, 224)),
    (pixels.DINOV2, recipe(256, 224)),
    (pixels.mae(), recipe(256, 224)),
    (pixels.mae(112), recipe(128, 112)),
    (pixels.mae(448), recipe(448, 448)),
    (pixels.VISSL, recipe(256, 224, T.InterpolationMode.BILINEAR)),
], ids=["openai 224", "openai 336", "dino", "dinov2", "mae 224", "mae 112", "mae 448", "vissl"])  # fmt: skip
def test_recipes(preprocess, theirs):
    same(preprocess, theirs)


@pytest.mark.parametrize(("preprocess", "colours"), [
    (pixels.DINOV3, IMAGENET), (pixels.DINOV3_SATELLITE, ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))),
], ids=["web", "satellite"])  # fmt: skip
def test_dinov3(preprocess, colours):
    resize = v2.Resize((256, 256), antialias=True)
    same(preprocess, v2.Compose([v2.ToImage(), resize, v2.ToDtype(torch.float32, scale=True), v2.Normalize(*colours)]))


# --- what cannot be repeated -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("read", "config", "message"), [
    (pixels.from_timm, {"input_size": (1, 28, 28)}, "three channels only"),
    (pixels.from_timm, {"input_size": 224}, "input_size is 224: it must be 3 whole numbers"),
    (pixels.from_timm, {"crop_mode": "top"}, "crop_mode is 'top': Mirada knows center, squash, border"),
    (pixels.from_timm, {"crop_pct": "all"}, "crop_pct is 'all'"),
    (pixels.from_timm, {"interpolation": "random"}, "timm's interpolation is 'random': Mirada knows nearest"),
    (pixels.from_timm, {"mean": [0.5]}, "timm's mean is .0.5.: it must be three numbers"),
    (lambda cfg: pixels.from_open_clip(cfg, 224), {"resize_mode": "naflex"}, "resize_mode is 'naflex'"),
    (lambda cfg: pixels.from_open_clip(cfg, 224), {"fill_color": "red"}, "fill is .* it must be red, green and blue"),
    (lambda cfg: pixels.from_open_clip(cfg, (1, 2, 3)), {}, "open_clip's image_size is"),
    (lambda cfg: pixels.from_torchvision(256, 224, **cfg), {"interpolation": "area"}, "torchvision's interpolation"),
    (lambda cfg: pixels.from_hf(cfg, "siglip2"), {}, "'Siglip2' is not one of ViT, DeiT"),
    (lambda cfg: pixels.from_hf(cfg, "clip"), {"image_processor_type": "SamImageProcessor"}, "'Sam' is not one of"),
    (lambda cfg: pixels.from_hf(cfg, "clip"), {"do_center_crop": False}, "images keep their shapes: set"),
    (lambda cfg: pixels.from_hf(cfg, "vit"), {"do_resize": False}, "neither resizes nor crops"),
    (lambda cfg: pixels.from_hf(cfg, "vit"), {"do_pad": True, "pad_size": 300}, "told to pad"),
    (lambda cfg: pixels.from_hf(cfg, "vit"), {"size": {"longest_edge": 384}}, "size is {'longest_edge': 384}: Mirada"),
    (lambda cfg: pixels.from_hf(cfg, "vit"), {"size": "large"}, "size is 'large'"),
    (lambda cfg: pixels.from_hf(cfg, "vit"), {"resample": 9}, "resample is 9: it must be a number from 0 to 5"),
    (lambda cfg: pixels.from_hf(cfg, "vit"), {"image_std": [0, 1, 1]}, "std is .* three numbers above 0"),
    (lambda cfg: pixels.from_hf(cfg, "vit"), {"rescale_factor": 0}, "rescale_factor is 0"),
    (lambda cfg: pixels.from_hf(cfg, "resnet"), {"size": {"height": 9, "width": 9}}, "takes a shortest_edge"),
    (lambda cfg: pixels.from_hf(cfg, "resnet"), {"do_center_crop": True, "crop_size": 200}, "crops twice"),
    (lambda cfg: pixels.from_hf(cfg, "dinov3_vit"), {"resample": 3}, "leaves the range of pixels"),
])  # fmt: skip
def test_refused(read, config, message):
    with pytest.raises(MiradaError, match=message) as error:
        read(config)
    assert "\n" not in str(error.value)
