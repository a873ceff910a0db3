"""An index that keeps itself fresh."""

from collections.abc import Callable
from pathlib import Path

import pytest
from shapes import shape_picture

from mirada.search import watch
from mirada.search.build import writing
from mirada.search.index import Index


def test_what_comes_and_goes_is_taken_in(indexed: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, where = indexed
    steps: list[Callable[[], object]] = [
        lambda: shape_picture("red", 60).save(folder / "new.png"),
        lambda: None,
        lambda: (folder / "new.png").rename(folder / "other.png"),
        lambda: None,
        lambda: folder.rename(folder.with_name("away")),  # a drive is taken out
        lambda: None,
        lambda: folder.with_name("away").rename(folder),  # and put back
        lambda: (folder / "other.png").unlink(),
    ]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if steps:
            steps.pop(0)()

    monkeypatch.setattr(watch.time, "sleep", sleep)
    changes = watch.changes_of(folder, where)
    found = [next(changes) for _ in range(3)]
    assert [(one.added, one.moved, one.removed, one.embedded) for one in found] == [
        (1, 0, 0, 1), (0, 1, 0, 0), (0, 0, 1, 0),
    ]  # fmt: skip
    assert len(Index(where)) == 9
    assert min(slept) >= watch.SECONDS


def test_it_waits_for_another_writer(indexed: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, where = indexed
    shape_picture("red", 60).save(folder / "new.png")
    other = writing(where)
    other.__enter__()
    waited = iter([None] * 4)

    def sleep(_: float) -> None:
        if next(waited, other) is other:
            monkeypatch.setattr(watch.time, "sleep", lambda _: None)
            other.__exit__(None, None, None)

    monkeypatch.setattr(watch.time, "sleep", sleep)
    assert next(watch.changes_of(folder, where)).added == 1


def test_a_drive_that_goes_out_between_two_looks_is_waited_for(
    indexed: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, where = indexed
    shape_picture("red", 60).save(folder / "new.png")
    update, tries = Index.update, []

    def late(*arguments: object, **options: object) -> object:
        tries.append(folder.rename(folder.with_name("away")) if not tries else folder)
        return update(*arguments, **options)  # type: ignore[arg-type]

    def sleep(_: float) -> None:
        if not folder.exists():
            folder.with_name("away").rename(folder)

    monkeypatch.setattr(watch.Index, "update", late)
    monkeypatch.setattr(watch.time, "sleep", sleep)
    assert next(watch.changes_of(folder, where)).added == 1
    assert len(tries) == 2


def test_what_came_while_the_index_was_made_is_taken_in(
    indexed: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, where = indexed
    shape_picture("red", 62).save(folder / "new.png")
    monkeypatch.setattr(watch.time, "sleep", lambda _: None)
    assert next(watch.changes_of(folder, where)).added == 1
