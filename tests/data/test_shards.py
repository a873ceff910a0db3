import pickle

import pytest
from pictures import picture, write_tar

from mirada.data.shards import expand_braces
from mirada.data.sources import open_data
from mirada.data.splits import Subset
from mirada.errors import MiradaError


def test_braces():
    assert expand_braces("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expand_braces("{0..1}/{0..1}") == ["0/0", "0/1", "1/0", "1/1"]
    assert expand_braces("a.tar") == ["a.tar"]


def test_shards_are_joined(tmp_path):
    for shard in range(3):
        members = {}
        for sample in range(2):
            number = 2 * shard + sample
            members |= {f"{number}.jpg": picture(number), f"{number}.cls": str(number % 2).encode()}
        write_tar(tmp_path / f"a-{shard:03d}.tar", members)
    for data in (tmp_path / "a-{000..002}.tar", tmp_path):
        source = open_data(data).splits["all"]
        assert source.names[3] == "a-001.tar/3.jpg"
        assert source.labels.tolist() == [0, 1] * 3
        assert [source.read(index) for index in range(6)] == [picture(number) for number in range(6)]
        assert pickle.loads(pickle.dumps(source)).read(4) == picture(4)


def test_shards_of_several_folders_keep_their_paths(tmp_path):
    for folder in range(2):
        (tmp_path / f"part-{folder}").mkdir()
        write_tar(tmp_path / f"part-{folder}" / "x.tar", {"1.jpg": picture(folder)})
    source = open_data(tmp_path / "part-{0..1}" / "x.tar").splits["all"]
    paths = [str(tmp_path / f"part-{folder}" / "x.tar" / "1.jpg") for folder in range(2)]
    assert [source.path(index) for index in range(2)] == paths
    assert Subset(source, [1]).path(0) == paths[1]


def test_shards_of_no_split_beside_those_of_one_are_left_unless_everything_is_asked_for(tmp_path):
    write_tar(tmp_path / "train.tar", {"1.jpg": picture(0), "1.cls": b"0"})
    write_tar(tmp_path / "extra.tar", {"1.jpg": picture(1), "1.cls": b"another class"})
    write_tar(tmp_path / "tools.tar", {"readme.txt": b"no pictures"})
    data = open_data(tmp_path)
    assert data.splits.keys() == {"train"}
    left = [str(tmp_path / name) for name in ("extra.tar", "tools.tar")]
    assert sorted(skipped.path for skipped in data.skipped) == left
    (tmp_path / "tools.tar").unlink()
    write_tar(tmp_path / "extra.tar", {"1.jpg": picture(1), "1.cls": b"7"})
    data = open_data(tmp_path, new_classes=True, everything=True)
    assert {name: len(source) for name, source in data.splits.items()} == {"train": 1, "all": 1}
    assert data.skipped == []


def test_members_are_grouped_by_name_up_to_the_first_dot(tmp_path):
    path = write_tar(tmp_path / "train.tar", {
        "a/1.mask.png": picture(9), "a/1.png": picture(1), "a/1.txt": b"A square.\n", "b/1.cls": b"dog",
        "b/1.PNG": picture(2), "c.json": b'{"label": "cat", "caption": "Two"}', "c.seg.webp": picture(3),
        "._c.png": b"rubbish", "readme.md": b"",
    })  # fmt: skip
    dataset = open_data(path)
    source = dataset.splits["train"]
    assert source.names == ["train.tar/a/1.png", "train.tar/b/1.PNG", "train.tar/c.seg.webp"]
    assert dataset.classes == ["cat", "dog"]
    assert source.labels.tolist() == [-1, 1, 0]
    assert source.captions == [("A square.",), (), ("Two",)]
    assert [source.read(index) for index in range(3)] == [picture(1), picture(2), picture(3)]


@pytest.mark.parametrize("left", [700, 1024, 1200, 1536, 2048, 2100, 0])
def test_a_tar_that_is_cut_short(tmp_path, left):
    """Also where a member ends exactly, which tarfile by itself takes for the end."""
    path = write_tar(tmp_path / "a.tar", {"1.png": picture(1), "2.png": picture(2), "3.png": picture(3)})
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(MiradaError, match=r"Cannot read the shard .*; is it a whole tar"):
        open_data(path)


def test_bad_shards(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"not a tar at all" * 100)
    with pytest.raises(MiradaError, match="is it a whole tar file"):
        open_data(tmp_path / "a.tar")
    write_tar(tmp_path / "b.tar", {"1.json": b"{", "1.png": picture(1)})
    with pytest.raises(MiradaError, match=r"Cannot read 1\.json in the shard"):
        open_data(tmp_path / "b.tar")
    write_tar(tmp_path / "c.tar", {"1.txt": b"x"})
    with pytest.raises(MiradaError, match="There are no images in the all split"):
        open_data(tmp_path / "c.tar")
    write_tar(tmp_path / "d-0.tar", {"1.png": picture(1)})
    with pytest.raises(MiradaError, match=r"There is no .*d-1\.tar"):
        open_data(tmp_path / "d-{0..1}.tar")
    with pytest.raises(MiradaError, match=r"There is no .*d-\{1\.\.0\}\.tar"):
        open_data(tmp_path / "d-{1..0}.tar")
