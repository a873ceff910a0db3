"""Words for classes: labels, templates, their vectors and what becomes of them on disk."""

import json
from pathlib import Path

import pytest
import torch
from peers import import_torchvision
from shapes import make_shapes
from torch.nn import functional as F

from mirada.backbones import build
from mirada.classify import classify
from mirada.errors import MiradaError, Misuse
from mirada.evaluate.run import evaluate
from mirada.evaluate.zero_shot import calibration_error, named
from mirada.model import Model, Projection
from mirada.preprocess import Preprocess
from mirada.text import TextDesign
from mirada.zero_shot import NONE, Label, class_vectors, probabilities, read_labels, template_names, templates


def two_towers(bias: bool = False, seed: int = 0) -> Model:
    torch.manual_seed(seed)
    text = TextDesign(width=16, depth=1, num_heads=2, hidden=16, dim=16, bias=bias)
    return Model("vit-pico/8(image_size=24)", build("vit-pico/8(image_size=24)"), Preprocess(size=(24, 24)),
                 projection=Projection(16), text=text).eval()  # fmt: skip


def test_labels_with_synonyms_from_text_and_from_a_file(tmp_path: Path) -> None:
    expected = [Label("cat", ("kitten", "gato")), Label("dog")]
    assert read_labels("cat|kitten| gato,dog")[0] == expected
    file = tmp_path / "labels.txt"
    file.write_text("cat | kitten | gato\n\ndog\n", encoding="utf-8")
    assert read_labels(str(file)) == (expected, [])


def test_a_label_that_stands_twice_counts_once_and_is_noted() -> None:
    labels, notes = read_labels("cat,dog,Cat|kitten")
    assert labels == [Label("cat", ("kitten",)), Label("dog")]
    assert notes == ["The label 'Cat' stands twice and counts once."]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat", "There is one label in 'cat': give two or more"),
        (" , ", "There are no labels"),
        ("cat|animal,dog|animal", "'animal' belongs to 'cat' and to 'dog'"),
        ("missing.txt", "Cannot read the labels in 'missing.txt'"),
        ("\n".join(f"class {number}" for number in range(60)), "There is one label in"),
    ],
)
def test_labels_that_make_no_sense(text: str, message: str) -> None:
    with pytest.raises(MiradaError, match=message):
        read_labels(text)


def test_the_eighty_are_those_of_clips_authors() -> None:
    import_torchvision()
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    assert templates("clip") == [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]


def test_sets_can_be_joined_and_files_read(tmp_path: Path) -> None:
    assert templates("en+es") == list(dict.fromkeys(templates("en") + templates("es")))
    file = tmp_path / "mine.txt"
    file.write_text("a sketch of {}\n\na {} in snow\n", encoding="utf-8")
    assert templates(f"none+{file}") == ["{}", "a sketch of {}", "a {} in snow"]
    for name in template_names():
        assert all(one.count("{}") == 1 for one in templates(name))
    with pytest.raises(Misuse, match="There are no templates 'klingon': there are clip, none, en, es"):
        templates("klingon")
    file.write_text("no place\n", encoding="utf-8")
    with pytest.raises(MiradaError, match=r"'no place' needs one \{\}"):
        templates(str(file))


def test_a_vector_is_the_mean_of_its_sentences() -> None:
    model = two_towers()
    vectors = class_vectors(model, [Label("cat", ("kitten",)), Label("dog")], ["a {}.", "{}"])
    sentences = model.encode_text(["a cat.", "cat", "a kitten.", "kitten"], normalize=True)
    torch.testing.assert_close(vectors[0], F.normalize(sentences.mean(0), dim=0))


def test_classes_may_be_called_the_same() -> None:
    model, crane = two_towers(), Label("crane")
    vectors = class_vectors(model, [crane, Label("dog"), crane, Label("cat")], ["a {}"])
    expected = model.encode_text(["a crane", "a dog", "a crane", "a cat"], normalize=True)
    torch.testing.assert_close(vectors, expected)


def test_vectors_are_encoded_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, labels = two_towers(), [Label("cat"), Label("dog")]
    read: list[str] = []
    encode = Model.encode_text

    def counted(self: Model, texts: list[str], normalize: bool = False) -> torch.Tensor:
        read.extend(texts)
        return encode(self, texts, normalize)

    monkeypatch.setattr(Model, "encode_text", counted)
    first = class_vectors(model, labels, ["a {}"])
    assert read == ["a cat", "a dog"]
    again = class_vectors(model, [Label("fish"), *labels], ["a {}"])
    assert read == ["a cat", "a dog", "a fish"]
    assert torch.equal(again[1:], first)
    class_vectors(two_towers(seed=1), labels, ["a {}"])  # another model
    class_vectors(model, labels, ["the {}"])  # other sentences
    assert len(read) == 7
    file = next((tmp_path / "cache" / "texts").glob("*.safetensors"))
    for broken in (tmp_path / "cache" / "texts").glob("*.safetensors"):
        broken.write_bytes(b"broken")
    assert torch.equal(class_vectors(model, labels, ["a {}"]), first)
    assert file.is_file()


def test_probabilities_of_both_kinds() -> None:
    images, vectors = (F.normalize(torch.randn(5, 16), dim=1) for _ in range(2))
    clip, siglip = two_towers(), two_towers(bias=True)
    torch.testing.assert_close(probabilities(clip, images, vectors),
                               (clip.logit_scale * images @ vectors.T).softmax(1))  # fmt: skip
    torch.testing.assert_close(probabilities(siglip, images, vectors),
                               (siglip.logit_scale * images @ vectors.T + siglip.logit_bias).sigmoid())  # fmt: skip
    rest = 1 - probabilities(clip, images, vectors, F.normalize(torch.randn(3, 16), dim=1)).sum(1)
    assert bool((rest > 0).all())


def test_calibration() -> None:
    sure = torch.eye(2)[[0, 0, 0, 1]]
    assert calibration_error(sure, torch.tensor([0, 0, 0, 1])) == 0
    assert calibration_error(sure, torch.tensor([1, 0, 0, 1])) == pytest.approx(0.25)
    half = torch.full((4, 2), 0.5)
    assert calibration_error(half, torch.tensor([0, 1, 0, 1])) == pytest.approx(0)


def test_labels_are_matched_to_classes() -> None:
    labels = [Label("Dog", ("perro",)), Label("feline", ("cat",))]
    assert named(labels, ["cat", "dog"]) == [labels[1], labels[0]]
    with pytest.raises(MiradaError, match="no word for the class 'fish'"):
        named(labels, ["cat", "fish"])


def test_the_probe_and_the_command_agree(tmp_path: Path) -> None:
    data, model = make_shapes(tmp_path / "data", 4), str(two_towers().save(tmp_path / "model"))
    result = evaluate(model, str(data), probe="zero-shot", split="all", templates="none")
    assert result["n"] == 12
    found, skipped, notes = classify(model, [data], labels="blue,green,red", templates="none")
    right = [answer["labels"][0]["label"] == Path(answer["path"]).parent.name for answer in found]
    assert sum(right) / 12 == pytest.approx(result["metrics"]["accuracy"])
    assert (skipped, notes) == ([], [])
    assert all(sum(label["score"] for label in answer["labels"]) == pytest.approx(1, abs=1e-4) for answer in found)
    other = evaluate(model, str(data), probe="zero-shot", split="all", labels="red|rojo,green,blue")
    assert "calibration_error" in json.loads(json.dumps(other["metrics"]))


def test_none_of_these(tmp_path: Path) -> None:
    data, model = make_shapes(tmp_path / "data", 1), str(two_towers().save(tmp_path / "model"))
    found, _, _ = classify(model, [data], labels="blue,green,red", threshold=1.0, top=2)
    assert [answer["labels"][0]["label"] for answer in found] == [NONE] * 3
    assert all(len(answer["labels"]) == 2 for answer in found)
    found, _, _ = classify(model, [data], labels="blue,green,red", threshold=1.0)
    for answer in found:  # the labels and none of them are all there is
        assert sum(label["score"] for label in answer["labels"]) == pytest.approx(1, abs=1e-4)
    siglip = str(two_towers(bias=True).save(tmp_path / "siglip"))
    found, _, _ = classify(siglip, [data], labels="blue,green,red", threshold=1.0)
    for answer in found:  # each label is for itself
        none, best, *_ = (label["score"] for label in answer["labels"])
        assert none == pytest.approx(1 - best, abs=1e-5)
    found, _, _ = classify(model, [data], labels="blue,green,red", threshold=1e-9)
    assert NONE not in [answer["labels"][0]["label"] for answer in found]
    with pytest.raises(Misuse, match="A threshold of 2 is no probability"):
        classify(model, [data], labels="a,b", threshold=2)


def test_what_a_model_cannot_do_is_said(tmp_path: Path) -> None:
    data = make_shapes(tmp_path / "data", 2)
    with pytest.raises(MiradaError, match="no text tower, it sees images only"):
        classify("vit-pico/8(image_size=24)", [data], labels="a,b")
    with pytest.raises(MiradaError, match="no text tower, it sees images only"):
        evaluate("vit-pico/8(image_size=24)", str(data), probe="zero-shot")
    model = str(two_towers().save(tmp_path / "model"))
    with pytest.raises(MiradaError, match="give --labels, which its text tower reads"):
        classify(model, [data])
    with pytest.raises(Misuse, match="words for the probe zero-shot"):
        evaluate(model, str(data), probe="knn", labels="a,b")
