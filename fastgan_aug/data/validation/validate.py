"""Validation: what must not be fitted, what weakens a claim, and what is worth knowing."""

from __future__ import annotations

from dataclasses import replace

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.validation.cells import check_cells
from fastgan_aug.data.validation.copies import check_copies
from fastgan_aug.data.validation.facts import check_facts
from fastgan_aug.data.validation.finding import ERROR, Finding, by_severity
from fastgan_aug.data.validation.images import check_images
from fastgan_aug.data.validation.sides import check_sides
from fastgan_aug.errors import InvalidDataset

_ERRORS_NAMED = 5


def validate(dataset: Dataset, *others: Dataset) -> list[Finding]:
    """Looks a data set over; several are meant for the sides of a split (training, test).

    Each is looked over by itself: labelled slices per cell and patient, images, facts, copies.
    Together: no patient and no copy of a slice may stand in two of them.

    Args:
        dataset: What to look over.
        others: The other sides.

    Returns:
        Findings, the worst first. With several data sets ``where`` says which is meant.
    """
    datasets = [dataset, *others]
    findings = []
    for number, each in enumerate(datasets, 1):
        own = [*check_cells(each), *check_images(each), *check_facts(each)]
        if others:
            own = [replace(f, where=f"data set {number}: {f.where}") for f in own]
        findings += own
    findings += [*check_copies(datasets), *check_sides(datasets)]
    return by_severity(findings)


def check_valid(dataset: Dataset, *others: Dataset) -> list[Finding]:
    """Validates, and refuses what must not be fitted.

    Returns:
        The findings that are no errors.

    Raises:
        InvalidDataset: there are errors.
    """
    findings = validate(dataset, *others)
    refuse_errors(findings)
    return findings


def refuse_errors(findings: list[Finding]) -> None:
    """Raises if any finding is an error.

    Raises:
        InvalidDataset: it lists them.
    """
    errors = [finding for finding in findings if finding.severity == ERROR]
    if not errors:
        return
    listed = "; ".join(f"{f.where}: {f.what.rstrip('.')}" for f in errors[:_ERRORS_NAMED])
    more = f"; and {len(errors) - _ERRORS_NAMED} more" if len(errors) > _ERRORS_NAMED else ""
    advice = dict.fromkeys(f.advice.rstrip(".") for f in errors)
    raise InvalidDataset(
        f"the data set has {len(errors)} error{'s' if len(errors) > 1 else ''}: {listed}{more}",
        allowed="data without errors; warnings and notes do not hinder a fit",
        do="; ".join(advice) + "; `fastgan-aug data validate` lists everything",
    )
