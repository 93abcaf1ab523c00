"""`fastgan-aug downstream`: what the synthetic slices of a running service do to a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from downstream.learning_curve import LearningCurve
    from downstream.material import SyntheticSource
    from downstream.report import Judgement, UsefulnessReport
    from fastgan_aug.config import Config
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.data.pseudonyms import SeenPatients
    from fastgan_aug.gan.checkpoint import Lineage

EXAMPLE = """Compare a classifier fitted with and without synthetic slices, on patients of its own.

Nested by patient: each fold has a generator of its own, fitted on its training patients alone and
kept whatever the gate says. Every piece that is finished is kept under --out: a command that was
ended goes on where it was. Data without patients prove nothing: they are refused, or with
--unsafe-no-groups run without a verdict.

With --url the version that a service serves is judged instead. The data set is split by patient as
the configuration says, so give the one the model was trained with. A model that saw a test patient
is refused: its checkpoint in MLflow tells which it saw.
Without --tracking-uri only a model trained on exactly this training part is taken.

Examples:

  fastgan-aug downstream --data phantom.parquet --config demo --dry-run

  fastgan-aug downstream --data phantom.parquet --config demo --budget 60

  fastgan-aug downstream --data phantom.parquet --config demo --rare-slices 16 --rare-slices 32

  fastgan-aug downstream --data phantom.parquet --config demo --predict pattern --balance level

  fastgan-aug downstream --data phantom.parquet --url http://127.0.0.1:8000 --tracking-uri URI
"""


# Of the table that is printed; the files have them.
HIDDEN = ("balanced accuracy", "AUROC", "AUPRC", "calibration error", "s/fit", "verdict")


def register_commands(app: typer.Typer) -> None:
    """Adds ``downstream``."""
    app.command("downstream", help=EXAMPLE)(downstream_command)


def downstream_command(
    data: Annotated[Path, typer.Option(help="Data set (Parquet).")],
    url: Annotated[
        str | None,
        typer.Option(help="A service whose version is judged. [default: a generator per fold]"),
    ] = None,
    model: Annotated[str, typer.Option(help="Alias or version.")] = "champion",
    tracking_uri: Annotated[
        str | None,
        typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow, which tells the patients it saw."),
    ] = None,
    config: Annotated[str, typer.Option(help="Configuration: TOML or a shipped name.")] = "demo",
    predict: Annotated[
        str | None,
        typer.Option(metavar="FACTOR", help="The label to predict. [default: downstream.factor]"),
    ] = None,
    balance: Annotated[
        str | None,
        typer.Option(
            metavar="FACTOR",
            help="Whose values are brought to equal counts. "
            "[default: downstream.balance, or what is predicted]",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/downstream"),
    unsafe_no_groups: Annotated[
        bool,
        typer.Option("--unsafe-no-groups", help="Take data without patients: proves nothing."),
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Pieces at once. [default: one for each core]")
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Ray workers instead of processes.")] = False,
    budget: Annotated[
        float | None, typer.Option(min=0, help="Minutes after which no further piece is begun.")
    ] = None,
    rare_slices: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Learning curve: also with about N training slices of the "
            "rarest class, and generators fitted on them. Repeat it.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the plan.")] = False,
) -> None:
    """Compares the arms and writes the page and JSON."""
    from fastgan_aug.cli.downstream_record import record_nested
    from fastgan_aug.cli.fits import usable_cores
    from fastgan_aug.cli.nested_command import Nested, run_nested
    from fastgan_aug.cli.signals import sigterm_as_ctrl_c
    from fastgan_aug.config import load_config

    console, settings = Console(), _with_factors(load_config(config), predict, balance)
    if url is not None:
        _refuse_options_of_folds(
            dry_run or ray or workers is not None or budget is not None or bool(rare_slices)
        )
        _judge_served(data, settings, url, model, tracking_uri, out, unsafe_no_groups, console)
        return
    sigterm_as_ctrl_c()
    uri = tracking_uri or settings.tracking.uri
    asked = Nested(
        data.resolve(), settings, out.resolve(), workers or usable_cores(), ray,
        None if budget is None else 60 * budget, uri, unsafe_no_groups, tuple(rare_slices or ()),
    )  # fmt: skip
    if (found := run_nested(asked, console, dry_run=dry_run)) is not None:
        print_report(found.report, console)
        write_report(found.report, out, found.images)
        record_nested(asked, found.report)
        console.print(f"written: {out / 'downstream.html'}", markup=False, soft_wrap=True)


def _with_factors(settings: Config, predict: str | None, balance: str | None) -> Config:
    """The configuration with those of the two that were given."""
    asked = {"factor": predict, "balance": balance}
    given = {name: value for name, value in asked.items() if value is not None}
    section = settings.downstream.model_copy(update=given)
    return settings.model_copy(update={"downstream": section})


def _refuse_options_of_folds(given: bool) -> None:
    from fastgan_aug.errors import ConfigError

    if given:
        raise ConfigError(
            "--dry-run, --workers, --ray, --budget and --rare-slices are for a generator per fold, "
            "and --url judges a version that is served",
            allowed="--url without them",
            do="leave them out, or leave --url out",
        )


def _judge_served(
    data: Path,
    settings: Config,
    url: str,
    model: str,
    tracking_uri: str | None,
    out: Path,
    unsafe_no_groups: bool,
    console: Console,
) -> None:
    """One fold, whose generator is a version that is served."""
    from downstream.service import service_source
    from fastgan_aug.cli.downstream_record import record_served
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.data.validation.validate import check_valid
    from fastgan_aug.engines.mlflow_registry import find
    from serving.client import Client

    uri, dataset = tracking_uri or settings.tracking.uri, Dataset.read(data)
    train, test = _split(dataset, settings, unsafe_no_groups)
    # The whole of it: a slice under two patients may stand on both sides of the split.
    check_valid(dataset)
    with Client(url) as client:
        facts = client.model(model)
        version = str(facts["version"])
        console.print(f"synthetic slices: version {version} ({model}) at {url}", markup=False)
        _check_factors(facts, train)
        patients = _model_patients(facts, train, uri)
        source = service_source(client, version)
        filtered = service_source(client, version, filtered=True) if facts.get("filter") else None
        report = compare_arms(
            train, test, settings, source, patients, console, filtered=filtered,
            unsafe_no_groups=unsafe_no_groups,
        )  # fmt: skip
    print_report(report, console)
    write_report(report, out, {0: test.images[test.labelled]})
    console.print(f"written: {out / 'downstream.json'}, {out / 'downstream.html'}", markup=False)
    if uri is not None:
        place = record_served(report, out, find(str(facts["model"]), version, uri), uri)
        console.print(f"in MLflow: version {version}, {place}", markup=False)


def _split(dataset: Dataset, settings: Config, unsafe_no_groups: bool) -> tuple[Dataset, Dataset]:
    from fastgan_aug.engines.job import training_part
    from fastgan_aug.errors import ConfigError

    train, test = training_part(settings, dataset, unsafe_no_groups=unsafe_no_groups)
    if test is None:
        raise ConfigError(
            f"configuration {settings.name!r} keeps no patients for a test",
            allowed="data.test_fraction above 0",
            do="use the configuration the model was trained with, with a test_fraction",
        )
    return train, test


def _check_factors(facts: Mapping[str, Any], train: Dataset) -> None:
    """Verifies that the model's cells name the same labels as the data's: the order counts.

    Raises:
        DataError: other factors, or in another order.
    """
    from fastgan_aug.errors import DataError

    names, own = tuple(facts["factors"]), train.meta.space.names
    if names != own:
        raise DataError(
            f"the data have the factors {', '.join(own)}",
            allowed=f"the model's, in their order: {', '.join(names)}",
            do="give the data set that the model was trained on",
        )


def _model_patients(
    facts: Mapping[str, Any], train: Dataset, tracking_uri: str | None
) -> SeenPatients:
    """The patients the served version saw, by its own checkpoint where MLflow is known.

    Raises:
        LeakageError: they are unknown, or MLflow has another checkpoint than the one served.
        RegistryError: MLflow could not be reached, or has no such version.
    """
    from downstream.service import trained_patients
    from fastgan_aug.engines.mlflow_registry import fetch
    from fastgan_aug.errors import LeakageError
    from fastgan_aug.gan.checkpoint import read_meta

    if tracking_uri is None:
        return trained_patients(facts, train)
    with TemporaryDirectory(prefix="fastgan-aug-") as cache:
        found = fetch(str(facts["model"]), str(facts["version"]), tracking_uri, Path(cache))
        assert found.folder is not None
        meta = read_meta(found.folder)
    if meta.digest != facts["checkpoint"]:
        raise LeakageError(
            f"MLflow's {found.uri} is another checkpoint than the one that is served",
            allowed="the MLflow that the service takes its models from",
            do="give its address with --tracking-uri",
        )
    return seen_by(meta.lineage)


def seen_by(lineage: Lineage) -> SeenPatients:
    """The patients that a checkpoint's lineage tells of."""
    from fastgan_aug.data.pseudonyms import SeenPatients

    return SeenPatients(lineage.pseudonym_key, frozenset(lineage.patient_digests), lineage.grouping)


def compare_arms(
    train: Dataset,
    test: Dataset,
    settings: Config,
    source: SyntheticSource,
    patients: SeenPatients | None,
    console: Console,
    *,
    filtered: SyntheticSource | None = None,
    unsafe_no_groups: bool = False,
) -> UsefulnessReport:
    """Runs the experiment under a progress bar.

    Args:
        train: Real slices of the training patients.
        test: Real slices of other patients.
        settings: Whose ``downstream`` and ``augment`` sections count.
        source: Of synthetic slices.
        patients: Those the model saw, None where nobody knows.
        console: Shows the bar.
        filtered: Source through the version's filter, where it has one.
        unsafe_no_groups: Whether data without patients are taken.
    """
    from downstream.experiment import run_experiment

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("fitting", total=None)
        return run_experiment(
            train,
            test,
            settings.downstream,
            settings.augment,
            source,
            seen=patients,
            filtered=filtered,
            unsafe_no_groups=unsafe_no_groups,
            progress=lambda what, done, total: bar.update(
                task, description=what, completed=done, total=total
            ),
        )


def print_report(report: UsefulnessReport, console: Console) -> None:
    """Prints the arms' tables, the verdicts and the notes."""
    if report.caveat:
        console.print(report.caveat, style="bold red", markup=False)
    for judgement in report.judgements:
        _print_judgement(judgement, sum(report.test_slices), console)
    for curve in report.curves:
        _print_curve(curve, console)
    for note in report.notes:
        console.print(f"note: {note}", markup=False)


def _print_judgement(judgement: Judgement, test_slices: int, console: Console) -> None:
    from downstream.report import usefulness_table

    rows = usefulness_table(judgement)
    shown = [name for name in rows[0] if name not in HIDDEN]
    table = Table(
        *map(escape, shown), box=None, title=f"{judgement.classifier}, {test_slices} test slices"
    )
    for row in rows:
        table.add_row(*(row[name].replace(" [", "\n[") for name in shown))
    console.print(table)
    console.print(judgement.how, markup=False)
    if judgement.own_choice is not None:
        console.print(judgement.own_choice.told, markup=False)
    for c in judgement.comparisons:
        console.print(f"{c.arm} against {c.rival}: [bold]{c.verdict}[/], {c.reason}.")
        if c.detectable is not None:
            gain = f"a true gain of {c.detectable:.3f}" if c.detectable < 1 else "no gain at all"
            console.print(f"  {gain} would have been found with a power of 0.8")


def _print_curve(curve: LearningCurve, console: Console) -> None:
    heads = ("rare slices", "patients", "best real arm", "its macro-F1", "gain")
    table = Table(*heads, box=None, title=f"{curve.classifier}: {escape(curve.arm)}")
    for point in curve.points:
        gain, score = point.gain, point.rival_score
        table.add_row(
            str(point.rare_slices), str(point.rare_patients), escape(point.rival),
            f"{score.value:.3f}", f"{gain.value:+.3f}\n\\[{gain.low:+.3f}, {gain.high:+.3f}]",
        )  # fmt: skip
    console.print(table)
    for point in curve.points:
        if (worth := point.worth).value is not None:
            console.print(
                f"  with {point.rare_slices} slices one more patient is worth "
                f"{worth.value:.0f} synthetic slices ({worth.low:.0f} to {worth.high:.0f})"
            )


def write_report(
    report: UsefulnessReport, folder: Path, images: Mapping[int, NDArray[np.float32]] | None = None
) -> None:
    """Writes ``downstream.json`` and ``downstream.html``.

    Args:
        report: The report.
        folder: Of both.
        images: Test slices of each fold, for the examples.

    Raises:
        StorageError: the folder cannot be written.
    """
    from fastgan_aug.cli.downstream_page import write_usefulness_page
    from fastgan_aug.storage import replace_when_complete

    with replace_when_complete(folder / "downstream.json") as temporary:
        temporary.write_text(report.to_json(), encoding="utf-8")
    write_usefulness_page(report, folder / "downstream.html", images)
