"""Objects found without labels, on pictures of which every pixel of the object is known: drawings on photographs.

    python benchmarks/objects.py prepare TUXPAINT/all.parquet PHOTOGRAPHS/all.parquet composites.parquet
    python benchmarks/objects.py time composites.parquet
    python benchmarks/objects.py measure composites.parquet runs/mine dino:dino_vits8 vit-s/16

`prepare` puts each transparent drawing at a random place and size on a photograph, by a seed, and writes columns image
and mask, which is the drawing's own transparency. `time` times each method on one image of 224 pixels of a ViT-S/8
(784 patches), on a machine that does nothing else: docs/numbers/object-times.md. `measure` scores each REF, the same
with random weights, and the centre prior: docs/numbers/objects.md.
"""

import argparse
import io
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from named import named
from PIL import Image
from scipy.linalg import eigh
from torch.nn import functional as F

from mirada.backbones import build
from mirada.data.decode import decode
from mirada.data.sources import open_data
from mirada.evaluate.object_discovery import discover
from mirada.evaluate.objects import METHODS
from mirada.inspect.objects.attention_masks import attention_masks
from mirada.inspect.objects.lost import lost
from mirada.inspect.objects.mask_cut import mask_cut
from mirada.inspect.objects.patches import see
from mirada.inspect.objects.refine import refine
from mirada.inspect.objects.token_cut import token_cut
from mirada.loading import load
from mirada.train.folder import machine

NUMBERS = Path(__file__).parent.parent / "docs" / "numbers"
TIMES, SCORES = NUMBERS / "object-times.md", NUMBERS / "objects.md"
SIDE, NEWLINE = 224, "\n"
SHARES = (0.25, 0.75)  # of the picture's shorter side, the drawing's longer side


def drawings(table: Path) -> list[Image.Image]:
    """Those that are transparent at the border and opaque inside, cut to what is opaque."""
    found = (drawn(encoded) for encoded in pq.read_table(table, columns=["image"])["image"].to_pylist())
    return [drawing for drawing in found if drawing is not None]


def drawn(encoded: bytes) -> Image.Image | None:
    """One of them, or None."""
    drawing = Image.open(io.BytesIO(encoded))
    if not drawing.has_transparency_data:
        return None
    drawing = drawing.convert("RGBA")
    there = drawing.getchannel("A").point(lambda value: 255 * (value >= 128))
    box = there.getbbox()
    return drawing.crop(box) if box and 0.1 < np.asarray(there.crop(box)).mean() / 255 < 0.98 else None


def composite(drawing: Image.Image, photograph: Image.Image, random: np.random.Generator) -> tuple[bytes, bytes]:
    """The middle square of the photograph with the drawing somewhere on it, as JPEG, and the mask, as PNG."""
    short = min(photograph.size)
    left, top = (photograph.width - short) // 2, (photograph.height - short) // 2
    picture = photograph.crop((left, top, left + short, top + short)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    longer = random.uniform(*SHARES) * SIDE
    scale = longer / max(drawing.size)
    small = drawing.resize([max(1, round(side * scale)) for side in drawing.size], Image.Resampling.LANCZOS)
    x, y = (int(random.integers(0, SIDE - side + 1)) for side in small.size)
    picture.paste(small, (x, y), small)
    mask = Image.new("L", picture.size)
    mask.paste(small.getchannel("A").point(lambda value: 255 * (value >= 128)), (x, y))
    files = io.BytesIO(), io.BytesIO()
    picture.save(files[0], "JPEG", quality=92)
    mask.save(files[1], "PNG")
    return files[0].getvalue(), files[1].getvalue()


def prepare(options: argparse.Namespace) -> None:
    random = np.random.default_rng(options.seed)
    stamps = drawings(options.drawings)
    photographs = pq.read_table(options.photographs, columns=["image"])["image"].to_pylist()
    chosen = random.permutation(len(photographs))
    rows = []
    for number in random.permutation(len(stamps))[: options.count].tolist():
        photograph = decode(photographs[chosen[len(rows) % len(chosen)]])
        image, mask = composite(stamps[number], photograph, random)
        rows.append({"image": image, "mask": mask})
    pq.write_table(pa.Table.from_pylist(rows), options.out)
    print(f"{len(rows)} pictures, of {len(stamps)} drawings, in {options.out}", file=sys.stderr)


def milliseconds(function: Callable[[], object], times: int = 15) -> float:
    """The median."""
    function()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        function()
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)


def dense_cut(features: torch.Tensor) -> torch.Tensor:
    """TokenCut's formula as it stands, all eigenvectors of the generalised problem."""
    unit = F.normalize(features.flatten(0, 1).double(), dim=1)
    weights = torch.where(unit @ unit.mT >= 0.2, 1.0, 1e-5).double().numpy()
    degree = np.diag(weights.sum(1))
    y = eigh(degree - weights, degree)[1][:, 1]
    y = y * np.sign(y[np.abs(y).argmax()])
    return torch.from_numpy(y > y.mean()).view(features.shape[:2])


def take_times(options: argparse.Namespace, images: int = 8) -> None:
    """Medians over images; and whether the fast cut is the formula's."""
    torch.manual_seed(0)
    backbone = build("vit-s/8").eval()
    model = load("vit-s/8")
    source = open_data(options.data).splits["all"]
    rows: dict[str, list[float]] = {}
    same = []
    for index in range(min(images, len(source))):
        picture = decode(source.read(index))
        pixels = model.preprocess.pixels(picture)
        batch = model.preprocess.normalise(pixels)[None]
        seen = see(backbone, batch)
        features = seen.features[0]
        attention = seen.attention
        assert attention is not None
        mask = token_cut(features).mask
        large = F.interpolate(mask[None, None].float(), (SIDE, SIDE))[0, 0]
        same.append(float((mask == dense_cut(features)).float().mean()))
        for name, function in {
            "features (ViT-S/8, one image)": lambda batch=batch: see(backbone, batch),
            "token-cut": lambda features=features: token_cut(features),
            "the same, dense generalised eigenproblem": lambda features=features: dense_cut(features),
            "lost": lambda features=features: lost(features),
            "attention": lambda attention=attention: attention_masks(attention),
            "mask-cut, three objects": lambda features=features: mask_cut(features),
            "refinement": lambda large=large, pixels=pixels: refine(large, pixels / 255),
        }.items():
            rows.setdefault(name, []).append(milliseconds(function, 5))
    lines = [
        f"| {name} | {statistics.median(found):.1f} | {min(found):.1f} to {max(found):.1f} |"
        for name, found in rows.items()
    ]
    TIMES.write_text(
        f"""# Objects without labels: time

One image of {SIDE} pixels, ViT-S/8 with random weights, {(SIDE // 8) ** 2} patches; milliseconds, the median of
five runs, median and range over {len(same)} images. What is below the features needs them; they are counted once.

| what | ms | from, to |
|---|---|---|
{NEWLINE.join(lines)}

Patches on the same side as in the dense problem: {100 * statistics.mean(same):.2f}%.

Machine: {machine()}; scipy {version("scipy")}; seed 0.

Repeat: `python benchmarks/objects.py time composites.parquet`, of what `prepare` wrote (see [objects](objects.md))
""",
        encoding="utf-8",
    )
    print(TIMES.read_text(encoding="utf-8"))


def scores(name: str, ref: str, data: Path, seed: int) -> list[str]:
    """Rows of the table of scores: of a model, of the same network with random weights, of the centre prior."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = load(ref)
    pixels = torch.zeros(1, 3, *model.preprocess.size)
    attends = see(model.backbone, pixels).attention is not None
    methods = [method for method in METHODS if attends or method != "attention"]
    source = open_data(data).splits["all"]
    plain, refined = (discover(model, source, methods, refined=one, seed=seed).metrics for one in (False, True))
    rows = []
    for before, who in (("", name), ("random/", f"{name}, random weights")):
        for method in methods:
            key = before if method == methods[0] else f"{before}{method}/"
            rows.append((who, method, key))
    return [row(who, method, key, plain, refined) for who, method, key in [*rows, ("centre prior", "", "centre/")]]


def row(who: str, method: str, key: str, plain: dict[str, float], refined: dict[str, float]) -> str:
    cells = [f"{100 * plain[key + metric]:.1f}" for metric in ("jaccard", "max_f", "corloc")]
    cells.append(f"{100 * refined[key + 'jaccard']:.1f}" if method else "")
    return f"| {who} | {method} | {' | '.join(cells)} |"


def measure(options: argparse.Namespace) -> None:
    data: Path = options.data
    lines = []
    for one in options.refs:
        name, ref = named(one)
        lines += scores(name, ref, data, options.seed)
        print("\n".join(lines[-9:]), file=sys.stderr, flush=True)
    count = len(open_data(data).splits["all"])
    SCORES.write_text(
        f"""# Objects without labels: scores

{count} drawings (Tux Paint's stamps) at random places and sizes on photographs, {SIDE} pixels; the mask is the
drawing's own transparency. In percent; what is measured, and how, is said in `mirada.evaluate.objects`. The head of
`attention` is chosen by the true mask, as in DINO's paper, and the size of the centre prior too. The photographs show
things of their own, which are found as well and count as wrong: compare rows, not with published scores.

| model | method | Jaccard | max F | CorLoc | Jaccard, refined |
|---|---|---|---|---|---|
{NEWLINE.join(dict.fromkeys(lines))}

Machine: {machine()}; scipy {version("scipy")}; seed {options.seed}.

Repeat: `python benchmarks/objects.py prepare TUXPAINT/all.parquet PHOTOGRAPHS/all.parquet composites.parquet --count
{count}`, then `python benchmarks/objects.py measure composites.parquet {" ".join(map(shown, options.refs))}`
""",
        encoding="utf-8",
    )
    print(SCORES.read_text(encoding="utf-8"))


def shown(ref: str) -> str:
    """As it stands in the page: of a folder of this machine the name only."""
    name, where = named(ref)
    short = Path(where).name if Path(where).is_dir() else where
    return repr(short if name == where else f"{name}={short}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("prepare", help="make the data set")
    verb.add_argument("drawings", type=Path)
    verb.add_argument("photographs", type=Path)
    verb.add_argument("out", type=Path)
    verb.add_argument("--count", type=int, default=400)
    verb.add_argument("--seed", type=int, default=0)
    verb.set_defaults(run=prepare)
    verb = verbs.add_parser("time", help="time the methods")
    verb.add_argument("data", type=Path)
    verb.set_defaults(run=take_times)
    verb = verbs.add_parser("measure", help="score models; a REF may be written NAME=REF")
    verb.add_argument("data", type=Path)
    verb.add_argument("refs", nargs="+", metavar="REF")
    verb.add_argument("--seed", type=int, default=0)
    verb.set_defaults(run=measure)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
