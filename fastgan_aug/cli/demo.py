"""`fastgan-aug demo`: the whole path on one data set, on real components."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fastgan_aug.errors import StageFailed
from fastgan_aug.storage import replace_when_complete

if TYPE_CHECKING:
    import numpy as np

    from downstream.report import UsefulnessReport
    from fastgan_aug.config import Config
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.engines.job import FitResult
    from fastgan_aug.engines.mlflow_registry import RegisteredVersion
    from fastgan_aug.quality.counts import CountsRow
    from fastgan_aug.quality.faithfulness import Faithfulness
    from serving.batch import BalancedBatch

STAGES = ("data", "start", "fit", "judge", "register", "serve", "request", "downstream", "report")
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
    from fastgan_aug.config import load_config

    resolved = load_config(config)
    folder = out or Path("runs") / f"{resolved.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    run_demo(resolved, data, folder, Console(), keep_serving=keep_serving)


@dataclass
class DemoResults:
    """What the stages gave; each is filled by the stage of its name.

    Attributes:
        config: Everything it was decided by.
        folder: Where the files are.
        seconds: Of each stage.
    """

    config: Config
    folder: Path
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
    tracking_uri: str = ""
    version: RegisteredVersion = field(init=False)
    url: str = ""
    batch: BalancedBatch = field(init=False)
    usefulness: UsefulnessReport = field(init=False)

    @contextmanager
    def stage(self, name: str, console: Console) -> Iterator[None]:
        """Times a stage and announces it."""
        number = f"{STAGES.index(name) + 1}/{len(STAGES)}"
        console.print(f"[bold cyan]\\[{number}][/] [bold]{name}[/]")
        begun = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begun
        console.print(f"      [dim]{self.seconds[name]:.1f} s[/]")

    def summary(self) -> dict[str, Any]:
        """The figures, as JSON values."""
        return {
            "config": self.config.to_dict(),
            "config_digest": self.config.digest,
            "dataset_digest": self.dataset.digest,
            "train_digest": self.train.digest,
            "model": self.version.uri,
            "run_id": self.fit.run_id,
            "tracking_uri": self.tracking_uri,
            "service": self.url,
            "checkpoint": self.fit.checkpoint.name,
            "images_per_second": self.images_per_second,
            "seconds": self.seconds,
            "counts": [asdict(row) for row in self.counts],
            "faithfulness": asdict(self.faithfulness),
            "batch": {"images": len(self.batch), "plan": self.batch.plan.to_dict()},
            "usefulness": self.usefulness.to_dict(),
        }


def run_demo(
    config: Config, data: Path | None, folder: Path, console: Console, *, keep_serving: bool = False
) -> DemoResults:
    """Runs all stages and leaves no process behind.

    Raises:
        StageFailed: a stage's result is missing, constant or NaN.
        FastGANAugError: whatever a stage raises.
    """
    from fastgan_aug.cli.demo_report import write_report
    from fastgan_aug.engines.mlflow_server import open_command

    results = DemoResults(config, folder.resolve())
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as running:
        with results.stage("data", console):
            _data(results, data, console)
        with results.stage("start", console):
            _start(results, running, console)
        with results.stage("fit", console):
            _fit(results, console)
        with results.stage("judge", console):
            _judge(results, console)
        with results.stage("register", console):
            _register(results, console)
        with results.stage("serve", console):
            _serve(results, running, console)
        with results.stage("request", console):
            _request(results, console)
        with results.stage("downstream", console):
            _downstream(results, console)
        with results.stage("report", console):
            figures = _finite_json(results)
            page = write_report(results)
            with replace_when_complete(results.folder / "results.json") as temporary:
                temporary.write_text(figures)
        _farewell(results, page, open_command(results.folder), console)
        if keep_serving:
            _wait(results, console)
    return results


def _data(results: DemoResults, path: Path | None, console: Console) -> None:
    from fastgan_aug.data.contact_sheet import contact_sheet
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.data.phantom import make_phantom
    from fastgan_aug.engines.job import training_part

    if path is not None:
        results.dataset = Dataset.read(path)
    else:
        with console.status("  simulating patients"):
            results.dataset = make_phantom(results.config.phantom)
    results.dataset.write(results.folder / "data.parquet")
    results.train, test = training_part(results.config, results.dataset)
    if test is None:
        raise StageFailed(
            "no patients are kept for the test",
            allowed="data.test_fraction above 0",
            do="set data.test_fraction in the configuration",
        )
    results.test = test
    (results.folder / "data.png").write_bytes(contact_sheet(results.dataset))
    for name, part in (("training", results.train), ("test", results.test)):
        counts = ", ".join(f"{cell} {n}" for cell, n in part.class_counts.items())
        console.print(f"      {name}: {len(part.patients)} patients; {counts}")


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
    console.print(f"      MLflow at {results.tracking_uri}")


def _fit(results: DemoResults, console: Console) -> None:
    from fastgan_aug.cli.train import fit_with_progress
    from fastgan_aug.engines.job import FitJob

    job = FitJob(results.config, results.train, results.folder / "fit", results.tracking_uri)
    begun = time.perf_counter()
    results.fit, results.curve = fit_with_progress(job, console)
    results.images_per_second = median(p["images_per_second"] for p in results.curve)
    seen, seconds = results.curve[-1]["images_seen"], time.perf_counter() - begun
    console.print(
        f"      {seen:.0f} images in {seconds:.0f} s; "
        f"{results.images_per_second:.0f} images/s once the workers run"
    )
    if results.fit.run_id is None:
        raise StageFailed("MLflow has no run of the fit", do="see the log of the MLflow server")


def _judge(results: DemoResults, console: Console) -> None:
    from fastgan_aug.gan.synthesizer import Synthesizer
    from fastgan_aug.quality.counts import counts_table
    from fastgan_aug.quality.faithfulness import faithfulness
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
        results.train, results.samples, results.sample_cells, factor, real_test=results.test,
        steps=settings.steps, batch=settings.batch, learning_rate=settings.learning_rate,
        width=settings.width,
    )  # fmt: skip
    console.print(_counts_view(results))
    console.print(
        f"      a classifier trained on real slices is right on "
        f"{results.faithfulness.synthetic:.1%} of the synthetic slices and on "
        f"{results.faithfulness.real:.1%} of real test slices (mean over classes; chance "
        f"{results.faithfulness.chance:.1%})"
    )


def _seeds(wanted: list[Any], sample_seed: Any) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.asarray([sample_seed(0, str(cell), i) for cell, i in wanted], np.uint64)


def _require_alive(results: DemoResults) -> None:
    """A generator whose images are NaN, constant, or all the same has failed."""
    import numpy as np

    images = results.samples
    if not np.isfinite(images).all() or min(float(i.std()) for i in images) < 1e-3:
        raise StageFailed("synthetic slices are NaN or constant", do="train longer")
    if float(images.std(axis=0).max()) < 1e-3:
        raise StageFailed(
            "all synthetic slices are the same", do="train longer, or change the seed"
        )


def _counts_view(results: DemoResults) -> Table:
    table = Table("cell", "n", "MC real", "MC synth.", "LR real", "LR synth.",
                  "|log LR| real", "|log LR| synth.", "SD real", "SD synth.", box=None)  # fmt: skip
    for row in results.counts:
        table.add_row(
            row.cell, str(row.n), f"{row.mc_real:.3f}", f"{row.mc_synthetic:.3f}",
            f"{row.left_right_real:.3f}", f"{row.left_right_synthetic:.3f}",
            f"{row.asymmetry_real:.3f}", f"{row.asymmetry_synthetic:.3f}",
            f"{row.sd_map_real:.3f}", f"{row.sd_map_synthetic:.3f}",
        )  # fmt: skip
    return table


def _register(results: DemoResults, console: Console) -> None:
    from fastgan_aug.engines.mlflow_registry import register

    assert results.fit.run_id is not None
    results.version = register(
        results.fit.checkpoint,
        uri=results.tracking_uri,
        model_name=results.config.tracking.model,
        run_id=results.fit.run_id,
    )
    console.print(f"      {results.version.uri}, alias candidate")


def _serve(results: DemoResults, running: ExitStack, console: Console) -> None:
    from fastgan_aug.engines.mlflow_server import free_port
    from serving.deployment import start_service, stop_service

    serving = results.config.serving.model_copy(update={"port": free_port()})
    running.callback(stop_service)
    with console.status("  starting Ray Serve"):
        results.url = start_service(
            serving, results.tracking_uri, results.config.tracking.model, results.version.version
        )
    console.print(f"      {results.url} serves version {results.version.version}")


def _request(results: DemoResults, console: Console) -> None:
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


def _downstream(results: DemoResults, console: Console) -> None:
    from downstream.service import service_source
    from fastgan_aug.cli.downstream import compare_arms, print_report
    from serving.client import Client

    with Client(results.url) as client:
        results.usefulness = compare_arms(
            results.train, results.test, results.config,
            service_source(client, results.version.version),
            results.train.patient_digests, console,
        )  # fmt: skip
    print_report(results.usefulness, console)


def _finite_json(results: DemoResults) -> str:
    try:
        return json.dumps(results.summary(), indent=1, allow_nan=False)
    except ValueError as error:
        raise StageFailed(
            "a figure is NaN or infinite", do="train longer; see the report"
        ) from error


def _farewell(results: DemoResults, page: Path, open_ui: str, console: Console) -> None:
    console.print(f"\n[bold green]done[/] in {sum(results.seconds.values()):.0f} s")
    console.print(f"report      {page}")
    console.print(f"data, batch, checkpoints, MLflow   {results.folder}")
    console.print(f"look into MLflow   {open_ui}", soft_wrap=True)
    console.print(
        f"lineage     fastgan-aug lineage {results.folder / 'batch.parquet'}", soft_wrap=True
    )


def _wait(results: DemoResults, console: Console) -> None:
    page = (
        f"{results.tracking_uri}/#/models/{results.version.name}/versions/{results.version.version}"
    )
    console.print(
        f"\nservice     {results.url}/docs\nMLflow      {page}\n[bold]Ctrl-C ends both[/]"
    )
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        console.print("ending")
