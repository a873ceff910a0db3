"""Maps as text, read as page.js reads them."""

import base64
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirada.inspect.report.pack import END, fitting_block, pack, text_of


def unpack(packed: dict[str, Any], index: int) -> np.ndarray:
    """`slice` of page.js, value by value."""
    values, ends = base64.b64decode(packed["values"]), np.frombuffer(base64.b64decode(packed["ends"]), "<u2")
    size = packed["height"] * packed["width"]
    low, high = ((int(ends[2 * index + end]) / END) ** 2 for end in (0, 1))
    found = []
    for i in range(size):
        at = index * size + i
        if packed["bits"] == 8:
            level = values[at] / 255
        else:
            level = (values[at >> 1] >> 4 if at & 1 else values[at >> 1] & 15) / 15
        found.append(low + level * (high - low))
    return np.array(found).reshape(packed["height"], packed["width"])


@given(
    seed=st.integers(0, 1000), count=st.integers(1, 4), height=st.integers(1, 5), width=st.integers(1, 5),
    bits=st.sampled_from([4, 8]), exponent=st.integers(0, 12),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_there_and_back(seed: int, count: int, height: int, width: int, bits: int, exponent: int) -> None:
    """To half a step between a map's ends, and the ends to half a step of theirs."""
    maps = torch.rand(count, height, width, generator=torch.Generator().manual_seed(seed)) ** exponent
    packed = pack(maps, bits)
    assert json.loads(json.dumps(packed)) == packed
    assert (packed["count"], packed["height"], packed["width"]) == (count, height, width)
    for index, one in enumerate(maps.double()):
        spread = float(one.max() - one.min())
        np.testing.assert_allclose(unpack(packed, index), one, rtol=0, atol=spread * 0.51 / (2**bits - 1) + 3 / END)


def test_small_shares_keep_their_digits() -> None:
    packed = pack(torch.tensor([[[1 / 1369, 1.01 / 1369]]]))
    np.testing.assert_allclose(unpack(packed, 0) * 1369, [[1, 1.01]], atol=0.002)


def test_even_maps_are_dark_and_stay_even() -> None:
    even = torch.full((1, 3, 3), 1 / 9)
    assert set(base64.b64decode(pack(even + 1e-6 * torch.rand(1, 3, 3))["values"])) == {0}
    np.testing.assert_allclose(unpack(pack(even, 4), 0), even[0], rtol=1e-4)


def test_leading_dimensions_are_rows_of_maps() -> None:
    maps = torch.rand(2, 3, 4, 5)
    packed = pack(maps, 8)
    np.testing.assert_allclose(unpack(packed, 5), maps[1, 2], atol=0.005)
    halved = pack(maps, 8, block=2)
    assert (halved["height"], halved["width"], halved["block"]) == (2, 3, 2)
    np.testing.assert_allclose(unpack(halved, 0)[0, 0], maps[0, 0, :2, :2].mean(), atol=0.005)


@pytest.mark.parametrize(
    ("count", "most", "block"), [(10, 2000, 1), (10, 1959, 2), (10, 490, 2), (10, 10, 14), (9, 1, 14)]
)
def test_blocks_grow_until_they_fit(count: int, most: int, block: int) -> None:
    assert fitting_block(count, (14, 14), most) == block


def test_bytes_are_little_endian() -> None:
    assert base64.b64decode(text_of(np.array([1, 256], np.uint16))) == b"\x01\x00\x00\x01"
    assert base64.b64decode(text_of(np.array([1], ">u2"))) == b"\x01\x00"
