"""Window arithmetic, and reading windows from maps."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from captum_pse._engine.rows import RowIndex
from captum_pse._engine.windows import Boxes, Kernel, Windows


@given(data=st.data())
def test_boxes_are_where_outputs_change(data):
    k, s, d = (data.draw(st.integers(1, 4)) for _ in range(3))
    p = data.draw(st.integers(0, k * d))
    n = data.draw(st.integers(d * (k - 1) + 1, 24))
    lo = data.draw(st.integers(0, n - 1))
    hi = data.draw(st.integers(lo, n - 1))
    x = torch.zeros(1, 1, n)
    x[..., lo : hi + 1] = 1
    out = F.conv1d(x, torch.ones(1, 1, k), stride=s, padding=p, dilation=d)[0, 0]
    changed = out.nonzero().flatten().tolist()
    kernel = Kernel((k,), (s,), (p,), (d,))
    box = Boxes(np.array([[lo]]), np.array([[hi]])).through(kernel, [len(out)])
    first, last = int(box.lo[0, 0]), int(box.hi[0, 0])
    assert 0 <= first <= last < len(out)
    if d == 1 and changed:
        assert (first, last) == (changed[0], changed[-1])
    assert all(first <= o <= last for o in changed)
    # What is read holds every input that these outputs look at.
    windows = box.windows([len(out)], whole_from=2.0)
    region = windows.read_by(kernel)
    padded = F.pad(x, (k * d + p, k * d + p + s * len(out)))
    start = int(region.origin[0, 0]) + k * d + p
    patch = padded[..., start : start + region.size[0]]
    again = F.conv1d(patch, torch.ones(1, 1, k), stride=s, dilation=d)[0, 0]
    assert torch.equal(again, out[first : last + 1])


def test_windows_have_one_size_and_lie_inside():
    boxes = Boxes(
        np.array([[0, 0], [6, 3], [9, 9]]), np.array([[1, 0], [9, 5], [9, 9]])
    )
    windows = boxes.windows([10, 10], whole_from=0.5)
    assert windows.size == (4, 3)
    assert windows.origin.tolist() == [[0, 0], [6, 3], [6, 7]]
    assert boxes.windows([10, 10], whole_from=0.1) == Windows.whole(3, [10, 10])
    index = RowIndex(Windows(np.array([[-1, 2]]), (2, 2)), [3, 3])
    rows = index.of(slice(0, 1), torch.device("cpu"))
    assert rows.clamp(max=9).tolist() == [[9, 9, 2, 9]]
