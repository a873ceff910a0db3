"""Loading a checkpoint beside safetensors itself: seconds until every byte is there, and memory.

    python benchmarks/loading.py

Writes a ViT-B/16 of random weights as timm saves it. Each reading is a process of its own, the two take turns, and the
file is dropped from the system's cache before a reading from disk (Linux only; the cache is left alone elsewhere).
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "numbers" / "loading.md"
NAME = "vit_base_patch16_224"
REPEATS = 7


def make(file: str) -> dict[str, float]:
    """Write the checkpoint: in a process of its own too, because a child starts with its parent's peak of memory."""
    import safetensors.torch
    from peers import import_torchvision

    import_torchvision()
    import timm

    safetensors.torch.save_file(timm.create_model(NAME).state_dict(), file)
    return {}


def measure(library: str, file: str) -> dict[str, float]:
    """Seconds to open the file and touch every byte, and by how many bytes the peak of memory grew."""
    import safetensors.torch

    from mirada.checkpoints import timm  # noqa: F401  # what is imported once is no part of loading
    from mirada.loading import load

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    if library == "mirada":
        tensors = list(load(f"timm:{NAME}", weights=file).state_dict().values())
    else:
        tensors = list(safetensors.torch.load_file(file).values())
    for tensor in tensors:
        tensor.sum()
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "peak": 1024.0 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)}


def forget(file: Path) -> None:
    """Drop the file from the cache, so that the next reading is one from the disk."""
    if hasattr(os, "posix_fadvise"):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def in_process(library: str, file: Path) -> dict[str, float]:
    command = [sys.executable, __file__, library, str(file)]
    found: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    return found


def main() -> None:
    if len(sys.argv) == 3:
        library, path = sys.argv[1:]
        print(json.dumps(make(path) if library == "timm" else measure(library, path)))
        return
    rows = []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        file = Path(folder) / "model.safetensors"
        in_process("timm", file)
        size = file.stat().st_size
        for where in ("disk", "cache"):
            found: dict[str, list[dict[str, float]]] = {"safetensors": [], "mirada": []}
            for _ in range(REPEATS):
                for library, results in found.items():
                    if where == "disk":
                        forget(file)
                    results.append(in_process(library, file))
            seconds = {key: [one["seconds"] for one in results] for key, results in found.items()}
            peak = {key: max(one["peak"] for one in results) / size for key, results in found.items()}
            middle = {key: statistics.median(values) for key, values in seconds.items()}
            text = {
                key: f"{middle[key]:.3f} ({min(values):.3f} to {max(values):.3f})" for key, values in seconds.items()
            }
            rows.append(
                f"| from the {where} | {text['safetensors']} | {text['mirada']} | "
                f"{middle['mirada'] / middle['safetensors']:.2f} | {peak['safetensors']:.2f} | {peak['mirada']:.2f} |"
            )
    from mirada.train.folder import machine  # PyTorch comes last: children start with their parent's peak of memory

    page = "\n".join([
        "# Loading beside safetensors", "",
        f"Seconds until every byte of a {size / 1e6:.0f} MB ViT-B/16 has been read: median of {REPEATS} processes "
        "(fastest to slowest). Memory: how much the peak grew, over the size of the file.", "",
        "| | safetensors | Mirada | ratio | memory, safetensors | memory, Mirada |", "|---|---|---|---|---|---|",
        *rows, "",
        "Mirada opens the file with safetensors, maps names by a table, and gives the model the tensors themselves; it "
        "is built without memory for its own. What it takes longer, in either row, is that building.", "",
        f"Machine: {machine()}.", "", "Repeat: `python benchmarks/loading.py`", "",
    ])  # fmt: skip
    PAGE.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
