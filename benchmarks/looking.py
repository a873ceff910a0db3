"""What looking inside costs: attention distance and rollout of a ViT-B/16, beside hooks on timm; and a probe by itself.

    python benchmarks/looking.py PHOTOGRAPHS/all.parquet

The peer is the implementation that most write: timm's model with fused attention off, a forward hook on the attention
matrix of each block, all of them kept until the pass is over. Both have the same random weights, queries and keys twice
as large as timm draws them so that attention is not even, and the same photographs. Each measurement is a process
of its own; memory is the most that it holds at once above the loaded model and the photographs, after a first pass over
one of them. Time is the processor's, on one thread, which others on the machine disturb least. Writes
docs/numbers/looking.md.
"""

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from peers import import_torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import mirada
from mirada.data.decode import decode
from mirada.features import Layer
from mirada.inspect import Rollout
from mirada.inspect.distance import layer_distance
from mirada.train.folder import machine

REPORT = Path(__file__).parent.parent / "docs" / "numbers" / "looking.md"
NAME = "vit_base_patch16_224"
BATCHES = (16, 64)
HEADER = "| | forward alone, s | both, s | looking, s | Mirada's time over it | MB above the model | Mirada's over it |"
LAYERS, SIDE, PATCH, PAIRS = 12, 224, 16, 15
RESET = Path("/proc/self/clear_refs")  # Linux: writing 5 forgets the peak of the memory so far


def timm_model() -> nn.Module:
    import_torchvision()
    warnings.simplefilter("ignore")
    import timm

    torch.manual_seed(0)
    model: nn.Module = timm.create_model(NAME).eval()
    return model


def write_weights(file: Path) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in timm_model().state_dict().items()}
    for name, tensor in tensors.items():
        if "qkv.weight" in name:
            tensor[: 2 * tensor.shape[1]] *= 2
    save_file(tensors, file)


def photographs(table: Path, count: int) -> Tensor:
    model = mirada.load("vit-pico/16")  # for its preprocessing alone
    rows = pq.read_table(table, columns=["image"])["image"].to_pylist()[:count]
    return model.prepare([decode(row) for row in rows])


def hooked(model: nn.Module, images: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Distances (B, layers, heads) and rollout (B, N, N) from attention matrices that hooks keep."""
    kept: list[Tensor] = []
    side = SIDE // PATCH
    y, x = (place.flatten() * PATCH for place in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))
    apart = ((y[:, None] - y) ** 2 + (x[:, None] - x) ** 2).float().sqrt()
    handles = []
    for block in model.get_submodule("blocks").children():
        attention: Any = block.get_submodule("attn")
        attention.fused_attn = False
        handles.append(attention.attn_drop.register_forward_hook(lambda _module, _given, matrix: kept.append(matrix)))
    distances, flows = [], []
    for part in images.split(batch):
        kept.clear()
        model(part)
        between = [matrix[:, :, 1:, 1:] for matrix in kept]
        between = [matrix / matrix.sum(-1, keepdim=True) for matrix in between]
        distances.append(torch.stack([(matrix * apart).sum(-1).mean(-1) for matrix in between], 1))
        flow = torch.eye(kept[0].shape[-1]).expand(len(part), -1, -1)
        for matrix in kept:
            flow = ((matrix.mean(1) + torch.eye(matrix.shape[-1])) / 2) @ flow
        flows.append(flow)
    for handle in handles:
        handle.remove()
    return torch.cat(distances), torch.cat(flows)


def probed(model: mirada.Model, images: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """The same with a probe."""
    look = Rollout()

    def see(layer: Layer) -> Tensor:
        look(layer)
        return layer_distance(layer, PATCH)

    distances, flows = [], []
    for part in images.split(batch):
        distances.append(torch.stack(model.backbone(part, probe=see).trace, 1))
        assert look.flow is not None
        flows.append(look.flow)
    return torch.cat(distances), torch.cat(flows)


def peak() -> float:
    """Megabytes that this process held at most, since it forgot them if it can."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text()) if RESET.exists() else None
    size = int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (1 << 20 if sys.platform == "darwin" else 1 << 10)


@torch.no_grad()
def measure(who: str, table: Path, weights: Path, count: int, batch: int, out: Path) -> dict[str, float]:
    """Seconds of the forward alone and with looking, megabytes at the peak of each; and what was found in a file."""
    images = photographs(table, count)
    if who == "mirada":
        model: Any = mirada.load(f"timm:{NAME}", weights=weights)
        forward, look = model.backbone, probed
    else:
        forward = model = timm_model()
        model.load_state_dict(load_file(weights))
        look = hooked
    look(model, images[:1], 1)
    found: dict[str, float] = {}
    for name in ("forward", "looking"):
        if RESET.exists():
            RESET.write_text("5")
        before, began = peak(), time.process_time()
        if name == "forward":
            for part in images.split(batch):
                forward(part)
        else:
            distances, flows = look(model, images, batch)
        found |= {f"{name} seconds": time.process_time() - began, f"{name} megabytes": peak() - before}
    save_file({"distances": distances, "flows": flows}, out)
    return found


@torch.no_grad()
def nothing_asked(table: Path, weights: Path) -> dict[str, float]:
    """A probe on all layers that asks for nothing: the median ratio of a pass with it to one without, by turns; and of
    two passes without, which is what the machine's own restlessness makes of it."""
    images = photographs(table, 8)
    backbone = mirada.load(f"timm:{NAME}", weights=weights).backbone

    def seconds(**options: Any) -> float:
        began = time.process_time()
        backbone(images, **options)
        return time.process_time() - began

    def nothing(layer: Layer) -> None:
        del layer

    plain, probe = backbone(images), backbone(images, probe=nothing)
    same = all(torch.equal(one, other) for one, other in zip(plain[:3], probe[:3], strict=True))
    rounds = [(seconds(), seconds(probe=nothing), seconds()) for _ in range(PAIRS)]
    mean = [(first + last) / 2 for first, _, last in rounds]
    return {
        "ratio": statistics.median(asked / plain for (_, asked, _), plain in zip(rounds, mean, strict=True)),
        "still": statistics.median(last / first for first, _, last in rounds), "identical": float(same),
        "seconds": statistics.median(mean),
    }  # fmt: skip


def in_process(options: argparse.Namespace, *what: object) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", __file__, str(options.table), "--count", str(options.count)]
    done = subprocess.run([*command, "--measure", *map(str, what)], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def apart(first: Path, second: Path) -> tuple[float, float]:
    """The largest relative difference of distances, and the largest difference of rollouts."""
    mine, theirs = load_file(first), load_file(second)
    relative = ((mine["distances"] - theirs["distances"]) / theirs["distances"]).abs().max()
    return float(relative), float((mine["flows"] - theirs["flows"]).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--count", type=int, default=256, help="photographs")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.measure:
        who, weights, *rest = options.measure
        if who == "nothing":
            print(json.dumps(nothing_asked(options.table, Path(weights))))
        else:
            batch, out = int(rest[0]), Path(rest[1])
            print(json.dumps(measure(who, options.table, Path(weights), options.count, batch, out)))
        return
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        write_weights(weights)
        nothing = in_process(options, "nothing", weights)
        print(nothing, file=sys.stderr, flush=True)
        found: dict[tuple[str, int], dict[str, float]] = {}
        for who, batch in (("mirada", 16), *(("timm", batch) for batch in BATCHES)):
            out = Path(folder) / f"{who}-{batch}.safetensors"
            found[who, batch] = in_process(options, who, weights, batch, out)
            print(who, batch, found[who, batch], file=sys.stderr, flush=True)
        mine = found["mirada", 16]
        for (who, batch), row in found.items():
            extra = row["looking seconds"] - row["forward seconds"]
            lines.append(
                f"| {who}, batches of {batch} | {row['forward seconds']:.1f} | {row['looking seconds']:.1f} | "
                f"{extra:+.1f} | {mine['looking seconds'] / row['looking seconds']:.2f} | "
                f"{row['looking megabytes']:,.0f} | {mine['looking megabytes'] / row['looking megabytes']:.2f} |"
            )
        files = [Path(folder) / f"{who}-{batch}.safetensors" for who, batch in found]
        distance, flow = (max(values) for values in zip(*(apart(files[0], one) for one in files[1:]), strict=True))
    import_torchvision()
    import timm

    rows = "\n".join(lines)
    asked, still = (100 * (nothing[key] - 1) for key in ("ratio", "still"))
    same = "bit-identical" if nothing["identical"] else "NOT identical"
    REPORT.write_text(
        f"""# Looking inside

## Attention distance and rollout

ViT-B/16, {SIDE} pixels, float32, {options.count} photographs, random weights that are the same on both sides:
attention distance of all {LAYERS * 12} heads and rollout through {LAYERS} layers, both from one pass. Seconds are the
processor's, on one thread.

{HEADER}
|---|---|---|---|---|---|---|
{rows}

timm {timm.__version__} has fused attention off and a hook on each block's attention matrix, all of which are kept until
the pass is over, as most implementations do; Mirada keeps the fused kernel on and holds the matrix of one head of one
layer. Largest difference between the two: distances {distance:.1e} (relative), rollout {flow:.1e}.

## A probe that asks for nothing

On all layers of the same network, batches of 8: {asked:+.2f}% of a forward of {nothing["seconds"]:.2f} s (median of
{PAIRS}, each between two passes without a probe; these differ by {still:+.2f}% themselves). Outputs are {same}.

Machine: {machine()}.

Repeat: `python benchmarks/looking.py PHOTOGRAPHS/{options.table.name} --count {options.count}`
""",
        encoding="utf-8",
    )
    print(REPORT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
