"""Crops of several sizes."""

import torch
from learners import samples

from mirada.objectives.crops import multi_crop


def test_no_crop_is_another_one_even_where_all_are_made_alike() -> None:
    views = multi_crop("zoom", "zoom", "zoom", count=2, share=1.0, stride=4)(samples())
    crops = list(views.values())
    assert [tuple(crop.shape) for crop in crops] == [(8, 3, 16, 16)] * 4
    assert not any(torch.equal(one, other) for one in crops for other in crops if one is not other)
    assert len({crop.data_ptr() for crop in crops}) == 4
