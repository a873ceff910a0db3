"""SEER's RegNets in the files that VISSL wrote. The oracle is timm, which reads those files too.

The files are made of timm's random networks. That timm's own reader finds every tensor in them again, and the literal
names below, say that they are named as VISSL names them.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from exchange import exchanged, fits, shapes_of
from timm.models.regnet import _filter_fn
from torch import Tensor, nn

from mirada.checkpoints import timm_conv, vissl
from mirada.checkpoints.published import open_published
from mirada.checkpoints.weights import open_weights
from mirada.errors import MiradaError

Parity = Callable[..., None]
Randomise = Callable[..., nn.Module]

TRAINING = {  # what SwAV leaves beside the trunk
    "0.projection_head.0.weight": torch.randn(64, 440), "0.projection_head.0.bias": torch.randn(64),
    "0.prototypes0.weight": torch.randn(30, 64),
}  # fmt: skip
NAMES = {
    "_feature_blocks.conv1.stem.0.weight", "_feature_blocks.conv1.stem.1.running_mean",
    "_feature_blocks.res2.block1-0.proj.weight", "_feature_blocks.res2.block1-0.bn.weight",
    "_feature_blocks.res2.block1-0.f.a.0.weight", "_feature_blocks.res3.block2-1.f.a.1.bias",
    "_feature_blocks.res4.block3-2.f.b.0.weight", "_feature_blocks.res4.block3-2.f.b.1.running_var",
    "_feature_blocks.res5.block4-5.f.se.excitation.0.bias", "_feature_blocks.res5.block4-5.f.se.excitation.2.weight",
    "_feature_blocks.res5.block4-5.f.c.weight", "_feature_blocks.res5.block4-5.f.final_bn.num_batches_tracked",
}  # fmt: skip


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's tensors under VISSL's names."""
    parts = {there: vissl.LAYOUT.parts[here] for here, there in timm_conv.REGNET.parts.items()}
    result = {}
    for name, tensor in tensors.items():
        if block := re.fullmatch(r"s(\d)\.b(\d+)\.(.*)\.(\w+)", name):
            stage, place = int(block[1]), int(block[2]) - 1
            name = f"trunk._feature_blocks.res{stage + 1}.block{stage}-{place}.{parts[block[3]]}.{block[4]}"
        name = name.replace("stem.conv", "trunk._feature_blocks.conv1.stem.0")
        name = name.replace("stem.bn", "trunk._feature_blocks.conv1.stem.1").replace("head.fc", "heads.0.clf.0")
        result[name] = tensor
    return result


def as_file(tensors: dict[str, Tensor], heads: dict[str, Tensor]) -> dict[str, Any]:
    trunk = {name.removeprefix("trunk."): tensor for name, tensor in tensors.items() if name.startswith("trunk.")}
    heads |= {name.removeprefix("heads."): tensor for name, tensor in tensors.items() if name.startswith("heads.")}
    model = {"trunk": trunk, "heads": heads}
    return {
        "phase_idx": 1, "iteration": 244000, "loss": {},
        "classy_state_dict": {"base_model": {"model": model, "meta": {}}, "train": True},
    }  # fmt: skip


@pytest.mark.parametrize("classes", [0, 7])
def test_seer(classes: int, randomise: Randomise, parity: Parity, tmp_path: Path) -> None:
    theirs: Any = randomise(timm.create_model("regnety_004", num_classes=classes))
    document = as_file(renamed(theirs.state_dict()), {} if classes else dict(TRAINING))
    assert document["classy_state_dict"]["base_model"]["model"]["trunk"].keys() >= NAMES
    torch.save(document, tmp_path / "model.torch")

    reader = timm.create_model("regnety_004", num_classes=classes).eval()
    reader.load_state_dict(_filter_fn(document), strict=True)
    ours = open_published("vissl:regnet-y-320-seer", tmp_path / "model.torch").eval()

    images = torch.randn(2, 3, 96, 70)
    with torch.no_grad():
        features = reader.forward_features(images)
        outputs = {
            "encode_image": (ours.encode_image(images), reader.forward_head(features, pre_logits=True)),
            "patches": (ours.backbone(images).patches, features.permute(0, 2, 3, 1)),
        }
        if classes:
            outputs["logits"] = (ours.logits(images), reader(images))
    parity("VISSL", f"RegNetY, {'fine-tuned' if classes else 'SwAV'}", outputs)
    assert ours.classes == ([str(number) for number in range(7)] if classes else None)
    assert ours.preprocess.size == ((384, 384) if classes else (224, 224))


def test_what_trained_the_trunk_is_dropped_and_nothing_else(tmp_path: Path) -> None:
    theirs = timm.create_model("regnety_002", num_classes=0)
    torch.save(as_file(renamed(theirs.state_dict()), dict(TRAINING)), tmp_path / "model.torch")
    weights = open_weights(tmp_path / "model.torch")
    plan = vissl.plan("regnet-y-320-seer", None, weights.shapes)
    dropped = {row[0] for row in plan.table if row[1] is None}
    assert dropped == {f"heads.{name}" for name in TRAINING}
    torch.save(as_file(renamed(theirs.state_dict()), {"0.something.weight": torch.ones(3)}), tmp_path / "model.torch")
    with pytest.raises(MiradaError, match=r"unknown heads\.0\.something\.weight"):
        open_published("vissl:regnet-y-320-seer", tmp_path / "model.torch")


def test_tensors_come_back(randomise: Randomise) -> None:
    theirs = renamed(randomise(timm.create_model("regnety_002", num_classes=7)).state_dict())
    exchanged(vissl.plan("regnet-y-320-seer", None, shapes_of(theirs)), theirs)


def test_the_largest_was_sharded_in_parts(randomise: Randomise) -> None:
    """Its blocks are in groups, `res2.block1-part0.block1-0`, and so are their names."""
    whole = renamed(randomise(timm.create_model("regnety_002", num_classes=0)).state_dict())
    parts = {re.sub(r"(res\d\.)(block(\d)-(\d+))", r"\1block\3-part\4.\2", name): whole[name] for name in whole}
    assert "trunk._feature_blocks.res5.block4-part3.block4-3.f.c.weight" in parts
    ours = [exchanged(vissl.plan("regnet-y-10b-seer", None, shapes_of(file)), file) for file in (whole, parts)]
    for one, other in zip(ours[0].state_dict().values(), ours[1].state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "architecture"),
    [("regnety_320", "regnety-32gf"), ("regnety_640", "regnety-64gf"), ("regnety_1280", "regnety-128gf"),
     ("regnety_2560", "regnety-256gf")],
)  # fmt: skip
def test_the_published_sizes(name: str, architecture: str) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(name)
    tensors = renamed(theirs.state_dict())
    plan = vissl.plan("seer", None, shapes_of(tensors))
    assert plan.design.architecture == architecture
    fits(plan, tensors)


def test_repositories() -> None:
    assert vissl.repository("regnet-y-320-seer") == "facebook/regnet-y-320-seer"
    assert vissl.repository("regnet-y-10b-seer-in1k") == "facebook/regnet-y-10b-seer-in1k"
    assert vissl.repository("seer_regnet32gf") == "facebook/regnet-y-320-seer"
    assert vissl.repository("seer_regnet128gf_in1k") == "facebook/regnet-y-1280-seer-in1k"
    assert vissl.repository("seer_regnet10B") == "facebook/regnet-y-10b-seer"
    assert vissl.repository("seer_regnet256gf_in1k") == "timm/regnety_2560.seer_ft_in1k"
    with pytest.raises(MiradaError, match="did you mean vissl:regnet-y-320-seer"):
        vissl.repository("regnet-y-32-seer")
    with pytest.raises(MiradaError, match="no published vissl:seer_regnet256gf: did you mean"):
        vissl.repository("seer_regnet256gf")
