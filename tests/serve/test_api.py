"""What the server answers, beside what the index itself gives."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from served import NAMES, Served, failure, found, ids
from starlette.testclient import TestClient

from mirada.search.index import Index
from mirada.serve.places import PAGES

ALL = 90 + len(NAMES)


@pytest.fixture(scope="module")
def index(served_index: Served) -> Index:
    return Index(served_index.index)


def picture(client: TestClient, name: str) -> int:
    rows = found(client, "/api/pictures", limit=1000)["pictures"]
    return int(next(row["id"] for row in rows if row["path"].endswith(name)))


def test_the_index_is_described(client: TestClient, index: Index) -> None:
    about = found(client, "/api/index")
    assert (about["name"], about["pictures"], about["words"]) == ("index", ALL, True)
    assert about["model"] == index.made.model
    assert set(about["sorts"]) <= set(about["columns"])


def test_pages_make_up_the_whole(client: TestClient, index: Index) -> None:
    pages = [found(client, "/api/pictures", sort="size", offset=offset, limit=40) for offset in range(0, 160, 40)]
    assert [len(page["pictures"]) for page in pages] == [40, 40, ALL - 80, 0]
    assert {page["total"] for page in pages} == {ALL}
    assert [number for page in pages for number in ids(page)] == index.order(sort="size", descending=True).tolist()


def test_a_condition_and_an_order(client: TestClient) -> None:
    answer = found(client, "/api/pictures", where="path like '%/blue/%'", sort="path", descending=False)
    assert [row["name"] for row in answer["pictures"]] == [f"{number:03}.png" for number in range(30)]


def test_words_find_what_the_index_finds(client: TestClient, index: Index) -> None:
    expected = index.search("red + 0.5*disc - blue", k=12, everything=True)
    answer = found(client, "/api/search", q="red + 0.5*disc - blue", k=12, all=True)
    assert ids(answer) == [hit.id for hit in expected]
    assert [(row["score"], row["match"]) for row in answer["pictures"]] == [(hit.score, hit.match) for hit in expected]
    assert [(term["words"], term["weight"]) for term in answer["terms"]] == [("red", 1), ("disc", 0.5), ("blue", -1)]


def test_nothing_is_found_where_nothing_matches(client: TestClient, index: Index) -> None:
    assert index.search("qzxv wkjhq") == []
    assert found(client, "/api/search", q="qzxv wkjhq")["pictures"] == []


def test_a_picture_that_is_sent_finds_itself(client: TestClient, served_index: Served) -> None:
    data = (served_index.pictures / "green" / "011.png").read_bytes()
    sent = client.post("/api/uploads", content=data).json()
    assert (sent["width"], sent["height"]) == (24, 24)
    first = found(client, "/api/search", plus=sent["upload"], k=5)["pictures"][0]
    assert first["path"].endswith("green/011.png")
    assert first["score"] == pytest.approx(1, abs=2e-3)  # vectors are stored as fp16
    small = client.get(f"/api/uploads/{sent['upload']}/thumbnail")
    assert Image.open(io.BytesIO(small.content)).format == "WEBP"
    assert client.post("/api/uploads", content=data).json() == sent


def test_more_like_one_and_less_like_another(client: TestClient, index: Index) -> None:
    red, blue = picture(client, "red/003.png"), picture(client, "blue/003.png")
    rows = index.vectors.of([red, blue])
    apart = rows - index.background.image_mean
    apart /= np.linalg.norm(apart, axis=1, keepdims=True)
    query = apart[0] - apart[1]
    order = index.vectors.ids[np.argsort(-(index.vectors.matrix @ query), kind="stable")]
    answer = found(client, "/api/search", plus=red, minus=blue, k=5, all=True)
    assert ids(answer) == order[:5].tolist()


def test_a_picture_its_neighbours_and_its_copies(client: TestClient, index: Index) -> None:
    number = picture(client, "copy.png")
    row = found(client, f"/api/pictures/{number}")
    assert (row["name"], row["width"], row["height"]) == ("copy.png", 24, 24)
    neighbours = found(client, f"/api/pictures/{number}/neighbours", k=7)
    assert ids(neighbours) == [hit.id for hit in index.neighbours(number, 7)]
    copies = found(client, f"/api/pictures/{number}/duplicates")["pictures"]
    assert {*NAMES} - {"copy.png"} <= {row["name"] for row in copies}
    assert number not in {row["id"] for row in copies}


def test_only_what_names_a_version_is_kept_by_browsers(client: TestClient) -> None:
    number = found(client, "/api/pictures", limit=1)["pictures"][0]["id"]
    for what in ("thumbnail", "view"):
        kept = [client.get(f"/api/pictures/{number}/{what}{query}").headers["cache-control"] for query in ("", "?v=1")]
        assert kept == ["no-cache", "private, max-age=86400"]


def test_duplicates_and_outliers_are_the_index_s(client: TestClient, index: Index) -> None:
    groups = found(client, "/api/duplicates")
    expected = index.duplicates()
    assert groups["total"] == len(expected)
    assert [ids(group) for group in groups["groups"]] == [[row["id"] for row in group] for group in expected]
    lonely = found(client, "/api/outliers", offset=2, limit=5)
    assert ids(lonely) == [hit.id for hit in index.outliers(7)[2:]]


def test_thumbnail_view_and_file(client: TestClient, served_index: Served) -> None:
    number = picture(client, "green/004.png")
    original = Image.open(served_index.pictures / "green" / "004.png").convert("RGB")
    for what in ("thumbnail", "view"):
        answer = client.get(f"/api/pictures/{number}/{what}")
        assert answer.headers["content-type"] == "image/webp"
        seen = Image.open(io.BytesIO(answer.content)).convert("RGB")
        assert seen.size == original.size
        assert np.abs(np.asarray(seen, float) - np.asarray(original, float)).mean() < 20
    file = client.get(f"/api/pictures/{number}/file")
    assert file.content == (served_index.pictures / "green" / "004.png").read_bytes()
    assert file.headers["content-disposition"].startswith("attachment;")


def test_heat_is_the_cosine_of_each_patch(client: TestClient, served_index: Served, index: Index) -> None:
    number = picture(client, "red/005.png")
    answer = found(client, f"/api/pictures/{number}/heat", q="red")
    model = index.embedder.model
    images = model.preprocess(Image.open(served_index.pictures / "red" / "005.png").convert("RGB"))[None]
    with torch.no_grad():
        patches = model.backbone(model.prepare(images)).patches
        feature = torch.nn.functional.normalize(model.project(patches.flatten(0, 2)).float(), dim=1)
    expected = feature.numpy() @ index.vector("red")[0]
    np.testing.assert_allclose(np.array(answer["values"]).ravel(), expected, atol=1e-4)
    assert answer["box"] == [0, 0, 1, 1]


def test_attention_is_that_of_the_layer(client: TestClient, served_index: Served, index: Index) -> None:
    number = picture(client, "red/005.png")
    answer = found(client, f"/api/pictures/{number}/attention")
    assert (answer["layers"], answer["layer"]) == (1, 0)
    model, kept = index.embedder.model, []
    images = model.preprocess(Image.open(served_index.pictures / "red" / "005.png").convert("RGB"))[None]
    with torch.no_grad():
        model.backbone(model.prepare(images), probe=kept.append)
    layer = kept[0]
    expected = layer.attention()[0].mean(0)[layer.prefix :, layer.prefix :].reshape(3, 3, 3, 3)
    np.testing.assert_allclose(np.array(answer["from"]) / 1e6, expected.numpy(), atol=6e-7)
    assert "layer 1" in failure(client, 400, f"/api/pictures/{number}/attention", layer=1)


def test_what_is_asked_for_in_vain(client: TestClient) -> None:
    assert "row 999999" in failure(client, 404, "/api/pictures/999999")
    assert "row 999999" in failure(client, 404, "/api/search", plus="999999")
    assert "drop it again" in failure(client, 404, "/api/search", plus="u1234")
    assert "leave out" in failure(client, 400, "/api/search", q="- red")
    assert "sort by" in failure(client, 400, "/api/pictures", sort="vector")
    assert "limit" in failure(client, 422, "/api/pictures", limit=10**6)
    assert "Not Found" in failure(client, 404, "/api/nothing")


def test_openapi_knows_every_route(client: TestClient) -> None:
    api = found(client, "/api/openapi.json")
    assert {"/api/search", "/api/pictures/{number}/heat", "/api/uploads", "/api/outliers", "/healthz"} <= set(
        api["paths"]
    )
    for methods in api["paths"].values():
        for route in methods.values():
            assert route["description"]
            assert "200" in route["responses"]
    assert "<title>API" in client.get("/api").text


def test_health_and_metrics(client: TestClient) -> None:
    assert found(client, "/healthz") == {"status": "ok"}
    name = 'mirada_requests_total{method="GET",route="/api/pictures/{number}",status="404"}'

    def value(sample: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(sample + " ")), 0.0)

    before = value(name)
    failure(client, 404, "/api/pictures/999999")
    assert value(name) == before + 1
    assert value("mirada_pictures") == ALL
    assert value('mirada_request_seconds_bucket{le="+Inf",route="/healthz"}') == value(
        'mirada_request_seconds_count{route="/healthz"}'
    )
    assert list(text_string_to_metric_families(client.get("/metrics").text))


def test_the_texts_of_both_languages_are_the_ones_that_are_used() -> None:
    texts = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (PAGES / "texts").iterdir()}
    assert set(texts) == {"en", "es"}
    assert set(texts["en"]) == set(texts["es"])
    code = "".join(path.read_text(encoding="utf-8") for path in PAGES.glob("*.*s")) + (PAGES / "index.html").read_text()
    for key, text in texts["en"].items():
        assert re.search(rf"['\"]{key}['\"]|\b{key}[,:]? ", code), f"{key} is used nowhere"
        assert re.findall(r"\{\w+\}", text) == sorted(re.findall(r"\{\w+\}", texts["es"][key]), key=text.index)
    assert set(re.findall(r"say\('(\w+)'", code)) <= set(texts["en"])


def test_the_pages_name_no_other_host() -> None:
    for path in Path(PAGES).rglob("*.*"):
        hosts = set(re.findall(r"(?:https?:)?//([\w.-]+\.\w+)", path.read_text(encoding="utf-8")))
        assert hosts <= {"www.w3.org"}, path  # the name of SVG, which is never fetched
