"""lightly's SimCLR, SwAV, DINO and MAE on the network, images and time of `self_supervised.py`; then the same probes.

    pip install lightly timm
    python benchmarks/lightly_rival.py DATA --name "CIFAR-10 (JPEG copy)" --method simclr --budget 5m

lightly is a box of parts: this is the loop of its own examples, with a torch DataLoader of two workers, its transforms
at the size of the images, its heads and losses, AdamW and a cosine with warm-up. `--tuned` gives it what its
documentation advises for small images (half the colour jitter, no blur) and heads as wide as Mirada's; `--further`
gives DINO and SwAV also the crops, temperatures, prototypes and momentum of Mirada's own rows. Otherwise all is at the
defaults of its classes, or at those of its example where there are none (MAE's decoder). The network is Mirada's, so
that both train the same one, in the same precision. Each run appends a line to docs/numbers/self-supervised.jsonl.
"""

import argparse
import copy
import io
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import torch
from peers import import_torchvision
from PIL import Image
from self_supervised import RECORDS, probes
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mirada.backbones import build, canonical
from mirada.data.sources import Source, open_data
from mirada.features import Backbone
from mirada.model import Model
from mirada.precision import choose_precision
from mirada.preprocess import Preprocess
from mirada.train.folder import machine
from mirada.train.pause import Clock
from mirada.train.settings import parse_duration

EPOCHS = 30  # that a run is said to have, where lightly counts in them


class Pictures(Dataset[Any]):
    """Decoded anew each time, as lightly's datasets do."""

    def __init__(self, source: Source, transform: Callable[[Image.Image], list[Tensor]]) -> None:
        self.source, self.transform = source, transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(Image.open(io.BytesIO(self.source.read(index))).convert("RGB"))


class Method(nn.Module):
    """Backbone and heads; `loss` of views at a progress from 0 to 1, and what comes before and after the step."""

    backbone: Backbone

    def loss(self, views: list[Tensor], progress: float) -> Tensor:
        raise NotImplementedError

    def before_step(self, progress: float) -> None:
        """Nothing by default."""

    def after_step(self, progress: float) -> None:
        """Nothing by default."""

    def evaluated(self) -> Backbone:
        return self.backbone


class SimCLR(Method):
    def __init__(self, backbone: Backbone, options: argparse.Namespace) -> None:
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead

        super().__init__()
        self.backbone = backbone
        self.head = SimCLRProjectionHead(backbone.dim, *((512, 128) if options.tuned else (2048, 128)))
        self.criterion = NTXentLoss(temperature=0.2 if options.tuned else 0.5)

    def loss(self, views: list[Tensor], progress: float) -> Tensor:
        del progress
        return self.criterion(*(self.head(self.backbone(view).pooled) for view in views))


class SwAV(Method):
    def __init__(self, backbone: Backbone, options: argparse.Namespace) -> None:
        from lightly.loss import SwaVLoss
        from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes

        super().__init__()
        self.backbone = backbone
        self.head = SwaVProjectionHead(backbone.dim, *((512, 128) if options.tuned else (2048, 128)))
        count = 64 if options.further else 256 if options.tuned else 3000
        self.prototypes = SwaVPrototypes(128, n_prototypes=count)
        self.criterion = SwaVLoss(sinkhorn_epsilon=0.01) if options.further else SwaVLoss()

    def loss(self, views: list[Tensor], progress: float) -> Tensor:
        del progress
        self.prototypes.normalize()
        scores = [
            self.prototypes(nn.functional.normalize(self.head(self.backbone(view).pooled), dim=1)) for view in views
        ]
        return self.criterion(scores[:2], scores[2:])


class DINO(Method):
    def __init__(self, backbone: Backbone, options: argparse.Namespace) -> None:
        from lightly.loss import DINOLoss
        from lightly.models.modules import DINOProjectionHead
        from lightly.models.utils import deactivate_requires_grad

        super().__init__()
        widths = (512, 128, 1024) if options.tuned else (2048, 256, 65536)
        self.backbone, self.head = backbone, DINOProjectionHead(backbone.dim, *widths, freeze_last_layer=1)
        self.teacher, self.teacher_head = copy.deepcopy(backbone), DINOProjectionHead(backbone.dim, *widths)
        self.teacher_head.load_state_dict(self.head.state_dict())
        deactivate_requires_grad(self.teacher)
        deactivate_requires_grad(self.teacher_head)
        colder = {"warmup_teacher_temp": 0.01, "teacher_temp": 0.01} if options.further else {}
        self.criterion = DINOLoss(output_dim=widths[2], warmup_teacher_temp_epochs=5, **colder)
        self.momentum = 0.97 if options.further else 0.996

    def loss(self, views: list[Tensor], progress: float) -> Tensor:
        with torch.no_grad():
            taught = [self.teacher_head(self.teacher(view).pooled) for view in views[:2]]
        return self.criterion(
            taught, [self.head(self.backbone(view).pooled) for view in views], epoch=int(EPOCHS * progress)
        )

    def before_step(self, progress: float) -> None:
        self.head.cancel_last_layer_gradients(int(EPOCHS * progress))

    def after_step(self, progress: float) -> None:
        from lightly.models.utils import update_momentum

        momentum = 1 - (1 - self.momentum) * (math.cos(math.pi * progress) + 1) / 2
        update_momentum(self.backbone, self.teacher, momentum)
        update_momentum(self.head, self.teacher_head, momentum)

    def evaluated(self) -> Backbone:
        return self.teacher


class MAE(Method):
    def __init__(self, backbone: Backbone, options: argparse.Namespace) -> None:
        from lightly.models.modules import MAEDecoderTIMM

        super().__init__()
        self.backbone, self.tuned = backbone, options.tuned
        self.patches = (options.image_size // backbone.stride) ** 2
        width, depth, num_heads = (128, 2, 4) if options.tuned else (512, 1, 16)  # the latter is lightly's example
        self.decoder = MAEDecoderTIMM(
            self.patches, backbone.stride, embed_dim=backbone.dim, decoder_embed_dim=width, decoder_depth=depth,
            decoder_num_heads=num_heads, num_prefix_tokens=0,
        )  # fmt: skip

    def loss(self, views: list[Tensor], progress: float) -> Tensor:
        from lightly.models import utils

        del progress
        (image,) = views
        size = (len(image), self.patches)
        keep, hidden = utils.random_token_mask(size, mask_ratio=0.75, mask_class_token=True, device=image.device)
        seen = self.backbone.encode(self.backbone.embed(image), keep=keep).patches[:, 0]  # (B, k, D)
        tokens = utils.repeat_token(self.decoder.mask_token, size)
        tokens = utils.set_at_index(tokens, keep, self.decoder.embed(seen).type_as(tokens))
        predicted = self.decoder.predict(utils.get_at_index(self.decoder.decode(tokens), hidden))
        target = utils.get_at_index(utils.patchify(image, self.backbone.stride), hidden)
        return nn.functional.mse_loss(predicted, utils.normalize_mean_var(target) if self.tuned else target)


METHODS: dict[str, type[Method]] = {"simclr": SimCLR, "swav": SwAV, "dino": DINO, "mae": MAE}


def transform_of(options: argparse.Namespace) -> Callable[[Image.Image], list[Tensor]]:
    """lightly's, at the size of the images."""
    from lightly import transforms

    size, tuned = options.image_size, options.tuned
    few = 0 if options.further else 4 if tuned else 6  # small crops
    small: dict[str, Any] = {"cj_strength": 0.5} if tuned else {}
    match options.method:
        case "simclr":
            return transforms.SimCLRTransform(input_size=size, **small, **({"gaussian_blur": 0.0} if tuned else {}))
        case "swav":
            blur = {"gaussian_blur": 0.0} if tuned else {}
            return transforms.SwaVTransform(crop_sizes=(size, size // 2), crop_counts=(2, few), **small, **blur)
        case "mae":
            return transforms.MAETransform(input_size=size)
        case _:
            blur = {"gaussian_blur": (0.0, 0.0, 0.0)} if tuned else {}
            return transforms.DINOTransform(global_crop_size=size, local_crop_size=size // 2, n_local_views=few, **blur)


def prepared(options: argparse.Namespace) -> Method:
    """The method on a new network."""
    torch.manual_seed(options.seed)
    return METHODS[options.method](build(canonical(options.model, image_size=options.image_size)), options).train()


def updates(method: Method, options: argparse.Namespace) -> Iterator[float]:
    """Train for the budget, from the files on; after each update, the seconds so far."""
    clock, budget, steps = Clock(), parse_duration(options.budget), 0
    began = clock()
    half = choose_precision("auto", torch.device("cpu")) == "bfloat16"
    pictures = Pictures(open_data(options.data).splits["train"], transform_of(options))
    workers = options.workers
    loader = DataLoader(
        pictures, options.batch, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=workers > 0
    )
    parameters = [parameter for parameter in method.parameters() if parameter.requires_grad]
    peak = options.lr * options.batch / 256
    optimiser = torch.optim.AdamW(parameters, peak, weight_decay=0.04, fused=True)
    with clock.noticing_sleep():
        while True:
            for views in loader:
                progress = (clock() - began) / budget
                if progress >= 1:
                    return
                share = progress / 0.05 if progress < 0.05 else 0.5 * (1 + math.cos(math.pi * (progress - 0.05) / 0.95))
                for group in optimiser.param_groups:
                    group["lr"] = peak * share
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    loss = method.loss(views, progress)
                loss.backward()
                method.before_step(progress)
                nn.utils.clip_grad_norm_(parameters, 3.0)
                optimiser.step()
                optimiser.zero_grad()
                method.after_step(progress)
                steps += 1
                if steps % 50 == 0:
                    print(f"step {steps}, {progress:.0%}: loss {float(loss.detach()):.3f}", file=sys.stderr)
                yield clock() - began


def arguments() -> argparse.ArgumentParser:
    """What a run of lightly can be told."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--name", default="")
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="vit-nano/4")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=5e-4, help="peak for a batch of 256")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--further", action="store_true", help="with --tuned; DINO and SwAV only")
    return parser


def main() -> None:
    parser = arguments()
    options = parser.parse_args()
    if options.further and not (options.tuned and options.method in ("dino", "swav")):
        parser.error("--further goes with --tuned, and with DINO and SwAV only")
    import_torchvision()
    import lightly

    method = prepared(options)
    seconds = list(updates(method, options))
    name = canonical(options.model, image_size=options.image_size)
    preprocess = Preprocess(size=(options.image_size, options.image_size))
    with tempfile.TemporaryDirectory() as folder:
        found = probes(Model(name, method.evaluated(), preprocess).save(folder), options.data)
    flags = ["tuned further" if options.further else "tuned"] if options.tuned else []
    flags += [f"lr {options.lr:g} for 256"] if options.lr != 5e-4 else []
    flags += [f"{options.workers} workers"] if options.workers != 2 else []
    row = {
        "data": options.name, "library": f"lightly {lightly.__version__}", "objective": options.method,
        "model": options.model, "image_size": options.image_size, "batch": options.batch,
        "flags": ", ".join(flags), "budget": options.budget, "seed": options.seed,
        "steps": len(seconds), "images": len(seconds) * options.batch, "train_seconds": round(seconds[-1]), **found,
        "alarms": [], "machine": machine(),
    }  # fmt: skip
    with RECORDS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row))


if __name__ == "__main__":
    main()
