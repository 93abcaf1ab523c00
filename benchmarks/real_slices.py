"""The nested proof on real slices of one's own: `benchmarks.real_slices FOLDER`.

FOLDER holds images and a ``labels.csv`` (file, patient_id, slice_index and the factors). Outer
folds by patient, a generator for each, as `fastgan-aug downstream`; what is finished is kept under
``--out`` and not done again. Nothing of the slices leaves ``--out``: the results are figures
alone, and the page there is written without pictures.

Each patient is tested once. Folds that leave another combination of the same patients out would
multiply the generators, not the patients: with two of a class the test of that class is of two.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from benchmarks.measure import command_of, figure, publish
from fastgan_aug.cli.downstream import print_report, write_report
from fastgan_aug.cli.nested_command import Nested, run_nested
from fastgan_aug.code_version import code_version
from fastgan_aug.config import Config, load_config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.importers.folder import import_folder
from fastgan_aug.data.pseudonyms import PseudonymKey
from fastgan_aug.errors import DataError

ARMS = (
    "real", "class weights", "oversampling + classical augmentation",
    "real + synthetic", "real + synthetic + classical augmentation",
    "half synthetic in every class + classical augmentation",
)  # fmt: skip
ASKED = ("factor", "z", "folds", "classifier", "images", "steps", "seeds")


def imported(folder: Path, factors: list[str], z: str, target: Path) -> Dataset:
    """The folder as a data set, imported where it is not there yet.

    The key of the pseudonyms is no secret, so that the same folder gives the same folds: this is
    for slices whose file names are public.

    Raises:
        DataError: nothing in the folder can be taken.
    """
    if not target.is_file():
        found = import_folder(
            folder, folder / "labels.csv", factors=factors, z_column=z, key=PseudonymKey(bytes(32))
        )
        if found.dataset is None:
            raise DataError(f"{folder} has no slice that can be taken", do="see its labels.csv")
        found.dataset.write(target)
    return Dataset.read(target)


def settings(images: int, steps: int, seeds: int, folds: int, classifiers: list[str]) -> Config:
    """The configuration `generic` with these budgets."""
    values = load_config("generic").to_dict()
    values["name"] = "real-slices"
    values["training"] |= {"images": images, "checkpoint_every": min(images, 10_000)}
    values["downstream"] |= {
        "folds": folds, "seeds": list(range(seeds)), "steps": steps, "arms": list(ARMS),
        "classifiers": classifiers,
    }  # fmt: skip
    return Config.of(values)


def arguments() -> argparse.ArgumentParser:
    """What can be asked."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("folder", type=Path, help="images and labels.csv")
    words.add_argument("--out", type=Path, default=Path("runs/real-slices"))
    words.add_argument("--factor", action="append", help="the last one is predicted")
    words.add_argument("--z", default="slice_index", help="column of the place in the volume")
    words.add_argument("--folds", type=int, default=4, help="never more than a class's patients")
    words.add_argument("--images", type=int, default=20_000, help="budget of a generator")
    words.add_argument("--steps", type=int, default=200, help="of a fit of the classifier")
    words.add_argument("--seeds", type=int, default=5, help="fits of each arm and fold")
    words.add_argument("--classifier", action="append")
    words.add_argument("--workers", type=int, default=1, help="pieces at once")
    words.add_argument("--budget", type=float, help="minutes")
    words.add_argument("--dry-run", action="store_true", help="only the plan")
    return words


def main() -> None:
    """Does what is not done yet, and publishes the figures."""
    asked, console = arguments().parse_args(), Console()
    out = asked.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    factors = asked.factor or ["level", "pattern"]
    path = out / "real.parquet"
    dataset = imported(asked.folder, factors, asked.z, path)
    classifiers = asked.classifier or ["small-cnn"]
    config = settings(asked.images, asked.steps, asked.seeds, asked.folds, classifiers)
    budget = None if asked.budget is None else 60 * asked.budget
    nested = Nested(path, config, out, asked.workers, budget=budget)
    found = run_nested(nested, console, dry_run=asked.dry_run)
    if found is None:
        return
    print_report(found.report, console)
    write_report(found.report, out)
    rows = []
    for judgement in found.report.judgements:
        name = judgement.classifier
        rows += [
            figure(f"{name}: macro-F1 of {arm.name!r}", arm.macro_f1.value, "")
            for arm in judgement.arms
        ]
        rows += [
            figure(f"{name}: gain of {c.arm!r} over {c.rival!r}: {c.verdict}",
                   c.difference.value, "")
            for c in judgement.comparisons
        ]  # fmt: skip
    report = found.report.to_dict()
    for judgement in report["judgements"]:
        del judgement["changed"]  # which slices they were
    publish(
        "real_slices",
        rows,
        command=command_of("real_slices FOLDER", asked, ASKED),
        seeds=config.downstream.seeds,
        images=asked.images,
        steps=asked.steps,
        config_digest=config.digest,
        dataset_digest=dataset.digest,
        code=code_version(),
        report=report,
    )


if __name__ == "__main__":
    main()
