"""What a library has no network or word for is refused, and nothing is written."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from exported import BILINEAR, SMALL, VIT, made
from peers import import_torchvision

import_torchvision()

from mirada.backbones import build  # noqa: E402
from mirada.errors import MiradaError  # noqa: E402
from mirada.export.layouts import export  # noqa: E402
from mirada.model import Projection  # noqa: E402
from mirada.preprocess import Preprocess  # noqa: E402
from mirada.text import TextDesign  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:timm", "ignore::FutureWarning", "ignore:.*jit.script")


TIMM_LACKS = {
    f"vit-pico/8({VIT}, stem='convolutional')": "stem='convolutional': train one with stem='patch'",
    f"vit-pico/8({VIT}, stem='deep')": "stem='deep'",
    f"vit-pico/8({VIT}, pooling='sequence')": "pooling='sequence': train with pooling='average'",
    f"vit-pico/8({VIT}, epsilon=1e-12)": "epsilon=1e-06 or 1e-05, and this model's 1e-12: export it as hf",
    f"vit-pico/8({VIT}, positions='rotary')": "rotary positions with epsilon=1e-05.*export it as hf",
    f"vit-pico/8({VIT}, activation='swiglu', pooling='attention')": "pooling='attention' with activation='swiglu'",
    f"vit-pico/8({VIT}, positions='rotary', epsilon=1e-5, pooling='attention')": "no rotary positions with pooling",
    "coatnet-0(widths=(32, 32, 64, 64, 96), depths=(1, 1, 1, 1), image_size=48)": "variant='0_rw'",
    "coatnet-0(widths=(32, 32, 64, 64, 96), depths=(1, 1, 1, 1), image_size=48, variant='timm')": "variant='0_rw'",
    "resnet-18(small_images=True, widths=(8, 8, 8, 8))": "small_images=True: train without it",
    "resnet-18(stem_width=32, widths=(8, 8, 8, 8))": "stem_width=32: export it as hf",
    "resnet-18(depths=(1, 1, 1))": "four stages, and this one 3: export it as hf",
    "regnety-400mf(plan=((24, 1, 8), (56, 1, 8), (152, 4, 8), (376, 7, 8)))": "this one's plan: export it as hf",
}
TRANSFORMERS_LACKS = {
    f"vit-pico/8({VIT}, stem='deep')": "stem='deep': train one with stem='patch'",
    f"vit-pico/8({VIT}, pooling='sequence')": "pooling='sequence': train one with pooling='average'",
    f"vit-pico/8({VIT}, pooling='attention')": "not its pooling='attention': export it as timm",
    f"vit-pico/8({VIT}, pooling='average', registers=2)": "registers=2 and pooling='average': export it as timm",
    f"vit-pico/8({VIT}, pooling='average', activation='swiglu')": "activation='swiglu': export it as timm",
    f"vit-pico/8({VIT}, pre_norm=True)": "no head on its class token .pre_norm=True.: export it as timm",
    f"vit-pico/8({VIT}, positions='rotary')": "rotary positions and a head: export it as timm",
    f"vit-pico/8({VIT}, layer_scale=0.1, mlp_ratio=3.5)": "224 for 64: export it as timm",
    "coatnet-0(widths=(32, 32, 64, 64, 96), depths=(1, 1, 1, 1), variant='0_rw')": "no CoAtNet: export it as timm",
    "resnet-18(small_images=True, widths=(8, 8, 8, 8))": "small_images=True: train without it",
    "regnety-400mf(plan=((24, 1, 8), (56, 1, 8), (152, 4, 38), (368, 7, 8)))": "groups of one width",
}


@pytest.mark.parametrize(("layout", "architecture", "said"), [
    *(("timm", *row) for row in TIMM_LACKS.items()), *(("hf", *row) for row in TRANSFORMERS_LACKS.items()),
])  # fmt: skip
def test_what_there_is_no_network_for(layout: str, architecture: str, said: str, tmp_path: Path) -> None:
    build(architecture)
    with pytest.raises(MiradaError, match=said) as refusal:
        export(made(architecture), layout, tmp_path / "out")
    assert str(refusal.value).count(". ") == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("layout", "options", "said"), [
    ("timm", {"mirror": True}, 'set "mirror" to false in its config.json'),
    ("hf", {"mirror": True}, 'set "mirror" to false in its config.json'),
    ("timm", {"head_input": "class and average"}, "reads class and average, as this one does: export it as hf"),
    ("timm", {"head": False, "projection": Projection(8, True, True)}, r"\(projection\): export it as hf"),
    ("timm", {"head": False, "projection": Projection(8), "text": TextDesign(**SMALL, dim=8)}, "no text towers"),
    ("hf", {"head": False, "projection": Projection(8), "text": TextDesign(**SMALL, dim=8)}, "pre_norm=True"),
    ("hf", {"head": False, "projection": Projection(8, True, False)}, "another projection than this model"),
    ("hf", {"pixels": Preprocess((48, 64))}, "48x64 pixels: only models of square ones"),
    ("hf", {"pixels": replace(BILINEAR, resampler="torch-float", antialias=False)}, "antialias=False"),
    ("timm", {"pixels": Preprocess((48, 48), "none")}, "timm always resizes"),
    ("timm", {"pixels": Preprocess((48, 48), "squash", (48, 60))}, "which is none: export it as hf"),
])  # fmt: skip
def test_what_there_is_no_word_for(layout: str, options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(MiradaError, match=said):
        export(made(f"vit-pico/8({VIT})", **options), layout, tmp_path / "out")
    assert not list(tmp_path.iterdir())
