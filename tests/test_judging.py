"""Laws of the judgement: chosen on the validation, tested once, never on less than everything."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.simulated_outcomes import CLASSES, SimulatedArm, World, simulate
from downstream.judging import JudgeSettings, judge
from downstream.outcome import Outcome, Truth
from downstream.report import UsefulnessReport, usefulness_table
from downstream.scores import calibration, calibration_error
from fastgan_aug.errors import DataError

ARMS = (
    SimulatedArm("real"),
    SimulatedArm("weights", shift=0.4),
    SimulatedArm("half", "synthetic", "0.5", shift=1.2),
    SimulatedArm("fill", "synthetic", "fill"),
    SimulatedArm("fill + augmentation", "synthetic", "fill", True, shift=-1.5),
    SimulatedArm("oracle", "oracle", "fill", shift=2.0),
    SimulatedArm("oracle + augmentation", "oracle", "fill", True, shift=2.0),
)
WORLD = World(folds=4, seeds=3, patients=60)
QUICK = JudgeSettings(bootstrap=200, independent=True)


def simulated(seed: int = 0, world: World = WORLD) -> tuple[list[Outcome], list[Truth]]:
    return simulate(world, ARMS, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def tables() -> tuple[list[Outcome], list[Truth]]:
    return simulated()


@pytest.fixture(scope="module")
def report(tables: tuple[list[Outcome], list[Truth]]) -> UsefulnessReport:
    return judge(*tables, ARMS, CLASSES, QUICK)


def test_true_gains_and_losses_are_told(report: UsefulnessReport) -> None:
    (judgement,) = report.judgements
    assert judgement.rival == "weights"
    assert judgement.recommended == "half"
    assert judgement.recommended_ratio == "0.5"
    words = {c.arm: c.verdict for c in judgement.comparisons}
    assert words == {"half": "HELPS", "fill": "NO EVIDENCE", "fill + augmentation": "HARMS"} | (
        {} if words["fill"] == "NO EVIDENCE" else {"fill": "HARMS"}
    )
    for c in judgement.comparisons:
        scores = [judgement.arm(name).macro_f1.value for name in (c.arm, c.rival)]
        assert c.difference.value == pytest.approx(scores[0] - scores[1])
        assert c.tests == 3
        assert c.p >= c.difference.p
    assert list(judgement.oracle) == ["oracle", "oracle + augmentation"]


def test_the_share_is_of_the_oracle_that_is_augmented_alike(report: UsefulnessReport) -> None:
    (judgement,) = report.judgements
    of = {c.arm: c for c in judgement.comparisons}
    for arm, oracle in (("half", "oracle"), ("fill + augmentation", "oracle + augmentation")):
        share = of[arm].recovered
        assert of[arm].oracle == oracle
        assert share is not None
        ratio = of[arm].difference.value / judgement.oracle[oracle].value
        assert share.value == pytest.approx(ratio)


def test_the_share_is_of_the_oracle_of_the_same_ratio_where_there_is_one() -> None:
    alike = SimulatedArm("half the oracle", "oracle", "0.5", shift=2.5)
    outcomes, truths = simulate(WORLD, (*ARMS, alike), np.random.default_rng(0))
    (judgement,) = judge(outcomes, truths, (*ARMS, alike), CLASSES, QUICK).judgements
    oracles = {c.arm: c.oracle for c in judgement.comparisons}
    assert oracles["half"] == "half the oracle"
    assert oracles["fill"] == "oracle"


def test_an_arm_that_got_fewer_slices_is_told_and_one_that_got_none_shows_nothing(
    tables: tuple[list[Outcome], list[Truth]], report: UsefulnessReport
) -> None:
    outcomes, truths = tables
    (helped,) = [c.arm for c in report.judgements[0].comparisons if c.verdict == "HELPS"][:1]

    def with_none_in(folds: set[int]) -> UsefulnessReport:
        less = [
            replace(o, n_synthetic=0, n_missing=10) if o.arm == helped and o.fold in folds else o
            for o in outcomes
        ]
        return judge(less, truths, ARMS, CLASSES, QUICK)

    some = with_none_in({0})
    seeds, folds = len(report.seeds), report.folds
    (told,) = [note for note in some.notes if note.startswith(f"{helped}: ")]
    assert f"in {seeds} of {seeds * folds} fits fewer slices came" in told
    assert told.endswith(f"{10 * seeds} fewer in all; {seeds} fits have none.")
    verdicts = {c.arm: (c.verdict, c.reason) for c in some.judgements[0].comparisons}
    assert verdicts[helped][0] == "HELPS"
    bare = with_none_in(set(range(folds))).judgements[0].comparisons
    word, why = {c.arm: (c.verdict, c.reason) for c in bare}[helped]
    assert word == "NO EVIDENCE"
    assert "no synthetic slice came" in why


def test_each_fold_chooses_by_its_own_validation(
    tables: tuple[list[Outcome], list[Truth]], report: UsefulnessReport
) -> None:
    outcomes, truths = tables
    (judgement,) = report.judgements
    assert judgement.own_choice is not None
    assert judgement.own_choice.arms == ("half",) * report.folds
    assert judgement.own_choice.rivals == ("weights",) * report.folds
    line = judgement.headline
    assert line is not None
    assert judgement.own_choice.difference == line.difference
    assert "('half' in 4; rival 'weights' in 4)" in judgement.own_choice.told
    # What is worst becomes best by one fold's validation: there alone it is taken.
    right = np.eye(len(CLASSES), dtype=np.float32)[truths[2].validation_labels]
    lucky = [
        replace(o, validation=right) if (o.arm, o.fold) == ("fill + augmentation", 2) else o
        for o in outcomes
    ]
    (found,) = judge(lucky, truths, ARMS, CLASSES, QUICK).judgements
    assert found.own_choice is not None
    assert found.own_choice.arms == ("half", "half", "fill + augmentation", "half")
    each = {name: np.mean(judgement.arm(name).each, axis=1)
            for name in ("half", "fill + augmentation", "weights")}  # fmt: skip
    mixed = np.where(np.arange(4) == 2, each["fill + augmentation"], each["half"])
    assert found.own_choice.difference.value == pytest.approx((mixed - each["weights"]).mean())


def test_nothing_is_chosen_by_a_fold_where_nothing_may_be(
    tables: tuple[list[Outcome], list[Truth]],
) -> None:
    outcomes, truths = tables
    fixed = judge(*tables, ARMS, CLASSES, replace(QUICK, choose_synthetic=False))
    one = judge([o for o in outcomes if o.fold == 0], truths[:1], ARMS, CLASSES, QUICK)
    assert [j.own_choice for r in (fixed, one) for j in r.judgements] == [None, None]


def test_the_test_chooses_nothing(tables: tuple[list[Outcome], list[Truth]]) -> None:
    """Whatever the test's labels are, the same arms are chosen."""
    outcomes, truths = tables
    turned = [replace(t, test_labels=(t.test_labels + 1) % 3) for t in truths]
    one, other = (judge(outcomes, t, ARMS, CLASSES, QUICK).judgements[0] for t in (truths, turned))
    assert (one.rival, one.recommended, one.how) == (other.rival, other.recommended, other.how)
    assert one.arms[0].macro_f1 != other.arms[0].macro_f1


def test_where_the_generator_saw_the_validation_the_arm_is_fixed(
    tables: tuple[list[Outcome], list[Truth]],
) -> None:
    settings = replace(QUICK, choose_synthetic=False)
    (judgement,) = judge(*tables, ARMS, CLASSES, settings).judgements
    assert judgement.recommended == "fill + augmentation"
    assert "fixed beforehand" in judgement.how
    assert judgement.rival == "weights"


def test_without_validation_the_rival_is_fixed_and_that_is_said(
    tables: tuple[list[Outcome], list[Truth]],
) -> None:
    none = np.zeros(0, np.int64)
    outcomes = [replace(o, validation=o.validation[:0]) for o in tables[0]]
    truths = [replace(t, validation_labels=none, validation_patients=none) for t in tables[1]]
    report = judge(outcomes, truths, ARMS, CLASSES, QUICK)
    (judgement,) = report.judgements
    assert judgement.rival == "real"
    assert "fixed beforehand" in judgement.how
    assert judgement.arms[0].validation is None
    assert any("without a validation part: 0, 1, 2, 3 of 4" in note for note in report.notes)
    augmented = [replace(a, augmented=a.name == "weights") for a in ARMS]
    (other,) = judge(outcomes, truths, augmented, CLASSES, QUICK).judgements
    assert other.rival == "weights", "the augmented one where there is one"


def test_folds_with_a_validation_part_choose_for_those_without(
    tables: tuple[list[Outcome], list[Truth]],
) -> None:
    none = np.zeros(0, np.int64)
    outcomes = [o if o.fold else replace(o, validation=o.validation[:0]) for o in tables[0]]
    bare = replace(tables[1][0], validation_labels=none, validation_patients=none)
    report = judge(outcomes, [bare, *tables[1][1:]], ARMS, CLASSES, QUICK)
    assert report.judgements[0].rival == "weights"
    assert any("without a validation part: 0 of 4" in note for note in report.notes)


def test_too_few_patients_are_said_and_cap_the_verdict(
    tables: tuple[list[Outcome], list[Truth]],
) -> None:
    outcomes, truths = tables
    rare = [
        replace(t, test_patients=np.where(t.test_labels == 0, 0, t.test_patients)) for t in truths
    ]
    report = judge(outcomes, rare, ARMS, CLASSES, QUICK)
    assert min(report.test_patients) == 4
    assert {c.verdict for c in report.judgements[0].comparisons} == {"NO EVIDENCE"}
    assert any("4 test patients, fewer than 5" in note for note in report.notes)


def test_no_gain_is_said_to_be_found_where_no_gain_can_help(
    tables: tuple[list[Outcome], list[Truth]], report: UsefulnessReport
) -> None:
    outcomes, truths = tables
    few = [
        replace(t, test_patients=np.where(t.test_labels == 0, 0, t.test_patients)) for t in truths
    ]
    two = [o for o in outcomes if o.seed < 2]
    cases = (
        judge(outcomes, few, ARMS, CLASSES, QUICK),
        judge(two, truths, ARMS, CLASSES, QUICK),
        judge(outcomes, truths, ARMS, CLASSES, replace(QUICK, caveat="nobody knows")),
    )
    for found in cases:
        assert {c.detectable for c in found.judgements[0].comparisons} == {None}
    assert any("Seeds of each arm: 2, fewer than 3" in note for note in cases[1].notes)
    assert None not in {c.detectable for c in report.judgements[0].comparisons}


def test_the_calibration_error_is_the_mean_over_fits(
    tables: tuple[list[Outcome], list[Truth]], report: UsefulnessReport
) -> None:
    outcomes, truths = tables
    for arm in report.judgements[0].arms:
        errors = [
            calibration_error(calibration(truths[o.fold].test_labels, o.test))
            for o in outcomes if o.arm == arm.name
        ]  # fmt: skip
        assert arm.ece == pytest.approx(np.mean(errors))
        assert sum(n for n, _, _ in arm.reliability) == len(errors) * len(truths[0].test_labels)


def test_only_an_arm_that_is_fixed_beforehand_may_lack_a_validation(
    tables: tuple[list[Outcome], list[Truth]],
) -> None:
    outcomes, truths = tables
    bare = [replace(o, validation=o.validation[:0]) if o.arm == "fill" else o for o in outcomes]
    with pytest.raises(DataError, match="'fill'"):
        judge(bare, truths, ARMS, CLASSES, QUICK)
    fixed = replace(QUICK, choose_synthetic=False)
    (judgement,) = judge(bare, truths, ARMS, CLASSES, fixed).judgements
    assert (judgement.rival, judgement.arm("fill").validation) == ("weights", None)
    bare = [replace(o, validation=o.validation[:0]) if o.arm == "real" else o for o in outcomes]
    with pytest.raises(DataError, match="'real'"):
        judge(bare, truths, ARMS, CLASSES, fixed)


def test_the_order_of_the_outcomes_does_not_matter(
    tables: tuple[list[Outcome], list[Truth]], report: UsefulnessReport
) -> None:
    again = judge(tables[0][::-1], tables[1][::-1], ARMS, CLASSES, QUICK)
    assert again.to_json() == report.to_json()


def test_one_fold_says_so_and_claims_only_of_its_training_set() -> None:
    outcomes, truths = simulated(1, replace(WORLD, folds=1))
    report = judge(outcomes, truths, ARMS, CLASSES, QUICK)
    assert "one training set" in report.notes[0]
    for c in report.judgements[0].comparisons:
        assert c.difference.se > 0
        assert c.difference.df >= 2
    words = {c.arm: c.verdict for c in report.judgements[0].comparisons}
    assert words["fill + augmentation"] == "HARMS"


def test_overlapping_folds_have_wider_intervals(
    tables: tuple[list[Outcome], list[Truth]], report: UsefulnessReport
) -> None:
    overlapping = judge(*tables, ARMS, CLASSES, replace(QUICK, independent=False))
    assert "Nadeau" in overlapping.notes[0]
    assert "tested in other folds" in overlapping.notes[1]
    assert not any("tested in other folds" in note for note in report.notes)
    ratio = np.sqrt((1 / 4 + 1 / 2) / (1 / 4))
    for one, other in zip(
        report.judgements[0].comparisons, overlapping.judgements[0].comparisons, strict=True
    ):
        assert other.difference.se == pytest.approx(ratio * one.difference.se)


def test_a_caveat_stands_on_top_and_takes_every_verdict(
    tables: tuple[list[Outcome], list[Truth]],
) -> None:
    why = "the data have no patients"
    found = judge(*tables, ARMS, CLASSES, replace(QUICK, caveat=why))
    assert found.caveat == f"This report proves nothing: {why}."
    assert {(c.verdict, c.reason) for c in found.judgements[0].comparisons} == {
        ("NO EVIDENCE", why)
    }
    assert found.judgements[0].recommended_ratio is None


def test_few_patients_of_a_class_show_nothing(tables: tuple[list[Outcome], list[Truth]]) -> None:
    outcomes, truths = tables
    few = [
        replace(t, test_patients=np.where(t.test_labels == 2, 0, t.test_patients)) for t in truths
    ]
    found = judge(outcomes, few, ARMS, CLASSES, QUICK)
    assert found.test_patients[2] == 4
    assert {c.verdict for c in found.judgements[0].comparisons} == {"NO EVIDENCE"}


def test_a_class_without_test_slices_is_left_out_and_told(
    tables: tuple[list[Outcome], list[Truth]],
) -> None:
    outcomes, truths = tables
    absent = [replace(t, test_labels=np.minimum(t.test_labels, 1)) for t in truths]
    found = judge(outcomes, absent, ARMS, CLASSES, QUICK)
    arm = found.judgements[0].arms[0]
    assert list(arm.recall) == list(arm.auroc) == ["many", "some"]
    assert any("few has no test slice" in note for note in found.notes)
    assert "recall few" not in usefulness_table(found.judgements[0])[0]
    json.loads(found.to_json())


def test_an_arm_that_changes_nothing_shows_nothing(
    tables: tuple[list[Outcome], list[Truth]],
) -> None:
    outcomes = [o for o in tables[0] if o.arm == "real"]
    outcomes += [replace(o, arm="copy") for o in outcomes]
    arms = (SimulatedArm("real"), SimulatedArm("copy", "synthetic", "fill"))
    (judgement,) = judge(outcomes, tables[1], arms, CLASSES, QUICK).judgements
    (found,) = judgement.comparisons
    assert (found.verdict, found.p, found.detectable) == ("NO EVIDENCE", 1.0, None)
    assert judgement.n_changed == (0, 0)


def test_slices_that_changed_sides_did(
    tables: tuple[list[Outcome], list[Truth]], report: UsefulnessReport
) -> None:
    outcomes, truths = tables
    (judgement,) = report.judgements
    assert judgement.changed
    assert len(judgement.changed) <= 16
    for changed in judgement.changed:
        fold = truths[changed.fold]
        said = {
            name: np.mean(
                [o.test for o in outcomes if o.arm == name and o.fold == changed.fold], axis=0
            )[changed.row]
            for name in (judgement.rival, judgement.recommended)
        }
        assert CLASSES[fold.test_labels[changed.row]] == changed.truth
        assert CLASSES[said[judgement.rival].argmax()] == changed.rival
        assert CLASSES[said[judgement.recommended].argmax()] == changed.synthetic
        assert (changed.rival == changed.truth) != changed.gained


def test_each_classifier_is_judged_by_itself(tables: tuple[list[Outcome], list[Truth]]) -> None:
    both = [*tables[0], *(replace(o, classifier="other") for o in tables[0])]
    one, other = judge(both, tables[1], ARMS, CLASSES, QUICK).judgements
    assert (one.classifier, other.classifier) == ("simulated", "other")
    assert one.comparisons == other.comparisons


def test_missing_outcomes_and_rivals_are_refused(
    tables: tuple[list[Outcome], list[Truth]],
) -> None:
    outcomes, truths = tables
    for wrong in (outcomes[:-1], [*outcomes, outcomes[0]], []):
        with pytest.raises(DataError):
            judge(wrong, truths, ARMS, CLASSES, QUICK)
    with pytest.raises(DataError, match="without synthetic"):
        judge(outcomes, truths, ARMS[2:4], CLASSES, QUICK)
    with pytest.raises(DataError, match="class"):
        judge(outcomes, truths, ARMS, CLASSES[:2], QUICK)
    with pytest.raises(DataError, match="no test"):
        judge(outcomes, truths[:-1], ARMS, CLASSES, QUICK)


def test_the_report_is_json(report: UsefulnessReport) -> None:
    found = json.loads(report.to_json())
    assert found == report.to_dict()
    assert found["judgements"][0]["recommended_ratio"] == "0.5"
    rows = usefulness_table(report.judgements[0])
    assert [row["arm"] for row in rows] == [arm.name for arm in ARMS]
    assert rows[1]["verdict"] == "rival"
