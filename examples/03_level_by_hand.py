"""Balance from Python without writing files: compare several caps on copies.

python examples/03_level_by_hand.py manifests/gaped.parquet
"""

import sys

import affectdata
from affectdata.plan.planner import plan_release
from affectdata.recipe.recipe import find_recipe, parse_recipe, read_recipe

manifest = affectdata.load_manifest(sys.argv[1])
recipe = read_recipe(find_recipe("valence_bins"))
for cap in (1, 2, 4, 8, 16):
    document = recipe.document()
    document["balance"]["max_copies"] = cap
    rows, plan = plan_release([manifest], [], parse_recipe(document))
    smallest = min(plan.cells, key=lambda cell: cell.n_eff / cell.n_after)
    print(
        f"at most {cap:2} copies: {rows.num_rows} images become {plan.table.num_rows}, "
        f"largest over smallest bin {plan.summary()['imbalance_ratio']['after']:.2f}; "
        f"{smallest.cell}: {smallest.n_after} rows, effective sample size {smallest.n_eff:.0f}"
    )
