"""Evidently's verdicts by its own defaults, on windows that lie in a folder.

    python evidently_drift.py FOLDER

FOLDER/reference.npz and FOLDER/window-*.npz hold a column each: numbers, or codes of categories
where the name begins with "c". Prints one JSON line a window: ``{"window", "drifted": [...],
"score": [...], "test": [...], "seconds"}``, the columns in the order of their names. The drift of
each column is judged by the test that `evidently` chooses for it.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from evidently.legacy.calculations.stattests import get_stattest
from evidently.legacy.core import ColumnType

warnings.simplefilter("ignore")


def columns(path: Path) -> dict[str, pd.Series]:
    held = np.load(path)
    return {n: pd.Series(held[n]) if n[0] != "c" else pd.Series(held[n]).astype(str)
            for n in sorted(held.files)}


def main() -> None:
    folder = Path(sys.argv[1])
    reference = columns(folder / "reference.npz")
    for path in sorted(folder.glob("window-*.npz")):
        window, started = columns(path), time.perf_counter()
        answers = []
        for name, now in window.items():
            kind = ColumnType.Categorical if name[0] == "c" else ColumnType.Numerical
            then = reference[name].dropna()
            now = now.dropna()
            test = get_stattest(then, now, kind, None)
            found = test(then, now, kind, None)
            answers.append((bool(found.drifted), float(found.drift_score), test.name))
        drifted, score, test_names = zip(*answers, strict=True)
        print(json.dumps({"window": path.stem, "drifted": drifted, "score": score,
                          "test": test_names, "seconds": time.perf_counter() - started}),
              flush=True)


main()
