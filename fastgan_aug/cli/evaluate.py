"""`fastgan-aug evaluate`: judges a generator, writes its report, records it in MLflow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    import numpy as np

    from fastgan_aug.config import QualityConfig
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.engines.mlflow_registry import RegisteredVersion
    from fastgan_aug.gan.checkpoint import CheckpointMeta, Lineage
    from fastgan_aug.quality.report import QualityReport

HELP = """Judge a generator: likeness, diversity, memorisation, faithfulness, and PASS or FAIL.

DATA holds the slices that the model was trained on and those of patients it never saw: which is
which, the model itself tells. A report of a registered version is kept with it in MLflow, and
`fastgan-aug promote` asks for it.

Examples:

  fastgan-aug evaluate runs/first/images-000240000 phantom.parquet

  fastgan-aug evaluate candidate phantom.parquet --tracking-uri http://127.0.0.1:5000

  fastgan-aug evaluate 3 phantom.parquet --reference fresh.parquet --out judged
"""
CHUNK = 256  # images between two steps of the bar


def register_commands(app: typer.Typer) -> None:
    """Adds ``evaluate``."""
    app.command("evaluate", help=HELP)(evaluate_command)


def evaluate_command(
    model: Annotated[
        str, typer.Argument(help="A checkpoint folder, or a registered version's number or alias.")
    ],
    data: Annotated[Path, typer.Argument(help="Data set (Parquet): patients seen and unseen.")],
    reference: Annotated[
        Path | None,
        typer.Option(help="Fresh patients (Parquet): equivalence must then be shown on them."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the report. [default: quality/ beside the checkpoint]"),
    ] = None,
    no_classifier: Annotated[
        bool,
        typer.Option("--no-classifier", help="A quick look without its fits; it cannot pass."),
    ] = False,
    config: Annotated[
        str | None,
        typer.Option(help="TOML or shipped name, whose `quality` counts. [default: the model's]"),
    ] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow, for a registered version."),
    ] = None,
    model_name: Annotated[
        str, typer.Option("--model", help="Name of the registered model.")
    ] = "fastgan-aug",
) -> None:
    """Judges a generator and writes report.json and report.html."""
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.engines.mlflow_promotion import record_report
    from fastgan_aug.engines.mlflow_registry import loss_curves

    console = Console()
    dataset = Dataset.read(data)
    fresh = Dataset.read(reference) if reference else None
    with _model(model, model_name, tracking_uri) as (checkpoint, version):
        settings = _settings(config, checkpoint, not no_classifier)
        judged = judge_checkpoint(checkpoint, dataset, settings, console, reference=fresh)
    if version is not None and tracking_uri is not None:
        judged = replace(judged, curve=loss_curves(version, tracking_uri))
    folder = out or _default_folder(checkpoint, version)
    write_report(judged, folder)
    print_verdict(judged.report, console)
    console.print(f"report      {folder / 'report.html'}", markup=False, soft_wrap=True)
    if version is not None and tracking_uri is not None:
        record_report(version, folder, tracking_uri)
        said = f"recorded    quality = {judged.report.verdict} on {version.uri}"
        console.print(said, markup=False, soft_wrap=True)


@dataclass(frozen=True)
class Judged:
    """A report, and what its page shows.

    Attributes:
        report: With the model's own provenance.
        train: The slices the model saw.
        holdout: Those of patients it did not see.
        images: (M, S, S) float32 in [0, 1], synthetic.
        cells: (M,) the cell of each.
        curve: Points of the training's curves, by images seen; may be empty.
    """

    report: QualityReport
    train: Dataset
    holdout: Dataset
    images: np.ndarray[Any, Any]
    cells: list[str]
    curve: list[dict[str, float]]


def judge_checkpoint(
    checkpoint: Path,
    dataset: Dataset,
    settings: QualityConfig,
    console: Console,
    *,
    reference: Dataset | None = None,
) -> Judged:
    """Makes the slices that the comparison needs, and judges them, under a progress bar.

    Args:
        checkpoint: Its folder.
        dataset: Holds the patients that the model saw, and others.
        settings: The ``quality`` section.
        console: Shows the bar.
        reference: Fresh patients.

    Raises:
        DataError: the data set does not hold both, or is of another kind.
        PseudonymKeysDiffer: the data's pseudonyms come from another key than the model's.
        CheckpointError: the checkpoint is damaged.
    """
    from fastgan_aug.gan.synthesizer import Synthesizer
    from fastgan_aug.quality.case import wanted_counts
    from fastgan_aug.quality.evaluate import evaluate

    synthesizer = Synthesizer.load(checkpoint)
    train, holdout = split_by_sight(dataset, synthesizer.meta.lineage)
    fresh = None if reference is None else kept(reference, synthesizer.meta.lineage)
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("making slices")

        def progress(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        wanted = wanted_counts(train, holdout, fresh)
        images, cells = make_slices(synthesizer, wanted, settings.seed, progress)
        report = evaluate(
            train, holdout, images, cells, settings, reference=fresh, progress=progress
        )
    origin = provenance_of(synthesizer.meta, synthesizer.engine)
    report = replace(report, provenance=origin | dict(report.provenance))
    return Judged(report, train, holdout, images, cells, training_curve(checkpoint.parent))


def make_slices(
    synthesizer: Any, wanted: dict[str, int], seed: int, progress: Any = None
) -> tuple[np.ndarray[Any, Any], list[str]]:
    """So many slices of each cell, by the seeds that the service would take for that seed."""
    import numpy as np

    from serving.protocol import sample_seed

    names = [name for name, n in wanted.items() for _ in range(n)]
    seeds = np.asarray(
        [sample_seed(seed, name, i) for name, n in wanted.items() for i in range(n)], np.uint64
    )
    cells = [synthesizer.space.parse(name) for name in names]
    parts = []
    for start in range(0, len(cells), CHUNK):
        if progress:
            progress("making slices", start, len(cells))
        part = slice(start, start + CHUNK)
        parts.append(synthesizer.generate(cells[part], seeds[part]))
    return np.concatenate(parts), names


def split_by_sight(dataset: Dataset, lineage: Lineage) -> tuple[Dataset, Dataset]:
    """The slices of the patients that a model saw, and those of the others.

    Raises:
        DataError: one of them is missing, or the data are of another kind than the model's.
        LeakageError: nobody can tell whom the model saw.
    """
    import numpy as np

    from fastgan_aug.cli.downstream import seen_by
    from fastgan_aug.conditions import ConditionSpace
    from fastgan_aug.data.pseudonyms import patient_digest
    from fastgan_aug.errors import DataError

    chosen = kept(dataset, lineage)
    if chosen.meta.space != ConditionSpace.of(lineage.space):
        raise DataError(
            f"the data have the cells {chosen.meta.space.to_dict()}",
            allowed=f"the model's: {dict(lineage.space)}",
            do="give the data set that the model was trained on",
        )
    seen = seen_by(lineage)
    seen.shared_with(chosen)  # refuses what nobody could tell
    owners = chosen.column("patient_id").astype(str)
    inside = np.asarray([patient_digest(owner) in seen.digests for owner in owners], np.bool_)
    train, holdout = chosen.take(inside), chosen.take(~inside)
    for part, who, do in (
        (train, "that the model saw", "give the data set that it was trained on"),
        (holdout, "that the model did not see", "train with data.test_fraction above 0, or add "
         "patients to the data set: without a hold-out, copies pass for good slices"),
    ):  # fmt: skip
        if not part.labelled.any():
            raise DataError(
                f"the data have no labelled slice of a patient {who}",
                allowed="data with patients of both kinds",
                do=do,
            )
    return train, holdout


def kept(dataset: Dataset, lineage: Lineage) -> Dataset:
    """The slices of the cells that the model's configuration keeps."""
    keep = lineage.config.get("data", {}).get("keep")
    return dataset.restrict(keep) if keep else dataset


def provenance_of(meta: CheckpointMeta, engine: str) -> dict[str, Any]:
    """Where the judged model comes from."""
    from fastgan_aug.data.schema import FICTION
    from fastgan_aug.quality.plain_words import PHANTOM_FROM_PHANTOMS

    origin = meta.lineage
    start: dict[str, str] = {}
    if origin.prior is not None:
        start["prior"] = origin.prior
        if origin.pseudonym_key == FICTION:
            start["warning"] = PHANTOM_FROM_PHANTOMS
    return start | {
        "checkpoint": meta.digest,
        "images_seen": meta.images_seen,
        "config": origin.config_digest,
        "trained_on": origin.dataset_digest,
        "training_code": origin.code_version,
        "engine": engine,
    }


def training_curve(run_folder: Path) -> list[dict[str, float]]:
    """The points that the run's own record holds; empty without one."""
    from fastgan_aug.engines.mlflow_spool import Spool

    spool = Spool(run_folder)
    if not spool.folder.is_dir():
        return []
    return [
        {"images_seen": float(entry.values["step"]), **entry.values["values"]}
        for entry in spool.entries()
        if entry.kind == "metrics"
    ]


def write_report(judged: Judged, folder: Path) -> None:
    """Writes report.html and report.json, each beside its place and renamed.

    Raises:
        StorageError: they cannot be written.
    """
    from fastgan_aug.cli.evaluate_page import write_evaluate_page

    write_evaluate_page(judged, folder / "report.html")
    judged.report.write(folder / "report.json")


def print_verdict(report: QualityReport, console: Console) -> None:
    """Prints PASS or FAIL, and every question that was answered badly."""
    from fastgan_aug.quality.plain_words import ADVICE, lines_of

    lines = lines_of(report.verdict)
    good = sum(line.passed for line in lines)
    colour = "green" if report.verdict.passed else "red"
    console.print(
        f"[bold {colour}]{report.verdict}[/]        {good} of {len(lines)} questions answered well"
    )
    if "warning" in report.provenance:
        console.print(f"  {report.provenance['warning']}", markup=False, highlight=False)
    for line in lines:
        if not line.passed:
            console.print(f"  {line.title}: {line.text}", markup=False, highlight=False)
    if any(reason.unjudged for reason in report.verdict.failures):
        console.print(f"  {ADVICE}", markup=False, highlight=False)


def _settings(config: str | None, checkpoint: Path, classifier: bool) -> QualityConfig:
    """Of the configuration named, or else of the one that the model was trained with."""
    from fastgan_aug.config import Config, load_config
    from fastgan_aug.gan.checkpoint import read_manifest

    if config is not None:
        quality = load_config(config).quality
    else:
        own = read_manifest(checkpoint).lineage.config.get("quality", {})
        quality = Config.of({"name": "its own", "quality": own}, "the model's").quality
    return quality if classifier else quality.model_copy(update={"classifier": False})


@contextmanager
def _model(
    model: str, name: str, uri: str | None
) -> Iterator[tuple[Path, RegisteredVersion | None]]:
    """The checkpoint folder that the argument means, fetched if it is a registered version's."""
    from fastgan_aug.errors import CheckpointError

    if Path(model).is_dir():
        yield Path(model).resolve(), None
        return
    if uri is None:
        raise CheckpointError(
            f"there is no folder {model}",
            allowed="a checkpoint folder; or with --tracking-uri a version's number or alias",
            do="check the path, or say where MLflow is",
        )
    from fastgan_aug.engines.mlflow_registry import fetch

    with TemporaryDirectory(prefix="fastgan-aug-") as cache:
        version = fetch(name, model, uri, Path(cache))
        assert version.folder is not None
        yield version.folder, version


def _default_folder(checkpoint: Path, version: RegisteredVersion | None) -> Path:
    if version is not None:
        return Path("runs") / "quality" / f"{version.name}-{version.version}"
    return checkpoint.parent / "quality" / checkpoint.name
