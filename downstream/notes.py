"""What a reader of a report has to know beside its figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from downstream.outcome import Outcome, Truth
from downstream.score_table import ScoreTable
from downstream.verdict import MINIMUM_PATIENTS, MINIMUM_SEEDS


def notes_of_test(
    table: ScoreTable,
    truths: Sequence[Truth],
    classes: Sequence[str],
    patients: Sequence[int],
    independent: bool,
) -> list[str]:
    """What a reader has to know of the test itself.

    Args:
        table: All fits of one classifier.
        truths: One for every fold.
        classes: Names of the classes.
        patients: Test patients of each class.
        independent: Whether the folds are replicates.
    """
    found = [
        f"{name} has no test slice: it is left out of every mean over classes."
        for name, n in zip(classes, patients, strict=True)
        if not n
    ]
    if (few := min(patients)) < MINIMUM_PATIENTS:
        found.append(
            f"The rarest class has {few} test patients, fewer than {MINIMUM_PATIENTS}: whatever "
            "the scores, the verdict is NO EVIDENCE."
        )
    if (seeds := len(table.seeds)) < MINIMUM_SEEDS:
        found.append(
            f"Seeds of each arm: {seeds}, fewer than {MINIMUM_SEEDS}: whatever the scores, the "
            "verdict is NO EVIDENCE."
        )
    if bare := [str(t.fold) for t in truths if not len(t.validation_labels)]:
        found.append(
            f"Folds without a validation part: {', '.join(bare)} of {len(truths)}. Some class has "
            "too few patients to be held back: nothing is chosen there, and all patients beside "
            "the test are fitted on."
        )
    if len(table.folds) == 1:
        found.append(
            "There is one training set: intervals hold the noise of test patients and seeds, not "
            "what another training set or generator would have given."
        )
    elif not independent:
        found.append(
            "The folds' training sets overlap: intervals are those of the corrected resampled "
            "t test (Nadeau and Bengio 2003)."
        )
        if any(len(t.validation_labels) for t in truths):
            found.append(
                "A fold's validation patients are tested in other folds: over all folds, rival and "
                "synthetic arm are not chosen independently of the test, and the chosen arm's gain "
                "may be too large. The verdicts count all arms (Holm), whichever is chosen."
            )
    return found


def notes_of_balance(factor: str, balance: str) -> tuple[str, ...]:
    """That the arms balance another factor than the predicted one, where they do."""
    if balance == factor:
        return ()
    return (f"Predicted: {factor}. What arms bring to equal counts are the values of {balance}.",)


def notes_of_missing_slices(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Which arms got fewer slices than they are called by: a filter may refuse nearly all."""
    for arm in dict.fromkeys(o.arm for o in outcomes):
        of_arm = [o for o in outcomes if o.arm == arm]
        if lacking := [o.n_missing for o in of_arm if o.n_missing]:
            told = (
                f"{arm}: in {len(lacking)} of {len(of_arm)} fits fewer slices came than were asked "
                f"for, {sum(lacking)} fewer in all"
            )
            bare = sum(not o.n_synthetic for o in of_arm)
            yield f"{told}; {bare} fits have none." if bare else f"{told}."
