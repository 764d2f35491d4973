"""Write the demo's table: customers of a made-up streaming service, and who left.

    python scripts/make_demo.py gpupipe/data/demo/churn.csv

The table is synthetic; the same bytes come out on every machine, because everything is made
from uniform numbers of NumPy's PCG64.
"""

from __future__ import annotations

import csv
import datetime
import math
import sys
from pathlib import Path

import numpy as np

ROWS, REPEATS, SEED = 4_000, 12, 20_240_229
PLANS = {"basic": 0.46, "plus": 0.33, "family": 0.205, "business": 0.005}
REGIONS = {"north": 0.22, "south": 0.2, "east": 0.17, "west": 0.17, "centre": 0.14, "islands": 0.1}
PAYMENTS = {"card": 0.5, "direct debit": 0.26, "wallet": 0.15, "voucher": 0.09}
FEES = {"basic": 8.99, "plus": 13.99, "family": 18.99, "business": 49.0}
TODAY = datetime.date(2024, 6, 30)

Row = dict[str, object]


def pick(u: float, shares: dict[str, float]) -> str:
    """The category whose share the uniform number ``u`` falls into."""
    for name, share in shares.items():
        u -= share
        if u < 0:
            return name
    return name


def customer(number: int, u: np.ndarray) -> Row:
    """One customer from 20 uniform numbers."""
    plan, region, payment = pick(u[0], PLANS), pick(u[1], REGIONS), pick(u[2], PAYMENTS)
    days = int(-math.log(1 - u[3] * 0.985) * 520) + 12
    tenure = days // 30
    discount = u[4] < (0.35 if tenure < 6 else 0.12)
    fee = round(FEES[plan] * (0.75 if discount else 1) + (1.5 if u[5] < 0.2 else 0), 2)
    appetite = -math.log(1 - u[6] * 0.999)
    hours = round(appetite * {"basic": 14, "plus": 22, "family": 41, "business": 60}[plan], 1)
    idle = int(-math.log(1 - u[7] * 0.999) * (3 + 16 / (1 + appetite)))
    calls = int(-math.log(1 - u[8] * 0.999) * (1.1 if region != "islands" else 2.0))
    devices = 1 + int(u[9] * {"basic": 2, "plus": 4, "family": 7, "business": 12}[plan])
    age = 18 + int(62 * u[10] ** 1.4)
    mood = 4.4 - 0.55 * calls - 0.03 * idle + 2.2 * (u[11] - 0.5)
    rating = min(5, max(1, round(mood)))

    odds = -3.6
    odds += 2.6 if tenure <= 3 else 0.9 if tenure <= 8 else 0.0  # early months are fragile
    odds += 2.6 if discount and 9 <= tenure <= 16 else 0.0  # a discount that is about to end
    odds += 2.2 if idle > 21 else 0.7 if idle > 9 else 0.0
    odds += 1.9 if calls >= 3 else 0.8 if calls == 2 else 0.0
    odds += 1.8 if hours < 6 and plan != "basic" else 0.0  # pays for more than is watched
    odds += 1.2 if region == "islands" and hours > 25 else 0.0  # a slow line, and it shows
    odds += 1.3 if 22 <= age <= 31 and plan == "basic" else 0.0
    odds += {"voucher": 1.3, "wallet": 0.3}.get(payment, 0.0)
    odds += {"family": -0.5, "business": -2.0}.get(plan, 0.0)
    odds -= 0.3 * (rating - 3)
    leaves = u[12] < 1 / (1 + math.exp(-1.25 * odds))

    return {
        "customer_id": f"C{number * 7919 % 99_991:05d}",
        "signup_date": (TODAY - datetime.timedelta(days=days)).isoformat(),
        "plan": plan,
        "region": region,
        "payment": "" if u[13] < 0.02 else payment,
        "age": "" if u[14] < 0.08 else age,
        "monthly_fee": f"{fee:.2f}",
        "discount": "true" if discount else "false",
        "devices": devices,
        "watch_hours": "" if u[15] < 0.06 else hours,
        "days_since_login": idle,
        "support_calls": calls,
        "rating": "" if u[16] < 0.35 else rating,
        "churned": "yes" if leaves else "no",
    }


def make() -> list[Row]:
    """All rows: 4,000 customers, and 12 of them a second time, as exports have it."""
    random = np.random.Generator(np.random.PCG64(SEED))
    uniform = random.random((ROWS, 20))
    rows = [customer(i + 1, u) for i, u in enumerate(uniform)]
    for u in random.random((REPEATS, 2)):
        rows.insert(int(u[0] * len(rows)), rows[int(u[1] * ROWS)])
    return rows


def main(path: Path) -> None:
    rows = make()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
