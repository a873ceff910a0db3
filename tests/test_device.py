import subprocess
import sys

import torch

from mirada.backbones import SIZES, build
from mirada.device import without_values
from mirada.text import TextDesign, TextTower


def test_modules_without_values_have_shapes_only() -> None:
    with without_values():
        backbone, text = build("resnet-18"), TextTower(TextDesign(depth=1, width=64, num_heads=2))
    assert {parameter.device.type for module in (backbone, text) for parameter in module.parameters()} == {"meta"}
    usual = build("resnet-18").state_dict()
    assert {name: tensor.shape for name, tensor in backbone.state_dict().items()} == {
        name: tensor.shape for name, tensor in usual.items()
    }
    assert torch.empty(1).device.type == "cpu"


def test_the_compiler_is_not_loaded_for_values_that_nothing_needs() -> None:
    one_of_each = sorted({name.partition("-")[0]: name for name in SIZES}.values())
    script = (
        "import sys, torch\n"
        "from mirada.backbones import build\n"
        "from mirada.device import without_values\n"
        "from mirada.text import TextDesign, TextTower\n"
        "with without_values():\n"
        f"    for name in {one_of_each!r}:\n"
        "        build(name)\n"
        "    TextTower(TextDesign(depth=1, width=64, num_heads=2))\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n", "a model's start takes a second longer: look for a new way of drawing values"
