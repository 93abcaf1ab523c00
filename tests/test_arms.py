"""Laws of the arms: labels, counts, weights, augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from downstream.arms.arm import AUGMENTATION, FOCAL, MIXUP, PRETRAINING, WEIGHTS, Arm
from downstream.arms.augmentation import augmented, classical_augmentation
from downstream.arms.catalogue import ARMS, FURTHER_ARMS, KNOWN, arms_named
from downstream.arms.filling import filled_to, request_counts
from downstream.arms.reweighting import class_weights, oversampling, real
from downstream.arms.sources import added, alone, everywhere, first, halved, in_equal_shares
from downstream.classifiers.kind import asked_by
from downstream.material import Fit, Material
from downstream.service import trained_patients
from fastgan_aug.balance import plan
from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.data.augment import AugmentConfig, SideRule
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.pseudonyms import SeenPatients
from fastgan_aug.errors import ConfigError, DataError, LeakageError, UnknownCell

SIDES = SideRule(none="disc", one="bar", both="cross")
RULES = AugmentConfig(shift=2, flip={"shape": ["disc", "ring"]}, sides={"shape": SIDES})


@dataclass
class Batch:
    images: NDArray[np.float32]
    cells: list[str]


def replayed(train: Dataset, gain: float = 1.0) -> object:
    """A source that fills classes with real training slices, dimmed by ``gain``."""
    names = np.asarray([str(c) for c in train.cells])

    def source(counts: Mapping[str, int], target: Mapping[str, int], seed: int) -> Batch:
        random, rows = np.random.default_rng(seed), list[int]()
        for name, n in counts.items():
            rows += random.choice(np.flatnonzero(names == name), target[name] - n).tolist()
        return Batch(train.images[rows] * np.float32(gain), names[rows].tolist())

    return source


@pytest.fixture
def material(toy: Dataset) -> Material:
    return Material.of(toy, "shape", RULES, replayed(toy))  # type: ignore[arg-type]


def test_real_arms_hold_the_labelled_slices_and_nothing_synthetic(
    toy: Dataset, material: Material
) -> None:
    for prepare in (real, class_weights, oversampling):
        fit = prepare(material, 0)
        assert fit.n_synthetic == 0
        assert np.array_equal(fit.images, toy.images[toy.labelled])
    assert dict(zip(material.classes, material.counts, strict=True)) == {
        str(c): n for c, n in toy.class_counts.items()
    }


def test_class_weights_give_every_class_the_same_share(material: Material) -> None:
    weights = class_weights(material, 0).class_weights
    assert weights is not None
    assert weights * material.counts == pytest.approx(np.full(4, len(material.labels) / 4))


def test_oversampling_draws_every_class_equally_often(material: Material) -> None:
    chances = oversampling(material, 0).sampling
    assert chances is not None
    shares = np.bincount(material.labels, chances / chances.sum())
    assert shares == pytest.approx(np.full(4, 0.25))


def test_synthetic_fills_every_class_to_the_majority(material: Material) -> None:
    fit = added("synthetic")(material, 3)
    counts = np.bincount(fit.labels, minlength=4)
    assert (counts == material.counts.max()).all()
    assert fit.n_synthetic == counts.sum() - len(material.labels)
    assert np.array_equal(fit.images, added("synthetic")(material, 3).images)
    assert not np.array_equal(fit.images, added("synthetic")(material, 4).images)


def test_slices_that_did_not_come_are_counted(material: Material) -> None:
    def none(counts: Mapping[str, int], target: Mapping[str, int], seed: int) -> Batch:
        return Batch(np.zeros((0, 32, 32), np.float32), [])

    def one_each(counts: Mapping[str, int], target: Mapping[str, int], seed: int) -> Batch:
        fewer = {name: min(n, counts[name] + 1) for name, n in target.items()}
        return material.synthetic(counts, fewer, seed)  # type: ignore[return-value]

    wanted = 4 * material.counts.max() - material.counts.sum()
    assert added("synthetic")(material, 0).n_missing == 0
    bare = added("synthetic")(replace(material, synthetic=none), 0)
    assert (bare.n_synthetic, bare.n_missing) == (0, wanted)
    few = augmented(everywhere("synthetic"))(replace(material, synthetic=one_each), 0)
    assert (few.n_synthetic, few.n_missing) == (4, 4 * material.counts.max() - 4)
    before = first(added("synthetic"), real)(replace(material, synthetic=one_each), 0)
    assert before.n_missing == wanted - 3  # the largest class asks for none
    with pytest.raises(DataError, match="none of the"):
        alone(replace(material, synthetic=none), 0)


def test_the_request_names_values_or_cells_where_values_are_shared(material: Material) -> None:
    assert request_counts(material) == {"disc": 60, "ring": 40, "bar": 24, "cross": 12}
    space = ConditionSpace.of({"left": ["yes", "no"], "right": ["yes", "no"]})
    shared = replace(
        material,
        space=space,
        factor="right",
        balance="right",
        classes=("yes", "no"),
        labels=np.asarray([0, 0, 1, 1, 1]),
        cells=np.asarray([0, 0, 1, 1, 3]),
    )
    assert request_counts(shared) == {"yes/yes": 2, "yes/no": 2, "no/no": 1}


def two_factors(material: Material, second: list[str]) -> Material:
    """Six slices of the first value of ``right`` in two cells, three of the second in one."""
    space = ConditionSpace.of({"right": ["2", "0"], "left": second})
    cells = np.repeat([0, 1, 2], [4, 2, 3])
    names = [str(cell) for cell in space.cells]
    training = dict(zip(names, (4, 2, 3), strict=False))

    def source(counts: Mapping[str, int], target: Mapping[str, int], seed: int) -> Batch:
        agreed = plan(counts, dict(target), cells=names, training_counts=training)
        made = [name for name, n in agreed.generate.items() for _ in range(n)]
        return Batch(np.zeros((len(made), 32, 32), np.float32), made)

    return replace(
        material, space=space, factor="right", balance="right", classes=("2", "0"),
        images=material.images[:9],
        labels=np.repeat([0, 1], [6, 3]), cells=cells, rules=AugmentConfig(), synthetic=source,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("real + synthetic", {"2": 0, "0": 3}),
        ("real + synthetic 0.5", {"2": 1, "0": 3}),
        ("half real, half synthetic + classical augmentation", {"2": 0, "0": 3}),
        ("half synthetic in every class + classical augmentation", {"2": 6, "0": 6}),
        ("synthetic alone", {"2": 6, "0": 6}),
    ],
)
def test_an_arm_is_the_same_whatever_the_values_are_called(
    material: Material, name: str, counts: dict[str, int]
) -> None:
    """Values that two factors share are asked for by cell: classes are filled nevertheless."""
    fits = [KNOWN[name].prepare(two_factors(material, values), 0)
            for values in (["a", "b"], ["10", "2"])]  # fmt: skip
    for fit in fits:
        made = np.bincount(fit.labels[fit.synthetic], minlength=2)
        assert dict(zip("20", made.tolist(), strict=True)) == counts
    assert np.array_equal(fits[0].labels, fits[1].labels)
    assert np.array_equal(fits[0].cells, fits[1].cells)  # type: ignore[arg-type]


def test_another_factor_than_the_predicted_one_is_balanced(material: Material) -> None:
    """Four and three slices of left "a", two of "b", all two of which have right "2"."""
    of_left = replace(two_factors(material, ["a", "b"]), balance="left")
    filled = added("synthetic")(of_left, 0)
    assert filled.labels[filled.synthetic].tolist() == [0] * 5
    assert filled.cells is not None
    assert set(filled.cells[filled.synthetic].tolist()) == {1}
    position = of_left.group_of_cell
    for fit in (oversampling(of_left, 0), everywhere("synthetic")(of_left, 0)):
        assert fit.sampling is not None
        assert fit.cells is not None
        shares = np.bincount(position[fit.cells], fit.sampling / fit.sampling.sum())
        assert shares == pytest.approx([0.5, 0.5])
    weights = class_weights(of_left, 0).class_weights
    assert weights is not None
    assert weights == pytest.approx([9 / 12, 9 / 6]), "the loss is of what is predicted"


def test_what_is_balanced_must_be_a_factor(toy: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"downstream\.balance is 'size'"):
        Material.of(toy, "shape", RULES, replayed(toy), balance="size")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda b: Batch(b.images[:, :16], b.cells), DataError),
        (lambda b: Batch(b.images[1:], b.cells), DataError),
        (lambda b: Batch(b.images * np.float32(np.nan), b.cells), DataError),
        (lambda b: Batch(b.images + 1, b.cells), DataError),
        (lambda b: Batch(b.images, ["star"] * len(b.cells)), UnknownCell),
    ],
)
def test_a_wrong_batch_is_refused(material: Material, spoil, error) -> None:  # type: ignore[no-untyped-def]
    source = material.synthetic
    bad = replace(material, synthetic=lambda *asked: spoil(source(*asked)))
    with pytest.raises(error):
        added("synthetic")(bad, 0)


def changed(images: NDArray[np.float32], flippable: bool, shift: int, seed: int = 0):  # type: ignore[no-untyped-def]
    augment = classical_augmentation(np.full(len(images), flippable), shift)
    random = torch.Generator().manual_seed(seed)
    taken = torch.from_numpy(images)[:, None]
    return augment(taken, torch.arange(len(images)), random).numpy()[:, 0]


def test_augmentation_keeps_range_and_shape_and_follows_its_seed(material: Material) -> None:
    images = material.images
    first = changed(images, True, 2)
    assert first.shape == images.shape
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert first.max() <= 1
    assert np.array_equal(first, changed(images, True, 2))
    assert not np.array_equal(first, changed(images, True, 2, seed=1))


def test_only_flippable_slices_are_mirrored() -> None:
    images = np.zeros((200, 32, 32), np.float32)
    images[:, 8:24, 4:8] = 1
    on_the_other_side = changed(images, False, 2)[:, :, 16:].mean(axis=(1, 2)) > 0.05
    assert not on_the_other_side.any()
    mirrored = changed(images, True, 2)[:, :, 16:].mean(axis=(1, 2)) > 0.05
    assert 0.3 < mirrored.mean() < 0.7


def test_shifts_stay_within_their_bound() -> None:
    images = np.zeros((100, 32, 32), np.float32)
    images[:, 16, 16] = 1
    peaks = changed(images, False, 3).reshape(100, -1).argmax(axis=1)
    offsets = np.stack([peaks // 32, peaks % 32]) - 16
    # The rare peak under heavy noise and blur is off by more: the bound is of the bulk.
    assert np.mean(np.abs(offsets).max(axis=0) <= 4) > 0.9
    assert offsets.std(axis=1) == pytest.approx([2.0, 2.0], abs=1.2)


def test_a_flip_rule_of_another_data_set_is_refused(material: Material) -> None:
    with pytest.raises(ConfigError):
        augmented(oversampling)(replace(material, rules=AugmentConfig(flip={"level": ["COR"]})), 0)


def test_the_arms_have_their_own_names() -> None:
    assert len({arm.name for arm in ARMS}) == len(ARMS)
    assert [arm.source for arm in ARMS] == ["real"] * 4 + ["synthetic"] * 2


def test_trained_patients_follow_from_the_digest_or_are_unknown(toy: Dataset) -> None:
    assert trained_patients({"dataset": toy.digest}, toy) == SeenPatients.of(toy)
    for facts in ({"dataset": "another"}, {}):
        with pytest.raises(LeakageError, match="--tracking-uri"):
            trained_patients(facts, toy)


def test_every_class_may_be_half_synthetic(material: Material) -> None:
    fit = everywhere("synthetic")(material, 3)
    most = material.counts.max()
    assert np.bincount(fit.labels[fit.synthetic], minlength=4).tolist() == [most] * 4
    assert np.array_equal(fit.labels[~fit.synthetic], material.labels)
    assert fit.sampling is not None
    shares = fit.sampling / fit.sampling.sum()
    for made in (False, True):
        of_kind = fit.synthetic == made
        found = np.bincount(fit.labels[of_kind], shares[of_kind], minlength=4)
        assert found == pytest.approx(np.full(4, 1 / 8))


def test_shares_hold_whatever_is_drawn_within_them(material: Material) -> None:
    one, other = Fit.of_real(material), everywhere("synthetic")(material, 3)
    skewed = replace(one, sampling=np.arange(1.0, len(one.labels) + 1))
    fit = in_equal_shares(material, skewed, other)
    assert fit.sampling is not None
    first = np.arange(len(fit.labels)) < len(one.labels)
    for part in (first, ~first):
        shares = np.bincount(fit.labels[part], fit.sampling[part])
        assert shares == pytest.approx(np.full(4, 0.5))
    # Twice as probable within its class before, twice as probable within its share now.
    of_class = np.flatnonzero(one.labels == 1)[:2]
    assert fit.sampling[of_class] / fit.sampling[of_class[0]] == pytest.approx(
        (of_class + 1) / (of_class[0] + 1)
    )


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=5),
    st.one_of(st.none(), st.floats(0, 3)),
)
def test_classes_are_filled_like_water(present: list[int], ratio: float | None) -> None:
    counts = {str(i): n for i, n in enumerate(present)}
    wanted = filled_to(counts, ratio)
    added = {name: wanted[name] - n for name, n in counts.items()}
    assert min(added.values()) >= 0
    if ratio is None:
        assert set(wanted.values()) == {max(present)}
        return
    assert sum(added.values()) == round(ratio * sum(present))
    filled = [wanted[name] for name, n in added.items() if n]
    # Who was filled stands level, and nobody else stands lower.
    assert not filled or max(filled) - min(wanted.values()) <= 1


@pytest.mark.parametrize("arm", KNOWN.values(), ids=lambda arm: arm.name)
def test_an_arm_needs_what_its_fit_has(arm: Arm, material: Material) -> None:
    both = replace(material, filtered=material.synthetic, oracle=material.synthetic)
    fit = arm.prepare(both, 0)
    phases = [phase for phase, _ in fit.phases(100)]
    has = {
        WEIGHTS: any(p.class_weights is not None or p.sampling is not None for p in phases),
        FOCAL: any(p.focal_gamma > 0 for p in phases),
        MIXUP: any(p.mixup_alpha > 0 for p in phases),
        AUGMENTATION: any(p.augment is not None for p in phases),
        PRETRAINING: len(phases) > 1,
    }
    assert arm.needs == {need for need, is_there in has.items() if is_there}
    assert asked_by(fit) == arm.needs


def test_what_a_pre_training_needs_counts(material: Material) -> None:
    fit = replace(real(material, 0), pretraining=oversampling(material, 0))
    assert asked_by(fit) == {PRETRAINING, WEIGHTS}


@pytest.mark.parametrize("arm", KNOWN.values(), ids=lambda arm: arm.name)
def test_every_arm_is_fitted_on_labelled_slices_of_the_data(arm: Arm, material: Material) -> None:
    both = replace(material, filtered=material.synthetic, oracle=material.synthetic)
    fit = arm.prepare(both, 3)
    assert fit.images.shape == (len(fit.labels), *material.images.shape[1:])
    for images in (phase.images for phase, _ in fit.phases(100)):
        assert images.min() >= 0
        assert images.max() <= 1
    assert set(fit.labels.tolist()) == set(material.labels.tolist())
    assert (fit.n_synthetic > 0) == (
        arm.source != "real" or "SMOTE" in arm.name or "moved" in arm.name
    )
    before = 0 if fit.pretraining is None else len(fit.pretraining.images)
    assert fit.n_real + fit.n_synthetic == len(fit.images) + before
    again = arm.prepare(both, 3)
    assert np.array_equal(fit.images, again.images)
    if fit.augment is not None:  # also for slices that are not among the real ones
        rows = torch.arange(len(fit.images) - 2, len(fit.images))
        taken = torch.from_numpy(fit.images[rows])[:, None]
        moved = fit.augment(taken, rows, torch.Generator().manual_seed(0))
        assert moved.shape == taken.shape
        assert moved.min() >= 0
        assert moved.max() <= 1


def test_smote_fills_every_class_with_mixtures(material: Material) -> None:
    for arm in arms_named(["SMOTE"]):
        counts = np.bincount(arm.prepare(material, 0).labels)
        assert (counts == material.counts.max()).all()
    lonely = replace(
        material, images=material.images[59:62], labels=np.asarray([0, 1, 1]),
        cells=np.asarray([0, 1, 1]),
    )  # fmt: skip
    with pytest.raises(DataError, match="has 1 slice"):
        arms_named(["SMOTE"])[0].prepare(lonely, 0)


def test_half_of_a_class_is_drawn_from_its_real_slices(material: Material) -> None:
    fit = halved("synthetic")(material, 0)
    assert fit.sampling is not None
    chances = fit.sampling / fit.sampling.sum()
    assert np.bincount(fit.labels, chances) == pytest.approx(np.full(4, 0.25))
    real_share = np.bincount(fit.labels, chances * ~fit.synthetic)
    nothing_added = np.bincount(fit.labels, fit.synthetic) == 0
    assert real_share == pytest.approx(np.where(nothing_added, 0.25, 0.125))


def test_a_pre_training_takes_its_part_of_the_steps(material: Material) -> None:
    fit = KNOWN["synthetic, then real + classical augmentation"].prepare(material, 0)
    (before, n_before), (after, n_after) = fit.phases(7)
    assert (n_before, n_after) == (3, 4)
    assert before.synthetic.all()
    assert not after.synthetic.any()
    assert before.augment is not None
    assert after.augment is not None


def test_synthetic_alone_has_no_real_slice(material: Material) -> None:
    (alone,) = (arm for arm in FURTHER_ARMS if arm.name == "synthetic alone")
    fit = alone.prepare(material, 0)
    assert fit.n_synthetic == len(fit.images) == 4 * material.counts.max()


def test_filtered_slices_need_a_filter(material: Material) -> None:
    (filtered,) = (arm for arm in FURTHER_ARMS if arm.name == "real + filtered synthetic")
    with pytest.raises(DataError, match="no filtered source"):
        filtered.prepare(material, 0)


def test_arms_are_named() -> None:
    assert arms_named([]) == ARMS
    assert [arm.name for arm in arms_named(["mixup", "real + synthetic"])] == [
        "mixup", "real + synthetic",
    ]  # fmt: skip
    for names, why in (
        (["real", "magic"], "magic"),
        (["real", "real"], "twice"),
        (["synthetic alone"], "no arm without synthetic"),
    ):
        with pytest.raises(ConfigError, match=why):
            arms_named(names)
