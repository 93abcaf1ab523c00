"""`fastgan-aug sample`: ask for images, from a service or a checkpoint, into a file or a folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fastgan_aug.errors import BalanceError, ConfigError
from fastgan_aug.target import Target

if TYPE_CHECKING:
    from serving.asking import Asker
    from serving.bulk import Row, ShardWriter
    from serving.offline import OfflineClient
    from serving.protocol import Chunk, Header, Outcome
    from serving.request import BatchRequest

EXAMPLE = (
    'Example: fastgan-aug sample --counts "COR/normal=129,COR/bilateral=52" --out batch.parquet'
)
CHECKPOINT = "_checkpoint"  # of a registered version, in the folder that it fills


def sample(
    counts: Annotated[
        str, typer.Option(help="Real images there are: a JSON file, or CELL=N,CELL=N.")
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="Parquet file; or a folder of them, made here, also s3://BUCKET/PREFIX.",
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(help="Desired count after filling: majority, minority, N, JSON, CELL=N,..."),
    ] = "majority",
    model: Annotated[str, typer.Option(help="Alias or version.")] = "champion",
    seed: Annotated[int, typer.Option(help="The same seed gives the same images.")] = 0,
    max_ratio: Annotated[float | None, typer.Option(help="Most synthetic per real image.")] = None,
    allow_unseen: Annotated[
        bool, typer.Option("--allow-unseen", help="Also cells without training images.")
    ] = False,
    filtered: Annotated[
        bool, typer.Option("--filter", help="Have the version's filter judge each image.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what each cell would get and why, no more.")
    ] = False,
    url: Annotated[str, typer.Option(help="The service.")] = "http://127.0.0.1:8000",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Sample this checkpoint folder here, without a service.")
    ] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="Sample --model of this MLflow here, without a service.")
    ] = None,
    name: Annotated[
        str, typer.Option(help="Registered model, with --tracking-uri.")
    ] = "fastgan-aug",
    local: Annotated[
        bool, typer.Option("--local", help="A folder: by processes here instead of Ray Data.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="A folder: workers; by default one per CPU.")
    ] = None,
) -> None:
    """Get the images that fill every cell up to the target.

    From the service at --url; or, with --checkpoint or --tracking-uri, made here: into one Parquet
    file, or into a folder of any number of images, here or in an object store, which goes on where
    it was ended. The same seed gives the same images either way.
    """
    from serving.asking import request_of
    from serving.request import FILTER

    file = _is_file(out, dry_run, here=checkpoint is not None or tracking_uri is not None)
    request = request_of(
        parse_counts(counts, "counts"), parse_target(target), model=model, seed=seed,
        max_ratio=max_ratio, allow_unseen=allow_unseen, filter=FILTER if filtered else None,
    )  # fmt: skip
    console = Console()
    with ExitStack() as opened:
        source = _Source(opened, url, checkpoint, tracking_uri, name)
        if dry_run or out is None:
            print_plan(source.asker(request).planned(request), console)
        elif file:
            header, outcome = _into_file(source.asker(request), request, Path(out))
            print_plan(header, console, out)
            print_outcome(outcome, console)
        else:
            on_ray = not local and _has_ray()
            header, folder = source.header(request, out, on_ray=on_ray)
            print_plan(header, console)
            _into_folder(out, header, folder, on_ray=on_ray, workers=workers)
            console.print(f"{header.plan.total_generate} images: {out}", soft_wrap=True)


@dataclass(frozen=True)
class _Source:
    """Who makes the images: a service, a checkpoint, or a registered version."""

    opened: ExitStack
    url: str
    checkpoint: Path | None
    tracking_uri: str | None
    name: str

    def asker(self, request: BatchRequest) -> Asker:
        from serving.client import Client

        if self.checkpoint is None and self.tracking_uri is None:
            return self.opened.enter_context(Client(self.url))
        return self._offline(request, Path(self._temporary()))

    def header(self, request: BatchRequest, out: str, *, on_ray: bool) -> tuple[Header, Path]:
        """What goes into a folder, and the checkpoint that every worker of it can read."""
        from serving.bulk import check_folder
        from serving.out_folder import OutFolder

        folder = OutFolder.of(out)
        check_folder(folder)
        if self.checkpoint is None and on_ray and not folder.is_local:
            _check_workers_are_here(out)
        # Beside the images all workers see it, and the next command needs not fetch it again.
        cache = Path(folder.path) / CHECKPOINT if folder.is_local else Path(self._temporary())
        client = self._offline(request, cache)
        return client.planned(request), client.folder

    def _offline(self, request: BatchRequest, cache: Path) -> OfflineClient:
        from serving.offline import OfflineClient

        if self.checkpoint is not None:
            return OfflineClient(self.checkpoint)
        from fastgan_aug.engines.mlflow_registry import fetch

        assert self.tracking_uri is not None
        found = fetch(self.name, request.model, self.tracking_uri, cache)
        assert found.folder is not None
        return OfflineClient(
            found.folder, name=found.name, version=found.version, alias=request.model,
            run_id=found.run_id or "",
        )  # fmt: skip

    def _temporary(self) -> str:
        from tempfile import TemporaryDirectory

        return self.opened.enter_context(TemporaryDirectory(prefix="fastgan-aug-"))


def _is_file(out: str | None, dry_run: bool, *, here: bool) -> bool:
    """Whether ``--out`` names one file rather than a folder; refuses what cannot be done."""
    from serving.out_folder import is_address

    if out is None:
        if not dry_run:
            raise typer.BadParameter("say where to, or --dry-run", param_hint="--out")
        return False
    file = out.endswith(".parquet")
    if file and is_address(out):
        raise ConfigError(
            "--out names one file, which is written on this machine",
            allowed="a .parquet file here; in an object store a folder: s3://BUCKET/PREFIX",
            do="leave .parquet out: the shards in that folder get names of their own",
        )
    if not (file or here or dry_run):
        raise ConfigError(
            "--out names a folder, which is filled here without a service",
            allowed="--checkpoint or --tracking-uri with a folder; a .parquet file with a service",
            do="give the checkpoint, or name a file: --out batch.parquet",
        )
    return file


def _check_workers_are_here(out: str) -> None:
    from fastgan_aug.engines.ray_cluster import is_cluster

    if is_cluster():
        raise ConfigError(
            f"--tracking-uri with --out {out}: the version would be fetched to this machine, and "
            "the cluster of RAY_ADDRESS has others",
            allowed="on a cluster --checkpoint, or an --out folder that all its machines share",
            do="fetch the version's files (`mlflow artifacts download`) into a folder that all "
            "machines share, and give that as --checkpoint",
        )


def _into_file(client: Asker, request: BatchRequest, out: Path) -> tuple[Header, Outcome]:
    from serving.asking import counted
    from serving.parquet import write_parquet
    from serving.protocol import Answer, add_outcome

    answer, outcome = client.answer(request), dict[str, dict[str, int]]()

    def told() -> Iterator[Chunk]:
        for chunk in counted(answer, progress=True):
            add_outcome(outcome, chunk)
            yield chunk

    write_parquet(Answer(answer.header, told()), out)
    return answer.header, outcome


def _into_folder(
    out: str, header: Header, checkpoint: Path, *, on_ray: bool, workers: int | None
) -> None:
    from serving.bulk import sample_into
    from serving.progress import shown

    with ExitStack() as opened:
        engine = partial(_on_cores, workers=workers)
        if on_ray:
            engine = partial(_on_ray, opened, workers=workers)
        before = 0
        advance = opened.enter_context(shown(True, header.plan.total_generate))
        for done in sample_into(out, header, checkpoint.resolve(), engine):
            advance(done - before)
            before = done


def _has_ray() -> bool:
    from importlib.util import find_spec

    return find_spec("ray") is not None


def _on_cores(writer: ShardWriter, rows: list[Row], workers: int | None) -> Iterable[Row]:
    from fastgan_aug.engines.tasks import on_all_cores

    return on_all_cores(workers)(writer, rows)


def _on_ray(
    opened: ExitStack, writer: ShardWriter, rows: list[Row], workers: int | None
) -> Iterable[Row]:
    import ray

    from fastgan_aug.engines.ray_cluster import ray_cluster
    from fastgan_aug.engines.ray_data import map_on_ray_data

    opened.enter_context(ray_cluster())
    cpus = int(ray.cluster_resources().get("CPU", 1))
    return map_on_ray_data(writer, rows, workers or cpus)


def parse_counts(text: str, what: str) -> dict[str, int]:
    """Reads a JSON file, or ``CELL=N,CELL=N``.

    Raises:
        BalanceError: neither of them.
    """
    path = Path(text)
    try:
        if path.suffix == ".json":
            plain = json.loads(path.read_text(encoding="utf-8"))
        else:
            pairs = [part.rpartition("=") for part in text.split(",")]
            plain = {key.strip(): int(n) for key, _, n in pairs}
            if len(plain) != len(pairs):
                raise ValueError("a cell stands there twice")
        if not isinstance(plain, Mapping):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise BalanceError(
            f"{what} {text!r} cannot be read: {error}",
            allowed="a .json file {cell: count}, or CELL=N,CELL=N",
            do='write for example "COR/normal=129,COR/bilateral=52"',
        ) from error
    return dict(plain)


def parse_target(text: str) -> Target:
    """Reads a word (``majority``), an integer, or what ``parse_counts`` reads.

    Raises:
        BalanceError: none of them.
    """
    if text.lstrip("+-").isdecimal():
        return int(text)
    return parse_counts(text, "target") if "=" in text or text.endswith(".json") else text


def print_outcome(outcome: Outcome, console: Console) -> None:
    """Shows what the filter did in each cell; nothing where none judged the images."""
    if not outcome:
        return
    names = list(next(iter(outcome.values())))
    table = Table("cell", *(name.replace("_", " ") for name in names), title="filter")
    for cell, told in outcome.items():
        table.add_row(escape(cell), *(str(told[name]) for name in names))
    console.print(table)
    if unfilled := sum(told["unfilled"] for told in outcome.values()):
        console.print(
            f"Warning: {unfilled} places stay unfilled: no image made for them was accepted"
        )


def print_plan(header: Header, console: Console, out: str | None = None) -> None:
    """Shows what each cell has, wants and gets, and why; then who generates it."""
    from fastgan_aug.balance import COLUMNS

    table = Table(*COLUMNS)
    for row in header.plan.rows():
        table.add_row(*(escape(str(text)) for text in row))
    console.print(table)
    for warning in header.plan.warnings:
        console.print(f"Warning: {warning}", markup=False)
    origin, total = header.provenance, header.plan.total_generate
    place = f": {out}" if out else ""
    console.print(
        f"{total} images by {origin.model} version {origin.version}, seed {origin.seed}{place}",
        soft_wrap=True,
    )
