"""Attention distance and rollout of ViT-B/16 on photographs, beside hooks on timm with its fused attention off.

    python benchmarks/looking.py PHOTOGRAPHS

PHOTOGRAPHS is anything that `mirada train` takes as DATA. Both sides have the same random weights, see the same pixels
in the same batches, and run in a process of their own; memory is the process's peak above what it holds once the model
is loaded. Time is the processor's, on one thread, which others on the machine disturb least. The hooks are those that
one finds in notebooks: every layer's attention is kept until the pass is over. Writes docs/numbers/looking.md. Linux
only.
"""

import argparse
import ctypes
import gc
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peers import import_torchvision
from torch import Tensor

import mirada
from mirada.data.decode import decode
from mirada.data.sources import open_data
from mirada.features import Layer
from mirada.inspect.distance import layer_distance
from mirada.loading import load
from mirada.train.folder import machine

REPORT = Path(__file__).parent.parent / "docs" / "numbers" / "looking.md"
TIMM = "vit_base_patch16_224"
SIDE, PATCH = 224, 16
SHARPER = 4  # random queries and keys are times this: heads should not all look everywhere alike
BATCHES = (8, 32)
Result = dict[str, float]


def write_weights(out: Path) -> None:
    import_torchvision()
    import timm

    torch.manual_seed(0)
    model: Any = timm.create_model(TIMM)
    for block in model.blocks:
        block.attn.qkv.weight.data *= SHARPER
    torch.save(model.state_dict(), out)


def write_pixels(data: Path, weights: Path, out: Path, count: int) -> int:
    """The photographs as the model wants them, float32 (count, 3, 224, 224), spread evenly over the data."""
    preprocess = load(f"timm:{TIMM}", weights).preprocess
    source = next(iter(open_data(data).splits.values()))
    count = min(count, len(source))
    pixels = np.lib.format.open_memmap(out, mode="w+", dtype=np.float32, shape=(count, 3, SIDE, SIDE))
    for row, index in enumerate(np.linspace(0, len(source) - 1, count).astype(int).tolist()):
        pixels[row] = preprocess(decode(source.read(index))).numpy()
    pixels.flush()
    return count


def batches(pixels: Path, size: int) -> Iterator[Tensor]:
    """Read anew from the file, so that what was seen takes no memory."""
    count, *shape = np.load(pixels, mmap_mode="r").shape
    offset = pixels.stat().st_size - 4 * count * int(np.prod(shape))
    for start in range(0, count, size):
        rows = min(size, count - start)
        read = np.fromfile(pixels, np.float32, rows * int(np.prod(shape)), offset=offset + 4 * start * np.prod(shape))
        yield torch.from_numpy(read.reshape(rows, *shape))


class Peak:
    """Megabytes that the process takes at most from here on, above what it takes now."""

    def __init__(self) -> None:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # what loading took at its peak no longer counts
        self.before = self.now()

    def now(self) -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def above(self) -> float:
        return self.now() - self.before


def class_row(flow: Tensor) -> Tensor:
    return flow[:, 0, 1:]


@torch.no_grad()
def ours(weights: Path, pixels: Path, size: int, out: Path | None) -> Result:
    """Without `out`, nothing is looked at."""
    backbone = load(f"timm:{TIMM}", weights).eval().backbone
    roll = mirada.inspect.Rollout()

    def look(layer: Layer) -> Tensor:
        roll(layer)
        return layer_distance(layer, PATCH)

    distances, rows = [], []
    peak, began = Peak(), time.process_time()
    for part in batches(pixels, size):
        trace = backbone(part, probe=look if out else None).trace
        if out:
            assert roll.flow is not None
            distances.append(torch.stack(trace, 1))  # (B, layers, heads)
            rows.append(class_row(roll.flow).clone())
    seconds, megabytes = time.process_time() - began, peak.above()
    if out:
        np.savez(out, distances=torch.cat(distances), rows=torch.cat(rows))
    return {"seconds": seconds, "megabytes": megabytes}


@torch.no_grad()
def theirs(weights: Path, pixels: Path, size: int, out: Path | None) -> Result:
    """A hook in every block that keeps its attention; distance and rollout from all of it after each batch. Without
    `out`, no hook, and the fused kernel."""
    import_torchvision()
    import timm
    from timm.layers import set_fused_attn

    set_fused_attn(out is None)
    model: Any = timm.create_model(TIMM).eval()
    model.load_state_dict(torch.load(weights))
    kept: list[Tensor] = []
    if out:
        for block in model.blocks:
            block.attn.attn_drop.register_forward_hook(lambda _module, _given, attention: kept.append(attention))
    places = torch.cartesian_prod(*[torch.arange(SIDE // PATCH) * float(PATCH)] * 2)
    apart = torch.cdist(places, places)
    distances, rows = [], []
    peak, began = Peak(), time.process_time()
    for part in batches(pixels, size):
        kept.clear()
        model.forward_features(part)
        if out:
            of_layers = []
            flow = torch.eye(len(apart) + 1).expand(len(part), -1, -1)
            for attention in kept:
                between = attention[:, :, 1:, 1:]
                between = between / between.sum(-1, keepdim=True)
                of_layers.append((between * apart).sum(-1).mean(-1))
                flow = (attention.mean(1) + torch.eye(len(apart) + 1)) / 2 @ flow
            distances.append(torch.stack(of_layers, 1))
            rows.append(class_row(flow).clone())
    seconds, megabytes = time.process_time() - began, peak.above()
    if out:
        np.savez(out, distances=torch.cat(distances), rows=torch.cat(rows))
    return {"seconds": seconds, "megabytes": megabytes}


@torch.no_grad()
def idle(weights: Path, pixels: Path, size: int, out: Path | None) -> Result:  # noqa: ARG001
    """A pass with a probe that asks for nothing over one without: the median over small batches that take turns."""
    backbone = load(f"timm:{TIMM}", weights).eval().backbone
    parts = [part for part, _ in zip(batches(pixels, 4), range(16), strict=False)]
    backbone(parts[0])
    ratios = []
    for number, part in enumerate(parts):
        seconds = {}
        for probe in (None, lambda _: None) if number % 2 else (lambda _: None, None):
            began = time.process_time()
            backbone(part, probe=probe)
            seconds[probe is None] = time.process_time() - began
        ratios.append(seconds[False] / seconds[True])
    same = all(
        torch.equal(one, other)
        for one, other in zip(backbone(parts[0])[:3], backbone(parts[0], probe=lambda _: None)[:3], strict=True)
    )
    return {"ratio": statistics.median(ratios), "same": float(same)}


def in_process(who: str, folder: Path, size: int, out: str = "") -> Result:
    command = [sys.executable, "-W", "ignore", __file__, "--measure", who, str(folder), str(size), out]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: Result = json.loads(done.stdout.splitlines()[-1])
    print(who, "looking" if out else "", found, file=sys.stderr, flush=True)
    return found


def furthest(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.abs(one - other).max() / np.abs(other).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        torch.set_num_threads(1)
        who, folder, size, out = options.measure
        measure = {"mirada": ours, "timm": theirs, "idle": idle}[who]
        where = Path(folder)
        print(json.dumps(measure(where / "weights.pt", where / "pixels.npy", int(size), where / out if out else None)))
        return
    if options.data is None:
        parser.error("PHOTOGRAPHS is missing.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_weights(folder / "weights.pt")
        count = write_pixels(options.data, folder / "weights.pt", folder / "pixels.npy", options.count)
        found = {
            (who, size, bool(out)): in_process(who, folder, size, out)
            for size in BATCHES
            for who in ("mirada", "timm")
            for out in ("", f"{who}-{size}.npz")
        }
        nothing = in_process("idle", folder, 4)
        mine, rival = (np.load(folder / f"{who}-{max(BATCHES)}.npz") for who in ("mirada", "timm"))
        apart = {what: furthest(mine[what], rival[what]) for what in ("distances", "rows")}
    assert nothing["same"] == 1
    write_report(count, found, nothing["ratio"], apart)


def write_report(
    count: int, found: dict[tuple[str, int, bool], Result], nothing: float, apart: dict[str, float]
) -> None:
    import timm

    lines = []
    for size in BATCHES:
        for who, name in (("mirada", "Mirada"), ("timm", f"timm {timm.__version__}, hooks")):
            before, after = found[who, size, False], found[who, size, True]
            lines.append(
                f"| {name} | {size} | {before['seconds']:.1f} | {after['seconds']:.1f} | {before['megabytes']:,.0f} | "
                f"{after['megabytes']:,.0f} |"
            )
    rows = "\n".join(lines)

    def ratios(what: str) -> str:
        each = [f"{found['mirada', size, True][what] / found['timm', size, True][what]:.2f}" for size in BATCHES]
        return " and ".join(each)

    REPORT.write_text(
        f"""# Looking: time and memory beside hooks

Attention distance of each head and layer, and rollout, of ViT-B/16 on {count} photographs of {SIDE} x {SIDE} pixels,
float32.

| | images at once | pass alone, s | and looking, s | pass alone, MB | and looking, MB |
|---|---|---|---|---|---|
{rows}

With {" and ".join(map(str, BATCHES))} images at once, Mirada takes {ratios("seconds")} of the hooks' time, nearly all
of which is the pass itself, and {ratios("megabytes")} of their memory. Both say the same: of the largest value, distances
differ by {apart["distances"]:.0e} at most, rollouts by {apart["rows"]:.0e}. A probe on all layers that asks for nothing
makes a pass take {nothing:.3f} times as long (median of 16 batches of 4), and changes no bit of what comes out.

The pass alone is with either library's fused attention; for hooks timm's is turned off, as they need the matrices, and
all layers' are kept until the batch is done. Seconds are the processor's, on one thread, on a machine that had other
work to do. Memory is the peak above what the process holds once the model is loaded. Weights are random, seed 0, those
of queries, keys and values times {SHARPER}, so that heads differ.

Machine: {machine()}.

Repeat: `python benchmarks/looking.py PHOTOGRAPHS --count {count}`
""",
        encoding="utf-8",
    )
    print(REPORT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
