"""Training speed: Mirada beside timm, the same network on the same JPEG files, alternating on the same machine.

    python benchmarks/throughput.py --data train.parquet --large photographs/

Measures, in images per second, a bare training step on tensors that are ready, and the whole loop from a folder of
JPEG files to updated weights: its first epoch, from opening the folder on, and its second. Each library runs in a
process of its own, and they take turns. timm is given what it is fastest with: its best number of loader workers, and
the fused AdamW that it does not use by default. Run it on a machine that does nothing else; about eight minutes.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import import_torchvision
from PIL import Image, ImageDraw

from mirada.backbones import build
from mirada.data.decode import decode, to_canvas
from mirada.data.images import Images
from mirada.data.loader import Loader
from mirada.data.sources import open_data
from mirada.data.statistics import canvas_side, colour_statistics
from mirada.memory import keep_freed_memory
from mirada.objectives import Learner
from mirada.train.folder import machine
from mirada.train.loop import train_loop
from mirada.train.optimiser import build_optimisers
from mirada.train.settings import Settings

REPORT = Path(__file__).parent.parent / "docs" / "numbers" / "throughput.md"
WORKERS = (0, 1, 2, 4)  # 4 is the default of timm's train.py
SCALE, SMOOTHING, DECAY, RATE = (0.35, 1.0), 0.1, 0.05, 1e-3
STEPS = 7  # of a bare step's measurement; the first two do not count
Seconds = list[float]


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    ours: str
    theirs: str
    size: int
    batch: int
    images: int  # per epoch; a multiple of `batch`, because timm drops the rest
    precision: str = "bfloat16"
    operations: int = 0  # of RandAugment, at magnitude 9
    large: bool = False  # read the larger pictures
    options: dict[str, int] = field(default_factory=dict)  # what makes timm's model the same as ours

    @property
    def title(self) -> str:
        extra = f", RandAugment({self.operations}, 9)" if self.operations else ""
        return f"{self.ours}, {self.size} px, batch {self.batch}, {self.precision}{extra}"


TINY, SMALL = ("vit-ti/16", "vit_tiny_patch16_224"), ("vit-s/16", "vit_small_patch16_224")
NANO = {"patch_size": 8, "embed_dim": 128, "depth": 6, "num_heads": 4}
CASES = [
    Case(*TINY, size=128, batch=64, images=512),
    Case(*TINY, size=128, batch=64, images=384, operations=2),
    Case(*TINY, size=128, batch=64, images=256, precision="float32"),
    Case(*SMALL, size=128, batch=32, images=192),
    Case(*TINY, size=224, batch=32, images=192, large=True),
    Case("vit-nano/8", TINY[1], size=64, batch=128, images=1280, options=NANO),
    Case("vit-nano/8", TINY[1], size=64, batch=128, images=1280, options=NANO, precision="float32"),
]


def settings_of(case: Case, steps: int) -> Settings:
    return Settings(
        model=case.ours, image_size=case.size, batch=case.batch, steps=steps, precision=case.precision,
        optimiser="adamw", learning_rate=RATE, weight_decay=DECAY,
    )  # fmt: skip


def our_learner(case: Case, classes: int, kind: type[Learner] = Learner) -> Learner:
    torch.manual_seed(0)
    augment = {"base": "zoom", "scale": SCALE, "operations": case.operations}
    backbone = build(case.ours, image_size=case.size)
    return kind(backbone, f"supervised(smoothing={SMOOTHING})", classes=classes, augment=augment)


def random_batch(case: Case, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(case.batch, 3, case.size, case.size), torch.randint(classes, (case.batch,))


class Ready(Learner):
    """A learner whose batches are views already."""

    views = property(lambda _: lambda batch: batch)  # type: ignore[assignment]


class OneBatch:
    """A loader that has nothing to do."""

    device = torch.device("cpu")

    def __init__(self, image: torch.Tensor, label: torch.Tensor) -> None:
        self.views = {"supervised": {"image": image, "label": label}}

    def batch(self, _step: int, _size: tuple[int, int]) -> Any:
        return self.views


def our_steps(case: Case, classes: int) -> Seconds:
    """Seconds of each training step of ours, without any data."""
    learner, settings = our_learner(case, classes, Ready), settings_of(case, STEPS)
    loader: Any = OneBatch(*random_batch(case, classes))
    optimisers = build_optimisers(learner, settings)
    begun = time.monotonic()
    ends = [done.seconds for done in train_loop(learner, loader, optimisers, None, settings, started=begun)]
    return np.diff(ends)[1:].tolist()


def our_epochs(case: Case, folder: str, classes: int, keep: bool) -> Seconds:
    """Seconds of two epochs, from opening the folder."""
    steps = case.images // case.batch
    learner, settings = our_learner(case, classes), settings_of(case, 2 * steps)
    optimisers = build_optimisers(learner, settings)
    ends = [time.perf_counter()]
    source = open_data(folder).splits["all"]
    side = canvas_side(source, case.size)
    images = Images(source, lambda data: to_canvas(decode(data, at_least=side), side), keep=keep)
    mean, std = map(torch.tensor, colour_statistics(images))
    loader = Loader(images, case.batch, mean=mean, std=std, seed=0)
    updates = train_loop(learner, loader, optimisers, None, settings, started=time.monotonic())
    ends += [time.perf_counter() for done in updates if done.step % steps == 0]
    return np.diff(ends).tolist()


def their_step(case: Case, classes: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A training step as in timm's train.py: autocast, loss, backward, update."""
    import timm
    import timm.loss
    import timm.optim

    torch.manual_seed(0)
    model = timm.create_model(case.theirs, img_size=case.size, num_classes=classes, **case.options).train()
    optimiser = timm.optim.create_optimizer_v2(model, opt="adamw", lr=RATE, weight_decay=DECAY, fused=True)
    criterion = timm.loss.LabelSmoothingCrossEntropy(SMOOTHING)

    def step(image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "bfloat16"):
            loss = criterion(model(image), label)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return loss

    return step


def their_steps(case: Case, classes: int) -> Seconds:
    step, batch = their_step(case, classes), random_batch(case, classes)
    ends = []
    for _ in range(STEPS):
        step(*batch)
        ends.append(time.perf_counter())
    return np.diff(ends)[1:].tolist()


def their_epochs(case: Case, folder: str, classes: int, workers: int) -> Seconds:
    from timm.data import create_dataset, create_loader

    step = their_step(case, classes)
    ends = [time.perf_counter()]
    dataset = create_dataset("", root=folder, is_training=True)
    loader = create_loader(
        dataset, (3, case.size, case.size), case.batch, is_training=True, scale=SCALE, color_jitter=0.0,
        auto_augment=f"rand-m9-n{case.operations}-p1" if case.operations else None, interpolation="bilinear",
        num_workers=workers, device=torch.device("cpu"),
    )  # fmt: skip
    for _ in range(2):
        for number, (image, label) in enumerate(loader):
            loss = step(image, label)
            if number % 50 == 0 and not bool(torch.isfinite(loss)):  # train.py looks at the loss as often
                raise RuntimeError("timm's loss is not a number")
        ends.append(time.perf_counter())
    return np.diff(ends).tolist()


def measure(library: str, case: Case, folder: str, workers: list[int]) -> dict[str, Seconds]:
    """What a process of its own is started for: seconds of bare steps ("step") and of the two epochs of each loop."""
    classes = len(os.listdir(folder))
    if library == "mirada":
        keep_freed_memory()  # as `mirada train` does
        return {
            "step": our_steps(case, classes), "kept": our_epochs(case, folder, classes, keep=True),
            "streaming": our_epochs(case, folder, classes, keep=False),
        }  # fmt: skip
    import_torchvision()
    found = {"step": their_steps(case, classes)}
    return found | {str(number): their_epochs(case, folder, classes, number) for number in workers}


def in_process(library: str, case: Case, folder: str, workers: list[int]) -> dict[str, Seconds]:
    request = json.dumps([library, asdict(case), folder, workers])
    command = [sys.executable, "-W", "ignore::UserWarning", __file__, "--measure", request]  # "too many workers"
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Seconds] = json.loads(done.stdout.splitlines()[-1])
    return found


def write_pictures(data: str | None, folder: Path, count: int, side: int) -> str:
    """`count` JPEG files, in a folder per class, and what they are."""
    if data is None:
        for number in range(count):
            save(synthetic(number, side, side * 4 // 3), folder / f"class{number % 10}" / f"{number:05}.jpg")
        return f"{count} synthetic pictures of noise and shapes, {side * 4 // 3}x{side} pixels"
    splits = open_data(data).splits
    source = splits.get("train", splits.get("all")) or next(iter(splits.values()))
    labels = np.zeros(len(source), np.int64) if source.labels is None else source.labels
    if len(source) < count:
        raise SystemExit(f"{data} has {len(source)} images, and {count} are needed.")
    for number in np.linspace(0, len(source) - 1, count).astype(int).tolist():
        save(source.read(number), folder / f"class{labels[number] % 10}" / f"{number:06}.jpg")
    return f"{count} images of {Path(data).resolve().parent.name}/{Path(data).name}"


def save(data: bytes | Image.Image, path: Path) -> None:
    """JPEG bytes as they are, anything else as JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, bytes) and data[:3] == b"\xff\xd8\xff":
        path.write_bytes(data)
        return
    (decode(data) if isinstance(data, bytes) else data).save(path, quality=90)


def synthetic(number: int, height: int, width: int) -> Image.Image:
    """A few shapes on coarse noise, about as hard to decode as a photograph."""
    random = np.random.default_rng(number)
    coarse = Image.fromarray(random.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
    fine = random.normal(0, 8, (height, width, 3))
    picture = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) + fine
    image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    for _ in range(4):
        x, y = random.integers(0, width), random.integers(0, height)
        box = (x - width // 6, y - height // 6, x + width // 6, y + height // 6)
        ImageDraw.Draw(image).ellipse(box, fill=tuple(random.integers(0, 256, 3).tolist()))
    return image


@dataclass
class Speeds:
    """Images per second of one case, one number per repeat."""

    case: Case
    found: dict[str, list[float]]
    workers: int | None = None  # that timm is fastest with

    def add(self, who: str, seconds: dict[str, Seconds], loop: str) -> None:
        for epoch, spent in zip(("first epoch", "second epoch"), seconds[loop], strict=True):
            self.found.setdefault(f"{who}, {epoch}", []).append(self.case.images / spent)

    def add_step(self, who: str, seconds: dict[str, Seconds]) -> None:
        self.found.setdefault(f"{who}, step", []).append(self.case.batch / statistics.median(seconds["step"]))

    def ratio(self, ours: str, theirs: str) -> float:
        return statistics.median(self.found[ours]) / statistics.median(self.found[theirs])


def compare(speeds: Speeds, folder: str) -> None:
    """One repeat of one case: ours, then theirs, with every number of workers the first time."""
    ours = in_process("mirada", speeds.case, folder, [])
    workers = list(WORKERS) if speeds.workers is None else sorted({speeds.workers, WORKERS[-1]})
    theirs = in_process("timm", speeds.case, folder, workers)
    if speeds.workers is None:
        speeds.workers = min(workers, key=lambda number: sum(theirs[str(number)]))
    for who, seconds, loop in (
        ("mirada", ours, "kept"), ("mirada streaming", ours, "streaming"),
        ("timm", theirs, str(speeds.workers)), ("timm default", theirs, str(WORKERS[-1])),
    ):  # fmt: skip
        speeds.add(who, seconds, loop)
    speeds.add_step("mirada", ours)
    speeds.add_step("timm", theirs)
    latest = {name: round(values[-1]) for name, values in speeds.found.items()}
    print(f"{speeds.case.title}: {latest}", file=sys.stderr, flush=True)


def spread(values: list[float]) -> str:
    """The median, and the smallest and largest if there are several."""
    middle = f"{statistics.median(values):.0f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.0f} to {max(values):.0f})"


def table(speeds: list[Speeds]) -> str:
    lines = ["| what | Mirada | timm | Mirada / timm | timm's default, 4 workers |", "|---|---|---|---|---|"]
    for one in speeds:
        lines.append(f"| **{one.case.title}** | | best of {len(WORKERS)}: {one.workers} workers | | |")
        rows = [("bare step", "mirada, step", "timm, step", "")]
        for epoch in ("first epoch", "second epoch"):
            default = spread(one.found[f"timm default, {epoch}"])
            rows += [(epoch, f"mirada, {epoch}", f"timm, {epoch}", default),
                     (f"{epoch}, streaming", f"mirada streaming, {epoch}", f"timm, {epoch}", default)]  # fmt: skip
        for what, ours, theirs, default in rows:
            ratio = f"{one.ratio(ours, theirs):.2f}"
            lines.append(f"| {what} | {spread(one.found[ours])} | {spread(one.found[theirs])} | {ratio} | {default} |")
    return "\n".join(lines)


def report(speeds: list[Speeds], pictures: list[str], repeats: int, seconds: float) -> str:
    import_torchvision()
    import timm

    command = shlex.join(["python", "benchmarks/throughput.py", *sys.argv[1:]])
    return f"""# Training speed beside timm

Images per second; higher is better. With several repeats: median (smallest to largest).

{table(speeds)}

- *Bare step*: forward, backward and update on tensors that are ready.
- *First epoch*: from opening the folder to the last update. Mirada decodes small data sets once and keeps them as
  bytes, so its *second epoch* reads no file; *streaming* is what it does with data larger than a third of the memory,
  and decodes in every epoch, as timm does.
- The same files, sizes, batches, random crops ({SCALE[0]:.0%} to {SCALE[1]:.0%} of the area, bilinear), flips, label
  smoothing and fused AdamW on both sides. Mirada also clips gradients and checks that they are finite, as it always
  does.
- timm has the number of workers out of {", ".join(map(str, WORKERS))} that was fastest for the row, and the fused
  AdamW, which is not its default. Its default, 4 workers, has that too.
- Where the difference comes from: attention in bfloat16 by kernels that are fast on CPUs (`backbones/attention.py`),
  memory that is reused instead of returned (`memory.py`), and resampling bytes (`data/augment.py`). In float32 nearly
  all of the time goes into the same matrix products on both sides.

Data: {"; ".join(dict.fromkeys(pictures))}.

Machine: {machine()}, timm {timm.__version__}. Repeats: {repeats}, alternating; {seconds / 60:.0f} minutes in all.

```
{command}
```
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="images for 128 px: a folder, parquet, ...; without it, synthetic pictures")
    parser.add_argument("--large", help="images for 224 px; without it, those of --data, or synthetic pictures")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--cases", default="", help="only cases whose title contains this")
    parser.add_argument("--shrink", type=int, default=1, help="divide the number of images, for a quick look")
    parser.add_argument("--out", type=Path, help="page to write; with --data, docs/numbers/throughput.md")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        library, case, folder, workers = json.loads(options.measure)
        print(json.dumps(measure(library, Case(**case), folder, workers)))
        return
    begun = time.monotonic()
    cases = [replace(case, images=max(case.batch, case.images // options.shrink // case.batch * case.batch))
             for case in CASES if options.cases in case.title]  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folders: dict[tuple[bool, int], str] = {}
        pictures = []
        for case in cases:
            if (key := (case.large, case.images)) not in folders:
                folders[key] = os.path.join(temporary, f"{len(folders)}")
                data = (options.large or options.data) if case.large else options.data
                pictures.append(write_pictures(data, Path(folders[key]), case.images, case.size))
        speeds = [Speeds(case, {}) for case in cases]
        for _ in range(options.repeats):
            for one in speeds:
                compare(one, folders[one.case.large, one.case.images])
    text = report(speeds, pictures, options.repeats, time.monotonic() - begun)
    print(text)
    if out := options.out or (REPORT if options.data else None):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)


if __name__ == "__main__":
    main()
