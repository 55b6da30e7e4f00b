"""Agreement compared with scipy and with results computed by hand."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import spearmanr

from captum_pse import agreement, grid_mask


@pytest.mark.parametrize("per_example", [False, True])
def test_equals_a_literal_loop(per_example):
    values = {
        "a": torch.randn(3, 3, 6, 6),
        "b": torch.randn(3, 1, 6, 6),
        "c": torch.randn(3, 3, 6, 6).round().double(),
    }
    values["c"][:, :, :3] += 3 * values["a"][:, :, :3]
    mask = grid_mask((6, 6), cell=2)
    if per_example:
        mask = torch.randint(-1, 7, (3, 3, 6, 6))
    result = agreement(values, feature_mask=mask, top=3)
    assert result.names == ("a", "b", "c")
    for n in range(3):
        ids = mask.expand(3, 3, 6, 6)[n]
        groups = [g for g in ids.unique().tolist() if g >= 0]
        means = {
            name: [float(v.expand(3, 3, 6, 6)[n][ids == g].mean()) for g in groups]
            for name, v in values.items()
        }
        for i, a in enumerate(means.values()):
            for j, b in enumerate(means.values()):
                rho = spearmanr(a, b).statistic
                assert float(result.rank_correlation[n, i, j]) == pytest.approx(
                    rho, abs=1e-6
                )
                first, second = (
                    set(sorted(range(len(groups)), key=lambda g: (-v[g], g))[:3])
                    for v in (a, b)
                )
                overlap = len(first & second) / 3
                assert float(result.overlap[n, i, j]) == pytest.approx(overlap)


def test_constant_attributions_have_no_rank_correlation():
    values = {"flat": torch.zeros(2, 4), "a": torch.rand(2, 4), "b": torch.rand(2, 4)}
    result = agreement(values, top=2)
    assert result.rank_correlation[:, 0].isnan().all()
    assert result.rank_correlation[:, 1:, 1:].isfinite().all()
    # Ties are broken by the group's id.
    overlap = (values["a"].argsort(dim=1)[:, -2:] < 2).sum(1) / 2
    torch.testing.assert_close(result.overlap[:, 0, 1], overlap)


def test_top_larger_than_the_number_of_groups():
    values = {"a": torch.rand(1, 4), "b": torch.rand(1, 4)}
    assert agreement(values, top=10).overlap.eq(1).all()


def test_examples_without_groups_are_left_out_of_means():
    values = {"a": torch.rand(2, 4), "b": torch.rand(2, 4)}
    mask = torch.tensor([[0, 1, 2, 3], [-1, -1, -1, -1]])
    result = agreement(values, feature_mask=mask, top=2)
    assert result.overlap[1].isnan().all()
    assert result.rank_correlation[1].isnan().all()
    (row,) = result.table()
    assert row["top_2_overlap"] == pytest.approx(float(result.overlap[0, 0, 1]))


def test_several_inputs():
    values = {"a": (torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]))}
    values["b"] = (torch.tensor([[6.0, 5.0]]), torch.tensor([[4.0]]))
    result = agreement(values, top=1)
    torch.testing.assert_close(result.rank_correlation[0, 0, 1], torch.tensor(-1.0))
    assert result.overlap[0, 0, 1] == 0


def test_table():
    values = {"a": torch.rand(5, 9), "b": torch.rand(5, 9), "c": torch.zeros(5, 9)}
    result = agreement(values, top=4)
    rows = result.table()
    pairs = [(row["method"], row["other"]) for row in rows]
    assert pairs == [("a", "b"), ("a", "c"), ("b", "c")]
    assert rows[0]["rank_correlation"] == pytest.approx(
        float(result.rank_correlation[:, 0, 1].mean())
    )
    assert rows[0]["top_4_overlap"] == pytest.approx(
        float(result.overlap[:, 0, 1].mean())
    )
    assert len(result) == 5
    assert repr(result) == "Agreement(5 example(s), a, b, c)"


ONE = torch.rand(2, 3, 4, 4)
BAD = {
    "one method": ({"a": ONE}, {}, r"attributions: got 1 method\(s\), want at"),
    "top": ({"a": ONE, "b": ONE}, {"top": 0}, "top: got 0, want a positive int"),
    "shapes": (
        {"a": ONE, "b": ONE[..., :3]},
        {},
        r"attributions: got shapes .*want shapes that broadcast",
    ),
    "parts": ({"a": (ONE, ONE), "b": ONE}, {}, r"got 1 tensor\(s\) of b, want 2 as of"),
    "NaN": ({"a": ONE, "b": ONE * torch.nan}, {}, "got NaN or infinite values of b"),
    "one group": (
        {"a": ONE, "b": ONE},
        {"feature_mask": torch.zeros(1, 1, 4, 4, dtype=torch.int64)},
        "feature_mask: got one group",
    ),
    "mask": (
        {"a": ONE, "b": ONE},
        {"feature_mask": torch.arange(3)},
        "feature_mask: got shape",
    ),
}


@pytest.mark.parametrize(("values", "options", "message"), BAD.values(), ids=BAD)
def test_bad_input(values, options, message):
    with pytest.raises(ValueError, match=message):
        agreement(values, **options)
