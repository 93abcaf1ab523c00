from __future__ import annotations

import pytest
import torch

from fastgan_aug.gan.minibatch import cell_deviations

CELLS = torch.eye(3)[[0, 1, 0, 2, 1, 0]]  # three, two and one of a cell


def features(seed: int = 0) -> torch.Tensor:
    return torch.randn(6, 5, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_it_is_the_mean_standard_deviation_within_the_cell() -> None:
    given = features()
    found = cell_deviations(given, CELLS)
    assert found.shape == (6, 1, 4, 4)
    for cell in torch.eye(3)[:2]:
        rows = (cell == CELLS).all(1)
        expected = given[rows].std(0).mean().item()
        assert found[rows].flatten().tolist() == pytest.approx([expected] * 16 * int(rows.sum()),
                                                               abs=2e-4)  # fmt: skip
    assert found[3].abs().max() == 0, "of one slice nothing is known"


def test_of_identical_slices_it_is_0_and_its_slope_is_finite() -> None:
    given = features()[[0, 1, 0, 3, 1, 0]].requires_grad_()
    found = cell_deviations(given, CELLS)
    assert found.abs().max() < 1e-6
    found.sum().backward()
    assert given.grad is not None
    assert torch.isfinite(given.grad).all()


def test_what_cells_differ_by_is_not_in_it() -> None:
    """Nor is the order of a cell's slices, nor what the other cells' slices are."""
    given, moved, others = features(), features(), features()
    moved[CELLS[:, 1] == 1] += 7
    torch.testing.assert_close(
        cell_deviations(moved, CELLS), cell_deviations(given, CELLS), atol=1e-5, rtol=1e-5
    )
    swapped = given[[5, 4, 0, 3, 1, 2]]
    torch.testing.assert_close(cell_deviations(swapped, CELLS), cell_deviations(given, CELLS))
    others[1::3] *= 3
    mine = CELLS[:, 0] == 1
    torch.testing.assert_close(
        cell_deviations(others, CELLS)[mine], cell_deviations(given, CELLS)[mine]
    )
    assert not torch.equal(cell_deviations(others, CELLS), cell_deviations(given, CELLS))


def test_it_pushes_slices_of_a_cell_apart() -> None:
    given = features().requires_grad_()
    cell_deviations(given, CELLS).sum().backward()
    assert given.grad is not None
    mine = CELLS[:, 0] == 1
    apart = given[mine] - given[mine].mean(0)
    assert (given.grad[mine] * apart).sum() > 0
