"""The index, its pictures or its model change while they are served, and many ask at once."""

import io
import os
import shutil
import threading
from pathlib import Path

import pytest
from PIL import Image
from served import Served, failure, found, ids, png_of
from shapes import shape_picture
from starlette.testclient import TestClient
from towers import make_model

from mirada.search.index import Index
from mirada.serve.app import create_app
from mirada.serve.shelf import Shelf

BASE = "http://127.0.0.1:8000"


def test_the_index_may_grow_while_it_is_served(own_index: Served, own_client: TestClient) -> None:
    before = found(own_client, "/api/pictures")
    shape_picture("red", 40).save(own_index.pictures / "red" / "040.png")
    (own_index.pictures / "blue" / "000.png").unlink()
    Index.update(own_index.pictures, own_index.index)
    after = found(own_client, "/api/pictures")
    assert (before["total"], after["total"]) == (9, 9)
    assert after["version"] != before["version"]
    assert {row["name"] for row in after["pictures"]} - {row["name"] for row in before["pictures"]} == {"040.png"}
    new = next(row["id"] for row in after["pictures"] if row["name"] == "040.png")
    assert ids(found(own_client, "/api/search", plus=new, k=1)) == [new]


def test_those_who_wait_for_the_model_hold_up_no_one_else(own_index: Served) -> None:
    shelf = Shelf(own_index.index)
    with TestClient(create_app(shelf), base_url=BASE) as client:
        number = found(client, "/api/pictures")["pictures"][0]["id"]
        client.get("/api/search", params={"q": "red"})
        statuses: list[int] = []

        def get(path: str) -> None:
            statuses.append(client.get(path, params={"q": "red", "all": True}).status_code)

        waiting = [threading.Thread(target=get, args=["/api/search"]) for _ in range(60)]
        other = threading.Thread(target=get, args=[f"/api/pictures/{number}/thumbnail"])
        with shelf.lock:
            for thread in waiting:
                thread.start()
            other.start()
            other.join(60)
            before = list(statuses)
        for thread in waiting:
            thread.join()
    assert before == [200]
    assert statuses == [200] * 61


def test_a_vanished_index_is_said_and_found_again(own_index: Served, own_client: TestClient) -> None:
    before = found(own_client, "/api/pictures")
    away = own_index.index + ".away"
    os.rename(own_index.index, away)
    for path in ("/api/pictures", "/api/index", "/api/search", "/api/outliers", "/api/duplicates"):
        assert "There is no index" in failure(own_client, 503, path, q="red")
    health = own_client.get("/healthz")
    assert health.status_code == 503
    assert health.json() == {"status": "the index cannot be read"}  # and no word of where it was
    os.rename(away, own_index.index)
    assert found(own_client, "/healthz") == {"status": "ok"}
    assert found(own_client, "/api/pictures")["pictures"] == before["pictures"]


def test_another_index_in_its_place_is_served_with_its_own_model(
    own_index: Served, own_client: TestClient, tmp_path: Path
) -> None:
    upload = own_client.post("/api/uploads", content=(own_index.pictures / "red" / "000.png").read_bytes()).json()
    before = found(own_client, "/api/index")
    shutil.rmtree(own_index.index)
    shutil.rmtree(own_index.pictures / "blue")
    Index.update(own_index.pictures, own_index.index, model=str(make_model(seed=1).save(tmp_path / "other")))
    after = found(own_client, "/api/index")
    assert (before["pictures"], after["pictures"]) == (9, 6)
    assert after["version"] != before["version"]
    assert after["model"] != before["model"]
    expected = Index(own_index.index).search("red", k=3, everything=True)
    assert ids(found(own_client, "/api/search", q="red", k=3, all=True)) == [hit.id for hit in expected]
    assert "drop it again" in failure(own_client, 404, "/api/search", plus=upload["upload"])


def test_pictures_that_were_sent_to_another_index_are_not_searched_with(
    own_index: Served, own_client: TestClient, tmp_path: Path
) -> None:
    data = (own_index.pictures / "red" / "000.png").read_bytes()
    upload = own_client.post("/api/uploads", content=data).json()["upload"]
    shutil.rmtree(own_index.index)
    Index.update(own_index.pictures, own_index.index, model=str(make_model(seed=1).save(tmp_path / "other")))
    assert "drop it again" in failure(own_client, 404, "/api/search", plus=upload)
    assert own_client.post("/api/uploads", content=data).status_code == 200
    (first,) = ids(found(own_client, "/api/search", plus=upload, k=1))
    (expected,) = Index(own_index.index).search(like=[str(own_index.pictures / "red" / "000.png")], k=1)
    assert first == expected.id


@pytest.mark.parametrize("fate", ["corrupt", "removed", "a folder", "a pipe", "huge"])
def test_a_row_outlives_its_picture(own_client: TestClient, fate: str) -> None:
    row = found(own_client, "/api/pictures", sort="path")["pictures"][0]
    path = Path(row["path"])
    path.unlink()
    if fate == "corrupt":
        path.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    elif fate == "a folder":
        path.mkdir()
    elif fate == "a pipe":
        os.mkfifo(path)
    elif fate == "huge":
        path.write_bytes(png_of(40_000, 40_000))
    view = own_client.get(f"/api/pictures/{row['id']}/view")
    assert Image.open(io.BytesIO(view.content)).size == (24, 24)
    assert found(own_client, f"/api/pictures/{row['id']}/heat", q="red")["values"]
    assert found(own_client, f"/api/pictures/{row['id']}/attention")["from"]
    assert own_client.get(f"/api/pictures/{row['id']}/file").status_code == 200


def test_no_other_file_is_given_in_a_pictures_place(own_client: TestClient, tmp_path: Path) -> None:
    row = found(own_client, "/api/pictures", sort="path")["pictures"][0]
    (tmp_path / "key").write_text("secret")
    Path(row["path"]).unlink()
    Path(row["path"]).symlink_to(tmp_path / "key")
    answer = own_client.get(f"/api/pictures/{row['id']}/file")
    assert Image.open(io.BytesIO(answer.content)).format == "WEBP"
    assert f"{row['id']}.webp" in answer.headers["content-disposition"]


def test_a_model_that_is_gone_leaves_the_gallery(own_index: Served, tmp_path: Path) -> None:
    index = Index.update(own_index.pictures, tmp_path / "other index", model=str(make_model().save(tmp_path / "gone")))
    assert len(index[0]) == 9
    shutil.rmtree(tmp_path / "gone")
    with TestClient(create_app(Shelf(tmp_path / "other index")), base_url=BASE) as client:
        assert found(client, "/api/pictures")["total"] == 9
        assert "gone" in failure(client, 400, "/api/search", q="red")


def test_words_for_a_model_without_words(own_index: Served, tmp_path: Path) -> None:
    model = make_model(words=False).save(tmp_path / "blind to words")
    Index.update(own_index.pictures, tmp_path / "wordless", model=str(model))
    with TestClient(create_app(Shelf(tmp_path / "wordless")), base_url=BASE) as client:
        assert found(client, "/api/index")["words"] is False
        assert failure(client, 400, "/api/search", q="red")
        number = found(client, "/api/pictures")["pictures"][0]["id"]
        assert ids(found(client, "/api/search", plus=number, k=1)) == [number]
