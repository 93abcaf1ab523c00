"""`fastgan-aug demo`: the whole path on one data set, on real components."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fastgan_aug.engines.mlflow_client import without_password
from fastgan_aug.errors import StageFailed, StorageError
from fastgan_aug.storage import replace_when_complete

if TYPE_CHECKING:
    import numpy as np

    from downstream.report import UsefulnessReport
    from fastgan_aug.cli.evaluate import Judged
    from fastgan_aug.config import Config
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.engines.job import FitResult
    from fastgan_aug.engines.mlflow_registry import RegisteredVersion
    from fastgan_aug.quality.clinical.counts import CountsRow
    from fastgan_aug.quality.likeness.faithfulness import Faithfulness
    from serving.batch import BalancedBatch

HELP = """Run the whole path: data, fit on Ray Train, judge, register in MLflow, serve on Ray Serve,
request a balanced batch, classify with and without it, report.

Examples:

  fastgan-aug demo

  fastgan-aug demo --data my-slices.parquet --out runs/mine

  fastgan-aug demo --keep-serving
"""


def register_commands(app: typer.Typer) -> None:
    """Adds ``demo``."""
    app.command("demo", help=HELP)(demo_command)


def demo_command(
    data: Annotated[Path | None, typer.Option(help="A data set instead of the phantom.")] = None,
    config: Annotated[
        str, typer.Option(help="Configuration: a TOML file or a shipped name.")
    ] = "demo",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results. [default: runs/NAME-TIME]")
    ] = None,
    keep_serving: Annotated[
        bool, typer.Option(help="Leave the service and MLflow up until Ctrl-C.")
    ] = False,
) -> None:
    """Runs the demo."""
    from fastgan_aug.cli.signals import sigterm_as_ctrl_c
    from fastgan_aug.config import load_config

    sigterm_as_ctrl_c()
    resolved = load_config(config)
    folder = out or Path("runs") / f"{resolved.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    run_demo(resolved, data, folder, Console(), keep_serving=keep_serving)


@dataclass
class DemoResults:
    """What the stages gave; each is filled by the stage of its name.

    Attributes:
        config: Everything it was decided by.
        folder: Where the files are.
        source: The data set's file; None where the phantom is drawn.
        seconds: Of each stage.
    """

    config: Config
    folder: Path
    source: Path | None
    seconds: dict[str, float] = field(default_factory=dict)
    dataset: Dataset = field(init=False)
    train: Dataset = field(init=False)
    test: Dataset = field(init=False)
    fit: FitResult = field(init=False)
    images_per_second: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    samples: np.ndarray[Any, Any] = field(init=False)
    sample_cells: list[str] = field(init=False)
    counts: list[CountsRow] = field(init=False)
    faithfulness: Faithfulness = field(init=False)
    judged: Judged = field(init=False)
    tracking_uri: str = ""
    version: RegisteredVersion = field(init=False)
    url: str = ""
    batch: BalancedBatch = field(init=False)
    usefulness: UsefulnessReport = field(init=False)
    page: Path = field(init=False)

    def summary(self) -> dict[str, Any]:
        """The figures, as JSON values."""
        return {
            "config": self.config.record(),
            "config_digest": self.config.digest,
            "dataset_digest": self.dataset.digest,
            "train_digest": self.train.digest,
            "model": self.version.uri,
            "run_id": self.fit.run_id,
            "tracking_uri": without_password(self.tracking_uri),
            "service": self.url,
            "checkpoint": self.fit.checkpoint.name,
            "images_per_second": self.images_per_second,
            "seconds": self.seconds,
            "counts": [asdict(row) for row in self.counts],
            "faithfulness": asdict(self.faithfulness),
            "quality": self.judged.report.verdict.to_dict(),
            "batch": {"images": len(self.batch), "plan": self.batch.plan.to_dict()},
            "usefulness": self.usefulness.to_dict(),
        }


def run_demo(
    config: Config, data: Path | None, folder: Path, console: Console, *, keep_serving: bool = False
) -> DemoResults:
    """Runs all stages and leaves no process behind.

    Raises:
        StageFailed: a stage's result is missing, constant or NaN.
        StorageError: the folder already holds results.
        FastGANAugError: whatever a stage raises.
    """
    if folder.exists() and any(folder.iterdir()):
        raise StorageError(f"{folder} is not empty", do="choose another --out")
    results = DemoResults(config.for_data(data is not None), folder.resolve(), data)
    folder.mkdir(parents=True, exist_ok=True)
    stages = (_data, _start, _fit, _judge, _register, _serve, _request, _downstream, _report)
    with ExitStack() as running:
        for number, stage in enumerate(stages, start=1):
            name = stage.__name__.removeprefix("_")
            console.print(f"[bold cyan]\\[{number}/{len(stages)}][/] [bold]{name}[/]")
            begun = time.perf_counter()
            stage(results, running, console)
            results.seconds[name] = time.perf_counter() - begun
            console.print(f"      [dim]{results.seconds[name]:.1f} s[/]")
        _farewell(results, console)
        if keep_serving:
            _wait(results, console)
    return results


def _data(results: DemoResults, running: ExitStack, console: Console) -> None:
    from fastgan_aug.data.contact_sheet import contact_sheet
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.data.phantom.population import write_phantom
    from fastgan_aug.data.validation.validate import check_valid
    from fastgan_aug.engines.job import FitJob, training_part
    from fastgan_aug.engines.tasks import on_all_cores

    if results.config.phantom is None:
        assert results.source is not None
        results.dataset = Dataset.read(results.source)
        check_valid(results.dataset)  # all of it: the split itself may leak
    else:
        with console.status("  simulating patients"):
            write_phantom(results.config.phantom, results.folder / "data.parquet", on_all_cores())
        results.dataset = Dataset.read(results.folder / "data.parquet")
    results.train, test = training_part(results.config, results.dataset)
    if test is None:
        raise StageFailed(
            "no patients are kept for the test",
            allowed="data.test_fraction above 0",
            do="set data.test_fraction in the configuration",
        )
    results.test = test
    FitJob(results.config, results.train, results.folder / "fit").check()
    (results.folder / "data.png").write_bytes(contact_sheet(results.dataset))
    for name, part in (("training", results.train), ("test", results.test)):
        counts = ", ".join(f"{cell} {n}" for cell, n in part.class_counts.items())
        console.print(f"      {name}: {len(part.patients)} patients; {counts}", markup=False)


def _start(results: DemoResults, running: ExitStack, console: Console) -> None:
    from fastgan_aug.engines.mlflow_server import free_port, tracking_server
    from fastgan_aug.engines.ray_cluster import ray_cluster

    config = results.config
    with console.status("  starting the MLflow server and Ray"), ThreadPoolExecutor(1) as beside:
        if config.tracking.uri is None:
            server = tracking_server(results.folder, free_port())
            starting = beside.submit(running.enter_context, server)
        running.enter_context(ray_cluster(config.engine.timeout))
        results.tracking_uri = config.tracking.uri or starting.result()
    console.print(f"      MLflow at {without_password(results.tracking_uri)}")


def _fit(results: DemoResults, running: ExitStack, console: Console) -> None:
    from fastgan_aug.cli.train import fit_with_progress
    from fastgan_aug.engines.job import FitJob

    job = FitJob(results.config, results.train, results.folder / "fit", results.tracking_uri)
    begun = time.perf_counter()
    results.fit, results.curve = fit_with_progress(job, console)
    if not results.curve or results.fit.run_id is None:
        raise StageFailed(
            "the fit told of no progress, or MLflow has no run of it",
            do="see the log of the MLflow server in the results' folder",
        )
    results.images_per_second = median(p["images_per_second"] for p in results.curve)
    seen, seconds = results.curve[-1]["images_seen"], time.perf_counter() - begun
    console.print(
        f"      {seen:.0f} images in {seconds:.0f} s; "
        f"{results.images_per_second:.0f} images/s once the workers run"
    )


def _judge(results: DemoResults, running: ExitStack, console: Console) -> None:
    from fastgan_aug.gan.synthesizer import Synthesizer
    from fastgan_aug.quality.clinical.counts import counts_table
    from fastgan_aug.quality.likeness.classifier import FitSettings
    from fastgan_aug.quality.likeness.faithfulness import faithfulness
    from serving.protocol import sample_seed

    synthesizer = Synthesizer.load(results.fit.checkpoint)
    wanted = [(c, i) for c, n in results.train.class_counts.items() for i in range(n)]
    cells = [c for c, _ in wanted]
    results.sample_cells = [str(c) for c in cells]
    results.samples = synthesizer.generate(cells, _seeds(wanted, sample_seed))
    _require_alive(results)
    results.counts = counts_table(results.train, results.samples, results.sample_cells)
    settings = results.config.downstream
    factor = settings.factor or results.dataset.meta.space.names[-1]
    results.faithfulness = faithfulness(
        results.train, results.samples, results.sample_cells, factor, FitSettings.of(settings),
        real_test=results.test,
    )  # fmt: skip
    console.print(_counts_view(results))
    console.print(
        f"      a classifier trained on real slices is right on "
        f"{results.faithfulness.synthetic:.1%} of the synthetic slices and on "
        f"{results.faithfulness.real:.1%} of real test slices (mean over classes; chance "
        f"{results.faithfulness.chance:.1%})"
    )
    _gate(results, console)


def _gate(results: DemoResults, console: Console) -> None:
    """The quality report, as `fastgan-aug evaluate` writes it."""
    from fastgan_aug.cli.evaluate import judge_checkpoint, write_report
    from fastgan_aug.quality.plain_words import lines_of

    results.judged = judge_checkpoint(
        results.fit.checkpoint, results.dataset, results.config.quality, console
    )
    write_report(results.judged, results.folder / "quality")
    verdict = results.judged.report.verdict
    lines = lines_of(verdict)
    good = sum(line.passed for line in lines)
    console.print(f"      quality {verdict}: {good} of {len(lines)} questions answered well")


def _seeds(wanted: list[Any], sample_seed: Any) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.asarray([sample_seed(0, str(cell), i) for cell, i in wanted], np.uint64)


def _require_alive(results: DemoResults) -> None:
    """Images that are NaN or constant, or a cell whose images are all the same, fail the stage."""
    import numpy as np

    names = np.asarray(results.sample_cells)
    if not np.isfinite(results.samples).all() or results.samples.std(axis=(1, 2)).min() < 1e-3:
        raise StageFailed("synthetic slices are NaN or constant", do="train longer")
    for cell in dict.fromkeys(results.sample_cells):
        images = results.samples[names == cell]
        if len(images) > 1 and float(images.std(axis=0).max()) < 1e-3:
            raise StageFailed(f"all synthetic slices of {cell} are the same", do="train longer")


def _counts_view(results: DemoResults) -> Table:
    table = Table("cell", "n", "MC real", "MC synth.", "LR real", "LR synth.",
                  "|log LR| real", "|log LR| synth.", "SD real", "SD synth.", box=None)  # fmt: skip
    for row in results.counts:
        table.add_row(
            escape(row.cell), str(row.n), f"{row.mc_real:.3f}", f"{row.mc_synthetic:.3f}",
            f"{row.left_right_real:.3f}", f"{row.left_right_synthetic:.3f}",
            f"{row.asymmetry_real:.3f}", f"{row.asymmetry_synthetic:.3f}",
            f"{row.sd_map_real:.3f}", f"{row.sd_map_synthetic:.3f}",
        )  # fmt: skip
    return table


def _register(results: DemoResults, running: ExitStack, console: Console) -> None:
    from fastgan_aug.engines.mlflow_promotion import record_report
    from fastgan_aug.engines.mlflow_registry import register

    assert results.fit.run_id is not None
    results.version = register(
        results.fit.checkpoint,
        uri=results.tracking_uri,
        model_name=results.config.tracking.model,
        run_id=results.fit.run_id,
    )
    record_report(results.version, results.folder / "quality", results.tracking_uri)
    verdict = results.judged.report.verdict
    console.print(f"      {results.version.uri}, alias candidate, quality = {verdict}")


def _serve(results: DemoResults, running: ExitStack, console: Console) -> None:
    from fastgan_aug.engines.mlflow_server import free_port
    from serving.server.deployment import start_service, stop_service

    serving = results.config.serving.model_copy(update={"port": free_port()})
    running.callback(stop_service)
    with console.status("  starting Ray Serve"):
        results.url = start_service(
            serving, results.tracking_uri, results.config.tracking.model, results.version.version
        )
    console.print(f"      {results.url} serves version {results.version.version}")


def _request(results: DemoResults, running: ExitStack, console: Console) -> None:
    from serving.client import Client

    counts = {str(c): n for c, n in results.train.class_counts.items() if n}
    with Client(results.url) as client:
        results.batch = client.request_balanced_batch(
            counts, target="majority", model=results.version.version
        )
    results.batch.to_parquet(results.folder / "batch.parquet")
    filled = {cell: n + results.batch.cells.count(cell) for cell, n in counts.items()}
    if len(set(filled.values())) != 1:
        raise StageFailed(f"the batch does not fill every cell: {filled}", do="report this")
    console.print(f"      {len(results.batch)} images fill every cell to {max(filled.values())}")


def _downstream(results: DemoResults, running: ExitStack, console: Console) -> None:
    from downstream.service import service_source
    from fastgan_aug.cli.downstream import compare_arms, print_report, seen_by, write_report
    from fastgan_aug.cli.downstream_record import record_served
    from fastgan_aug.gan.checkpoint import read_meta
    from serving.client import Client

    seen = seen_by(read_meta(results.fit.checkpoint).lineage)
    with Client(results.url) as client:
        source = service_source(client, results.version.version)
        told = compare_arms(results.train, results.test, results.config, source, seen, console)
    results.usefulness, folder = told, results.folder / "downstream"
    print_report(told, console)
    write_report(told, folder)
    record_served(told, folder, results.version, results.tracking_uri)


def _report(results: DemoResults, running: ExitStack, console: Console) -> None:
    from fastgan_aug.cli.demo_report import write_report

    try:
        figures = json.dumps(results.summary(), indent=1, allow_nan=False)
    except ValueError as error:
        raise StageFailed("a figure is NaN or infinite", do="train longer") from error
    results.page = write_report(results)
    with replace_when_complete(results.folder / "results.json") as temporary:
        temporary.write_text(figures)


def _farewell(results: DemoResults, console: Console) -> None:
    from fastgan_aug.engines.mlflow_server import open_command

    local = results.config.tracking.uri is None
    lines = {
        f"\ndone in {sum(results.seconds.values()):.0f} s": "",
        "report     ": results.page,
        "quality    ": results.folder / "quality" / "report.html",
        "results    ": results.folder,
        "lineage    ": f"fastgan-aug lineage {results.folder / 'batch.parquet'}",
        "MLflow     ": open_command(results.folder) if local else results.tracking_uri,
    }
    for name, value in lines.items():
        console.print(name, value, markup=False, soft_wrap=True)


def _wait(results: DemoResults, console: Console) -> None:
    place = f"models/{results.version.name}/versions/{results.version.version}"
    page = f"{results.tracking_uri}/#/{place}"
    told = f"\nservice     {results.url}/docs\nMLflow      {page}\n[bold]Ctrl-C ends both[/]"
    console.print(told)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        console.print("ending")
