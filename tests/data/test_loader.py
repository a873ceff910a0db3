"""Steps are a pure function of the seed; nothing is left out; what cannot be read is skipped and named."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mirada.data.decode import decode, to_canvas
from mirada.data.images import Images
from mirada.data.loader import Loader, mix_seed
from mirada.data.sources import open_data
from mirada.errors import MiradaError


def images_of(folder: Path, keep: bool = True, strict: bool = False) -> Images:
    source = open_data(folder).splits["all"]
    return Images(source, lambda data: to_canvas(decode(data), 24), keep=keep, strict=strict)


def loader_of(images: Images, batch: int = 16, **options: int) -> Loader:
    half = torch.full((3,), 0.5)
    return Loader(images, batch, mean=half, std=half, seed=5, **options)


def test_each_epoch_is_a_permutation_without_gaps(folder_of_shapes: Path) -> None:
    loader = loader_of(images_of(folder_of_shapes), 16)
    stream = np.concatenate([loader.places(step) for step in range(45)])  # 8 epochs of 90
    for epoch in stream.reshape(8, 90):
        assert sorted(epoch.tolist()) == list(range(90))
    assert stream[:90].tolist() != stream[90:180].tolist()


def test_a_step_does_not_depend_on_what_came_before(folder_of_shapes: Path) -> None:
    images = images_of(folder_of_shapes)
    walked, jumped = loader_of(images), loader_of(images)
    for step in range(9):
        walked.places(step)
    assert walked.places(9).tolist() == jumped.places(9).tolist()
    a, b = (torch.rand(4, generator=one.batch(9, (24, 24)).generator) for one in (walked, jumped))
    assert torch.equal(a, b)


def test_processes_share_a_batch(folder_of_shapes: Path) -> None:
    images = images_of(folder_of_shapes)
    whole = loader_of(images).places(3)
    parts = [loader_of(images, rank=rank, processes=3).places(3) for rank in range(3)]
    assert sorted(np.concatenate(parts).tolist()) == sorted(whole.tolist())
    with pytest.raises(MiradaError, match="cannot be shared by 3 processes"):
        loader_of(images, 2, processes=3)


def test_kept_and_streamed_images_are_the_same(folder_of_shapes: Path) -> None:
    kept, streamed = images_of(folder_of_shapes), images_of(folder_of_shapes, keep=False)
    for one, other in zip(kept.get([3, 80]), streamed.get([3, 80]), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_prefetching_gives_the_same_batches(folder_of_shapes: Path) -> None:
    images = images_of(folder_of_shapes, keep=False)
    plain, ahead = loader_of(images), loader_of(images, prefetch=True)
    for step in (0, 1, 5):
        assert torch.equal(plain.batch(step, (24, 24)).canvases, ahead.batch(step, (24, 24)).canvases)


@pytest.mark.parametrize("keep", [True, False])
def test_broken_files_are_skipped_and_named(new_shapes, keep: bool) -> None:  # type: ignore[no-untyped-def]
    folder = new_shapes(4)
    (folder / "red" / "000.png").write_bytes(b"not an image")
    (folder / "blue" / "001.png").write_bytes(b"")
    images = images_of(folder, keep=keep)
    seen = [images.get([place])[2] for place in range(len(images))]
    assert sum(len(places) for places in seen) == 10
    assert {Path(entry["path"]).parts[-2] for entry in images.skipped_files()} == {"red", "blue"}
    with pytest.raises(MiradaError, match=r"Cannot read .*blue"):
        images_of(folder, keep=True, strict=True)


def test_other_images_take_the_place_of_those_that_broke_since(new_shapes) -> None:  # type: ignore[no-untyped-def]
    folder = new_shapes(8)
    images = images_of(folder, keep=False)
    whole = [loader_of(images, 8).batch(step, (24, 24)) for step in range(3)]
    broken = sorted(folder.rglob("*.png"))[::3]
    for file in broken:
        file.write_bytes(b"no longer an image")
    for step, before in enumerate(whole):
        first, again = (loader_of(images, 8).batch(step, (24, 24)) for _ in range(2))
        assert len(first) == len(before) == 8
        assert torch.equal(first.canvases, again.canvases)
        assert torch.equal(first.labels.sort().values, again.labels.sort().values)
    assert {Path(entry["path"]) for entry in images.skipped_files()} <= set(broken)
    for file in folder.rglob("*.png"):
        file.unlink()
    with pytest.raises(MiradaError, match="has the folder gone"):
        loader_of(images, 8).batch(0, (24, 24))


def test_a_folder_with_nothing_readable_says_so(new_shapes) -> None:  # type: ignore[no-untyped-def]
    folder = new_shapes(1)
    for file in folder.rglob("*.png"):
        file.write_bytes(b"no")
    with pytest.raises(MiradaError, match="None of the 3 files can be read as an image"):
        images_of(folder)


def test_equal_views_are_computed_once(folder_of_shapes: Path) -> None:
    from mirada.data.augment import Augmentation

    samples = loader_of(images_of(folder_of_shapes)).batch(0, (24, 24))
    assert samples.view(Augmentation("shift")) is samples.view(Augmentation("shift"))
    assert samples.view(Augmentation("shift")) is not samples.view(Augmentation("zoom"))


def test_seeds_do_not_collide() -> None:
    seeds = {mix_seed(seed, step, kind) for seed in range(8) for step in range(64) for kind in range(4)}
    assert len(seeds) == 8 * 64 * 4
