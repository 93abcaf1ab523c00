"""All arms of several settings as a table of docs/proof.md: `benchmarks.proof_table`.

It reads what `benchmarks.proof` wrote: `python -m benchmarks.proof_table proof-8 proof-16`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.measure import RESULTS
from benchmarks.proof import RAREST, WITHOUT_RULE


def number(value: float, digits: int = 3) -> str:
    """A share without its zero.

    >>> number(0.6391), number(0.5, 2)
    ('.639', '.50')
    """
    return f"{value:.{digits}f}".removeprefix("0")


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


def main() -> None:
    """Prints the table, best arm of the first setting first."""
    settings: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for name in sys.argv[1:]:
        reports = json.loads((RESULTS / f"{name}.json").read_text())["reports"]
        for setting in [key for key in reports if WITHOUT_RULE not in key]:
            both = (reports[setting], reports[f"{setting}, {WITHOUT_RULE}"])
            settings[setting] = both[0]["judgements"][0], both[1]["judgements"][0]
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


if __name__ == "__main__":
    main()
