"""Makes up a table of subscribers, and who of them left: python make_data.py

    data/subscribers.csv    for training and evaluation
    new.csv                 the same columns, rows that the pipeline never sees

The rows are drawn from a random generator with a fixed seed: nobody in them is real, and they are the same each time.
What makes somebody leave is in `chance_of_leaving`. It looks at plan and price together: the network has to find out.
"""

import csv
from pathlib import Path

import numpy as np

ROWS = {"data/subscribers.csv": 3000, "new.csv": 500}
PLANS = {"basic": 9.0, "plus": 15.0, "family": 24.0}  # and what they cost a month, on average
COUNTRIES = ["AT", "BE", "CH", "DE", "FR", "IT", "NL", "PL"]
PAYMENTS = ["card", "direct debit", "invoice", "voucher"]


def chance_of_leaving(row: dict) -> float:
    """Between 0 and 1."""
    score = 0.8 * row["support_calls"] - 0.05 * row["months"] + 0.06 * row["days_since_login"] - 1.0
    score += {"voucher": 2.5, "invoice": 0.5}.get(row["payment"], 0.0)
    score += 0.8 * (row["monthly_fee"] - PLANS[row["plan"]])  # more than the plan costs on average
    score += {"CH": -1.0, "PL": 1.0}.get(row["country"], 0.0)
    return 1 / (1 + np.exp(-2 * score))


def subscriber(random: np.random.Generator) -> dict:
    """One row. One in ten never logged in, so that there is no number of days."""
    plan = str(random.choice(list(PLANS)))
    row = {
        "plan": plan,
        "country": str(random.choice(COUNTRIES)),
        "payment": str(random.choice(PAYMENTS, p=[0.5, 0.25, 0.15, 0.1])),
        "months": int(random.integers(1, 73)),
        "monthly_fee": round(float(random.normal(PLANS[plan], 1.5)), 2),
        "support_calls": int(random.poisson(1.0)),
        "days_since_login": round(float(random.exponential(12.0)), 1),
    }
    row["left"] = int(random.random() < chance_of_leaving(row))
    if random.random() < 0.1:
        row["days_since_login"] = ""
    return row


def main() -> None:
    random = np.random.default_rng(0)
    for name, count in ROWS.items():
        file = Path(name)
        file.parent.mkdir(exist_ok=True)
        rows = [subscriber(random) for _ in range(count)]
        with open(file, "w", newline="", encoding="utf-8") as lines:
            writer = csv.DictWriter(lines, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        print(f"Wrote {count} rows to {file}, {np.mean([row['left'] for row in rows]):.0%} of them left.")


if __name__ == "__main__":
    main()
