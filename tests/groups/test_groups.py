"""Feature masks and the groups that they define."""

from __future__ import annotations

import sys

import pytest
import torch

from captum_pse import default_feature_mask, grid_mask, superpixel_mask
from captum_pse.groups.groups import Groups

GRIDS = {
    "cells that divide": ((4, 4), {"cell": 2}, [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2),
    "a rest": ((2, 5), {"cell": 2}, [[0, 0, 1, 1, 2]] * 2),
    "cells of two sides": ((2, 4), {"cell": (1, 4)}, [[0] * 4, [1] * 4]),
    "a cell larger than all": ((2, 2), {"cell": 9}, [[0, 0], [0, 0]]),
    "a count": ((2, 5), {"count": (1, 2)}, [[0, 0, 0, 1, 1]] * 2),
    "one axis": ((5,), {"count": 5}, [0, 1, 2, 3, 4]),
}


@pytest.mark.parametrize(("size", "options", "expected"), GRIDS.values(), ids=GRIDS)
def test_grid_mask(size, options, expected):
    mask = grid_mask(size, **options)
    assert mask.dtype == torch.int64
    assert mask[0, 0].tolist() == expected


def test_grid_mask_of_a_volume():
    mask = grid_mask((2, 2, 2), cell=1)
    assert mask.flatten().tolist() == list(range(8))


@pytest.mark.parametrize(
    ("shape", "n_groups"),
    [
        ((1, 3, 224, 224), 196),
        ((1, 3, 32, 32), 256),
        ((1, 3, 50, 50), 169),
        ((1, 3, 5, 7), 35),
        ((2, 1, 28, 14), 98),
        ((2, 9), 9),
        ((2, 4, 3), 12),
    ],
)
def test_default_feature_mask(shape, n_groups):
    (mask,) = default_feature_mask((torch.zeros(shape),))
    assert mask.unique().tolist() == list(range(n_groups))


def test_two_inputs_share_no_default_group():
    first, second = default_feature_mask((torch.zeros(1, 3, 8, 8), torch.zeros(1, 5)))
    assert second.tolist() == [list(range(64, 69))]
    assert int(first.max()) == 63


def test_spread_is_the_inverse_of_grouping():
    x = torch.zeros(2, 3, 4, 4)
    mask = torch.randint(-1, 6, (2, 3, 4, 4)) * 5
    groups = Groups.of(mask, (x,))
    values = torch.rand(2, len(groups))
    (spread,) = groups.spread(values, (x,))
    for i, group in enumerate(groups.ids.tolist()):
        for n in range(2):
            assert (spread[n][mask[n] == group] == values[n, i]).all()
    assert (spread[mask < 0] == 0).all()
    assert spread.is_contiguous()
    counts = [[int((mask[n] == g).sum()) for g in groups.ids] for n in range(2)]
    assert groups.sizes((x,)).tolist() == counts


def test_superpixels_follow_the_image():
    image = torch.zeros(2, 3, 32, 32)
    image[0, :, :, 16:] = 1.0
    image[1, :, 16:] = 1.0
    mask = superpixel_mask(image, n_segments=8)
    assert mask.shape == (2, 1, 32, 32)
    for n, (first, second) in enumerate(
        [(mask[0, 0, :, :16], mask[0, 0, :, 16:]), (mask[1, 0, :16], mask[1, 0, 16:])]
    ):
        assert not set(first.unique().tolist()) & set(second.unique().tolist()), n
        assert int(mask[n].min()) == 0


def test_superpixels_without_scikit_image(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(ImportError, match=r"captum-pse\[superpixels\]"):
        superpixel_mask(torch.zeros(1, 3, 8, 8))


def test_superpixels_of_other_inputs():
    with pytest.raises(ValueError, match="images: got shape"):
        superpixel_mask(torch.zeros(3, 8, 8))
