"""Results of `benchmarks.proof` as tables and picture of docs/proof.md: `benchmarks.proof_table`.

- `python -m benchmarks.proof_table proof-8 proof-16` prints all arms, a column a setting;
- `--arm ARM` prints one synthetic arm instead, a row a setting, with p values counted over the
  settings (Holm), first over the best rival of all, then over rivals without the rule;
- `--curve FILE` draws the learning curve over rivals without the rule, where the results have one.
"""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from benchmarks.measure import RESULTS
from benchmarks.proof import WITHOUT_RULE
from benchmarks.proof_phantom import RAREST
from downstream.learning_curve import LearningCurve
from downstream.statistics.paired import holm
from fastgan_aug.cli.downstream_plots import learning


def number(value: float, digits: int = 3) -> str:
    """A share without its zero.

    >>> number(0.6391), number(0.5, 2)
    ('.639', '.50')
    """
    return f"{value:.{digits}f}".removeprefix("0")


def p_text(p: float) -> str:
    """Three decimals, or the first digit of a smaller one.

    >>> p_text(0.0404), p_text(0.00012)
    ('.040', '1e-04')
    """
    return number(p) if p >= 0.0005 else f"{p:.0e}"


def gain(judgement: Mapping[str, Any], arm: str) -> str:
    """An arm's gain over the rival, in points, with its interval; empty where nobody asked."""
    if arm == judgement["rival"]:
        return "*the rival*"
    tests = {c["arm"]: c["difference"] for c in judgement["comparisons"]} | judgement["oracle"]
    if arm not in tests:
        return ""
    test, words = tests[arm], {c["arm"]: c["verdict"] for c in judgement["comparisons"]}
    told = f"{100 * test['value']:+.1f} ({100 * test['low']:.1f} to {100 * test['high']:.1f})"
    word = words.get(arm, "NO EVIDENCE")
    return told if word == "NO EVIDENCE" else f"{told} **{word}**"


def print_arms(settings: Mapping[str, tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """All arms, best arm of the first setting first; judgements over all rivals, and without."""
    scores = {
        setting: {arm["name"]: arm for arm in of_all["arms"]}
        for setting, (of_all, _) in settings.items()
    }
    first = next(iter(scores.values()))
    print("| arm | " + " | ".join(f"{s} | over rivals without the rule" for s in settings) + " |")
    print("|---|" + "---|---|" * len(settings))
    for arm in sorted(first, key=lambda name: -first[name]["macro_f1"]["value"]):
        cells = [arm]
        for setting, (_, without) in settings.items():
            found = scores[setting].get(arm)
            cells.append("" if found is None else
                         f"{number(found['macro_f1']['value'])} "
                         f"({number(found['recall'][RAREST]['value'], 2)})")  # fmt: skip
            cells.append(gain(without, arm))
        print("| " + " | ".join(cells) + " |")


def print_over_settings(judgements: Mapping[str, dict[str, Any]], arm: str) -> None:
    """One arm's gains, a row a setting, and their p values counted over the settings."""
    tests = {
        setting: next(c for c in judgement["comparisons"] if c["arm"] == arm)
        for setting, judgement in judgements.items()
    }
    counted = holm([test["difference"]["p"] for test in tests.values()])
    print("| setting | rival | its macro-F1 | the arm's | gain | of each replicate "
          "| p | p over the settings | share |")  # fmt: skip
    print("|---" * 9 + "|")
    for (setting, test), p in zip(tests.items(), counted, strict=True):
        arms = judgements[setting]["arms"]
        scores = {a["name"]: a["macro_f1"]["value"] for a in arms}
        by_fold = {a["name"]: np.mean(a["each"], axis=1) for a in arms}
        each = ", ".join(f"{100 * gain:+.1f}" for gain in by_fold[arm] - by_fold[test["rival"]])
        share = test["recovered"] or {}
        told = share.get("reason") or "no oracle"
        if share.get("low") is not None:
            told = f"{share['value']:.0%} ({share['low']:.0%} to {share['high']:.0%})"
        print(f"| {setting} | {test['rival']} | {number(scores[test['rival']])} "
              f"| {number(scores[arm])} | {gain(judgements[setting], arm)} | {each} "
              f"| {p_text(test['difference']['p'])} | {p_text(p)} | {told} |")  # fmt: skip


def draw(curves: Sequence[dict[str, Any]], file: Path) -> None:
    """The learning curve as a PNG picture."""
    read = TypeAdapter(list[LearningCurve]).validate_python(curves)
    file.write_bytes(base64.b64decode(learning(read).partition(",")[2]))


def main() -> None:
    """Prints what is asked."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("results", nargs="+", help="names of files in benchmarks/results")
    words.add_argument("--arm")
    words.add_argument("--curve", type=Path, metavar="FILE")
    asked = words.parse_args()
    settings: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for name in asked.results:
        found = json.loads((RESULTS / f"{name}.json").read_text())
        reports = found["reports"]
        for setting in [key for key in reports if WITHOUT_RULE not in key]:
            both = (reports[setting], reports[f"{setting}, {WITHOUT_RULE}"])
            settings[setting] = both[0]["judgements"][0], both[1]["judgements"][0]
        if asked.curve and found["curves"][WITHOUT_RULE]:
            draw(found["curves"][WITHOUT_RULE], asked.curve)
    if asked.arm is None:
        print_arms(settings)
        return
    for question, title in enumerate(("over the best rival of all", "over " + WITHOUT_RULE)):
        print(f"\n{title}\n")
        print_over_settings({name: both[question] for name, both in settings.items()}, asked.arm)


if __name__ == "__main__":
    main()
