import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from pictures import fill, picture, write_jsonl, write_parquet

from mirada.data.decode import UndecodableImage
from mirada.data.sources import open_data
from mirada.errors import MiradaError

IMAGES = [picture(number) for number in range(6)]


def test_parquet_with_bytes(tmp_path):
    columns = {"image": IMAGES[:3], "label": [1, 0, 1], "label_name": ["dog", "cat", "dog"], "caption": ["a", None, ""]}
    source = open_data(write_parquet(tmp_path / "pets.parquet", columns)).splits["all"]
    assert source.classes == ["cat", "dog"]
    assert source.labels.tolist() == [1, 0, 1]
    assert source.captions == [("a",), (), ()]
    assert source.names[2] == "pets.parquet#2"
    assert source.path(2) == str(tmp_path / "pets.parquet#2")
    assert [source.read(index) for index in range(3)] == IMAGES[:3]


def test_every_column_of_captions_counts(tmp_path):
    columns = {
        "image": IMAGES[:3], "caption": ["a cat", None, "a dog"], "caption_es": ["un gato", " ", "a dog"],
        "captions": [["cat", "cat", ""], None, []], "captions_json": ["{}", "{}", "{}"],
    }  # fmt: skip
    source = open_data(write_parquet(tmp_path / "pets.parquet", columns)).splits["all"]
    assert source.captions == [("a cat", "un gato", "cat"), (), ("a dog",)]


def test_a_row_for_each_caption_is_one_picture(tmp_path):
    fill(tmp_path, {f"{name}.png": number for number, name in enumerate("abc")})
    (tmp_path / "captions.csv").write_text("image,caption\na.png,one\na.png,two\nb.png,three\na.png,one\nc.png,\n")
    source = open_data(tmp_path / "captions.csv").splits["all"]
    assert source.names == ["a.png", "b.png", "c.png"]
    assert source.captions == [("one", "two"), ("three",), ()]
    (tmp_path / "labels.csv").write_text("path,label,caption\na.png,0,one\na.png,1,two\nb.png,1,\na.png,0,three\n")
    source = open_data(tmp_path / "labels.csv").splits["all"]
    assert source.names == ["a.png", "a.png", "b.png"]
    assert source.captions == [("one", "three"), ("two",), ()]
    assert source.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("in_memory", [0, 2**30])
def test_row_groups_in_memory_or_not(tmp_path, in_memory):
    path = write_parquet(tmp_path / "a.parquet", {"image": IMAGES}, row_group_size=2)
    source = open_data(path, in_memory=in_memory).splits["all"]
    assert source.ends.tolist() == [2, 4, 6]
    assert (source.loaded is None) == (in_memory == 0)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(source.read, list(range(6)) * 20)) == IMAGES * 20
    assert pickle.loads(pickle.dumps(source)).read(5) == IMAGES[5]


def test_as_hugging_face_writes(tmp_path):
    fill(tmp_path, {"pictures/9.png": 5})
    image = [
        {"bytes": IMAGES[0], "path": None},
        {"bytes": None, "path": "pictures/9.png"},
        {"bytes": None, "path": None},
    ]
    about = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    table = pa.table({"image": image, "label": [1, 0, -1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    for part in range(2):
        pa.parquet.write_table(table, tmp_path / f"train-0000{part}-of-00002.parquet")
    dataset = open_data(tmp_path)
    source = dataset.splits["train"]
    assert dataset.classes == ["cat", "dog"]
    assert source.labels.tolist() == [1, 0, -1] * 2
    assert source.names[3] == "train-00001-of-00002.parquet#0"
    assert [source.read(3), source.read(4)] == [IMAGES[0], IMAGES[5]]
    with pytest.raises(UndecodableImage, match="the row has no image"):
        source.read(2)


def test_a_folder_of_tables(tmp_path):
    for split, labels in (("train", [0, 1, 2]), ("validation", [0, 2]), ("test", [1])):
        write_parquet(tmp_path / f"{split}.parquet", {"image": IMAGES[: len(labels)], "label": labels})
    write_parquet(tmp_path / "classes.parquet", {"label": [0], "icon": [b""]})
    dataset = open_data(tmp_path)
    assert list(dataset.splits) == ["train", "val", "test"]
    assert dataset.splits["val"].labels.tolist() == [0, 2]


def test_csv_with_paths_relative_to_the_table(tmp_path):
    fill(tmp_path, {"images/1.png": 1, "images/2.png": 2, "in,comma\n.png": 3})
    text = 'path,label,caption\nimages/1.png,dog,A dog\nimages/2.png,cat,\n"in,comma\n.png",,"one, two"\n'
    fill(tmp_path, {"table.csv": b"\xef\xbb\xbf" + text.encode()})
    source = open_data(tmp_path / "table.csv").splits["all"]
    assert source.classes == ["cat", "dog"]
    assert source.labels.tolist() == [1, 0, -1]
    assert source.captions == [("A dog",), (), ("one, two",)]
    assert source.names == ["images/1.png", "images/2.png", "in,comma\n.png"]
    assert source.read(2) == picture(3)


def test_csv_words_that_look_like_something_else(tmp_path):
    fill(tmp_path, {"1.png": 1, "2.png": 2, "3.png": 3, "t.csv": "image,label\n1.png,true\n2.png,nan\n3.png,1e3\n"})
    assert open_data(tmp_path / "t.csv").classes == ["1e3", "nan", "true"]


def test_csv_whole_numbers_sort_as_numbers(tmp_path):
    fill(tmp_path, {"1.png": 1, "2.png": 2, "t.csv": "path,label\n1.png,10\n2.png,9\n"})
    assert open_data(tmp_path / "t.csv").classes == ["9", "10"]


def test_jsonl(tmp_path):
    fill(tmp_path, {"1.png": 1, "2.png": 2})
    rows = [{"path": "1.png", "label_name": "cat"}, {"path": "2.png", "caption": "Nothing."}]
    source = open_data(write_jsonl(tmp_path / "t.jsonl", rows)).splits["all"]
    assert source.classes == ["cat"]
    assert source.labels.tolist() == [0, -1]
    assert source.captions == [(), ("Nothing.",)]


def test_parquet_with_paths(tmp_path):
    fill(tmp_path, {"1.png": 1})
    for name in ("path", "image"):
        source = open_data(write_parquet(tmp_path / f"{name}.parquet", {name: ["1.png"], "label": [3]})).splits["all"]
        assert source.classes == ["3"]
        assert source.read(0) == picture(1)


def test_tables_win_over_the_images_they_point_to(tmp_path):
    fill(tmp_path, {"images/1.png": 1, "images/2.png": 2, "train.csv": "path,label\nimages/1.png,a\nimages/2.png,b\n"})
    assert open_data(tmp_path).classes == ["a", "b"]


def test_missing_files_are_skipped_with_a_reason(tmp_path):
    fill(tmp_path, {"1.png": 1, "t.csv": "path,label\n1.png,a\ngone.png,b\n,c\n"})
    dataset = open_data(tmp_path / "t.csv")
    assert dataset.splits["all"].names == ["1.png"]
    assert dataset.classes == ["a"]
    assert [tuple(skipped) for skipped in dataset.skipped] == [
        (str(tmp_path / "gone.png"), "there is no such file; t.csv names it"),
        (str(tmp_path / "t.csv#2"), "the row names no file"),
    ]
    with pytest.raises(MiradaError, match=r"gone\.png' cannot be used: there is no such file"):
        open_data(tmp_path / "t.csv", strict=True)


@pytest.mark.parametrize(("name", "content", "message"), [
    ("t.csv", "file,label\n1.png,a\n", r"no column image or path; its columns are 'file', 'label'"),
    ("t.csv", "path,caption\n1.png,one, two\n", r"Row 1 .* more cells than the header: quote"),
    ("t.csv", "path\ngone.png\n", r"None of the 1 files .* is there; the first would be .*gone.png': write paths rel"),
    ("t.csv", "path\n", "has no rows"),
    ("t.csv", "", "no column image or path"),
    ("t.csv", b"path\n\xff\xfe.png\n", "Cannot read the table .* must be UTF-8"),
    ("t.csv", "path,label\n1.png,1\n1.png,cat\n", r"mix numbers \(1\) and words \('cat'\)"),
    ("t.csv", "path,label,label_name\n1.png,1,cat\n1.png,1,dog\n", "The label 1 is called both 'cat' and 'dog'"),
    ("t.jsonl", '{"path": "1.png"}\n{"path"', "Line 2 of .* is not a JSON object"),
    ("t.jsonl", '[1, 2]', "Line 1 of .* is not a JSON object"),
    ("t.jsonl", '{"path": "1.png", "label": ["a"]}', r"A label of .* is \['a'\]: labels are whole numbers or words"),
    ("t.parquet", "PAR1 not really", "Cannot read .* as parquet: .*; is the file whole"),
    ("t.parquet", "", "Cannot read .* as parquet"),
])  # fmt: skip
def test_a_bad_table_says_what_is_wrong(tmp_path, name, content, message):
    fill(tmp_path, {"1.png": 1, name: content})
    with pytest.raises(MiradaError, match=message) as error:
        open_data(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_bad_parquet_says_what_is_wrong(tmp_path):
    path = write_parquet(tmp_path / "t.parquet", {"picture": IMAGES[:1], "label": [1]})
    with pytest.raises(MiradaError, match="no column image or path; its columns are 'picture', 'label'"):
        open_data(path)
    path = write_parquet(tmp_path / "u.parquet", {"image": [[1, 2]]})
    with pytest.raises(MiradaError, match=r"holds list.*write the bytes of encoded image files"):
        open_data(path)
    data = write_parquet(tmp_path / "v.parquet", {"image": IMAGES}).read_bytes()
    (tmp_path / "v.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(MiradaError, match="is the file whole"):
        open_data(tmp_path / "v.parquet")


def test_several_tables_without_split_names(tmp_path):
    for name in ("a", "b"):
        write_parquet(tmp_path / f"{name}.parquet", {"image": IMAGES})
    with pytest.raises(MiradaError, match=r"several tables, 'a.parquet', 'b.parquet': give the path of one"):
        open_data(tmp_path)


def test_one_split_in_two_forms(tmp_path):
    write_parquet(tmp_path / "train.parquet", {"image": IMAGES})
    fill(tmp_path, {"1.png": 1, "train.csv": "path\n1.png\n"})
    with pytest.raises(MiradaError, match="all are the train split: keep one"):
        open_data(tmp_path)
