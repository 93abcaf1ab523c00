"""Scores of a run's checkpoints: made as they are written, kept in the run's folder."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from fastgan_aug.config import Config, SelectionConfig
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.errors import CheckpointError
from fastgan_aug.gan.checkpoint import checkpoint_name, checkpoints, prune, read_manifest
from fastgan_aug.gan.synthesizer import Synthesizer
from fastgan_aug.quality.selection import Judge, Score, exhausted, ranked
from fastgan_aug.storage import replace_when_complete

log = logging.getLogger(__name__)
SCORES = "scores.json"
"""In the run's folder, beside the checkpoints: it outlives those that are not kept."""


def read_scores(folder: Path) -> list[Score]:
    """A run's scores, oldest first; empty where nothing was scored.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        values = json.loads((folder / SCORES).read_text(encoding="utf-8"))
        return [Score.of(value) for value in values]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / SCORES} cannot be read: {error}",
            do="remove it: `fastgan-aug select RUN --data DATA` scores the checkpoints again",
        ) from error


def write_scores(folder: Path, scores: list[Score]) -> None:
    """Replaces a run's scores.

    Raises:
        StorageError: the file cannot be written.
    """
    ordered = sorted(scores, key=lambda score: score.images_seen)
    with replace_when_complete(folder / SCORES) as temporary:
        temporary.write_text(json.dumps([s.to_dict() for s in ordered], indent=1), "utf-8")


def score_missing(folder: Path, judge: Judge) -> list[Score]:
    """Scores every checkpoint of a run that has no score of its present weights, writes them down.

    Scores of weights that are there no more are kept as the run's history, but for those of a
    checkpoint of the same name and those beyond the newest one: the run went another way.

    Returns:
        All scores, oldest first.
    """
    there = {path.name: _manifest_digest(path) for path in checkpoints(folder)}
    newest = max(there, default="")
    known = read_scores(folder)
    scores = [
        score
        for score in known
        if (name := checkpoint_name(score.images_seen)) <= newest
        and there.get(name, score.checkpoint) == score.checkpoint
    ]
    scored = {score.checkpoint for score in scores}
    missing = [folder / name for name, digest in there.items() if digest and digest not in scored]
    scores += [score for path in missing if (score := _score(path, judge)) is not None]
    if scores != known:
        write_scores(folder, scores)
    return sorted(scores, key=lambda score: score.images_seen)


def _score(checkpoint: Path, judge: Judge) -> Score | None:
    """None for a damaged one, which is passed over."""
    try:
        synthesizer = Synthesizer.load(checkpoint)
    except CheckpointError as error:
        log.warning("not scored: %s", error)
        return None
    return judge.score(synthesizer)


def _manifest_digest(checkpoint: Path) -> str | None:
    """None where there is none; the files themselves are verified when they are loaded."""
    try:
        return read_manifest(checkpoint).digest
    except CheckpointError:
        return None


def kept_scores(folder: Path) -> list[Score]:
    """The scores of those checkpoints of a run that are still there, oldest first."""
    digests = {_manifest_digest(path) for path in checkpoints(folder)}
    return [score for score in read_scores(folder) if score.checkpoint in digests]


def best_checkpoint(folder: Path) -> Path | None:
    """The kept checkpoint of a run with the best score; None where none was scored."""
    kept = ranked(kept_scores(folder))
    return folder / checkpoint_name(kept[0].images_seen) if kept else None


@dataclass
class Scorer:
    """Rank 0's: scores checkpoints as they come, keeps the best and says when to stop.

    Attributes:
        folder: Of the run.
        judge: Real slices and seeds, the same for the whole run; None scores nothing.
        settings: Best ones to keep, and patience.
        keep: Newest ones to keep.
    """

    folder: Path
    judge: Judge | None
    settings: SelectionConfig
    keep: int
    scores: list[Score] = field(default_factory=list)

    def catch_up(self) -> list[Score]:
        """Scores what is there and has no score, then removes what is not to be kept.

        Returns:
            The new scores.
        """
        before = {score.checkpoint for score in self.scores}
        if self.judge:
            self.scores = score_missing(self.folder, self.judge)
        best = ranked(self.scores)[: self.settings.best]
        prune(self.folder, self.keep, [checkpoint_name(s.images_seen) for s in best])
        return [score for score in self.scores if score.checkpoint not in before]

    @property
    def enough(self) -> bool:
        """Whether the score has not improved for as long as the settings allow."""
        stop = exhausted(self.scores, self.settings.patience)
        if stop:
            log.info("no better checkpoint in %d scorings: stopping", self.settings.patience)
        return stop


def scorer_of(folder: Path, config: Config, fitted: Dataset, validation: Dataset | None) -> Scorer:
    """Scores, or where no samples are asked for only keeps the newest.

    Args:
        folder: Of the run.
        config: Of the run.
        fitted: The slices that the steps see.
        validation: Those of patients who only choose the checkpoint; None where there are none.
    """
    settings = config.selection
    judge = Judge(fitted, validation, settings.samples) if settings.samples else None
    if judge is not None and not judge.cells:
        log.warning("no cell has slices of two patients to be held against: nothing is scored")
        judge = None
    return Scorer(folder, judge, settings, config.training.keep)
