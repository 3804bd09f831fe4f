"""Compare the heads of train-check with scikit-learn's, on the same generated features.

    python benchmarks/bench_heads.py [--quick]

As many rows and features as an arm of GAPED has with the default network. Required: the SVR is fitted and
evaluated in half of the CPU time of scikit-learn's SVR(kernel="rbf"), with equal predictions.
"""

import numpy as np
from _bench import compare, parse_options, write_section
from sklearn.svm import SVR
from threadpoolctl import threadpool_limits

from affectdata.train.svr import RbfSVR

_SETTINGS = {"C": 100.0, "gamma": 0.5 / 1280, "epsilon": 3.0}


def main() -> None:
    options = parse_options(__doc__)
    n, rng = options.pick(100, 600), np.random.default_rng(0)
    x, new = rng.normal(size=(n, 1280)), rng.normal(size=(n // 4, 1280))
    y = np.clip(50 + 20 * x[:, :20].mean(1) * np.sqrt(20) + rng.normal(0, 10, n), 0, 100)
    models = {"RbfSVR": RbfSVR(**_SETTINGS), "scikit-learn's SVR": SVR(**_SETTINGS)}
    with threadpool_limits(1):
        found = [model.fit(x, y).predict(new) for model in models.values()]
        ways = {name: lambda model=model: model.fit(x, y).predict(new) for name, model in models.items()}
        lines = compare(ways, options.pick(1, 9))
    largest = float(np.abs(found[0] - found[1]).max())
    summary = f"{n} rows, 1,280 features, one thread; predictions differ by at most {largest:.1g} of 100."
    write_section("Heads", [summary, "", *lines], ("numpy", "scikit-learn"))


if __name__ == "__main__":
    main()
