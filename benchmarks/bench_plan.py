"""Compare the cost of a plan with counting its cells in DuckDB.

    python benchmarks/bench_plan.py [--quick]

A manifest of generated rows in ten bins of valence and six subtypes: 60 cells. The plan levels the bins,
ranks every image and names every copy; DuckDB counts rows per split, bin and subtype. Required: at most five
times the time of DuckDB (target: twice).
"""

import duckdb
from _bench import compare, make_table, parse_options, write_section

from affectdata.plan.planner import plan_rows
from affectdata.recipe.recipe import find_recipe, read_recipe

COUNT = "SELECT split, least(floor(valence / 10), 9) AS bin, subtype, count(*) FROM rows GROUP BY ALL"


def main() -> None:
    options = parse_options(__doc__)
    n = options.pick(20_000, 1_000_000)
    rows, recipe = make_table(n), read_recipe(find_recipe("valence_bins"))
    plan = plan_rows(rows, recipe)
    no_copies = recipe.model_copy(update={"balance": recipe.balance.model_copy(update={"max_copies": 1})})
    connection = duckdb.connect()
    connection.register("rows", rows)
    ways = {
        "plan": lambda: plan_rows(rows, recipe),
        "plan, no copies": lambda: plan_rows(rows, no_copies),
        "DuckDB counts the cells": lambda: connection.sql(COUNT).fetchall(),
    }
    lines = compare(ways, options.pick(1, 9))
    summary = f"{n:,} rows, {len(plan.cells)} cells; the plan has {len(plan.table):,} rows."
    write_section("Plan", [summary, "", *lines], ("pyarrow", "duckdb"))


if __name__ == "__main__":
    main()
