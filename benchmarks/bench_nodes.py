"""Compare `ingest` on a cluster of two nodes with one of a single node: wall and CPU time.

    python benchmarks/bench_nodes.py [--quick]

Generated JPEGs of 640 × 480 px. All nodes and the driver are processes of this machine, and each node has one
CPU; CPU time is that of all of them. A round measures one node, then two, after every worker has run.
"""

import os
import secrets
import statistics
import tempfile
from pathlib import Path

from _bench import make_images, parse_options, write_section
from bench_engines import measure

_ROUNDS = 3


def measure_nodes(folder: Path, few: Path, many: Path) -> list[list[tuple[float, float, str]]]:
    """Return what one node and two took, in each round."""
    import ray  # noqa: PLC0415 - it reads RAY_AUTH_MODE when it is imported
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    os.environ["RAY_ADDRESS"] = cluster.address
    rounds = []
    for number in range(_ROUNDS):
        found = []
        for n_nodes in (1, 2):
            second = cluster.add_node(num_cpus=1) if n_nodes == 2 else None
            measure(few, folder / f"start-{number}-{n_nodes}", "ray", n_nodes)
            found.append(measure(many, folder / f"{number}-{n_nodes}", "ray", n_nodes))
            if second:
                cluster.remove_node(second)
        rounds.append(found)
    ray.shutdown()
    cluster.shutdown()
    return rounds


def main() -> None:
    options = parse_options(__doc__)
    n = options.pick(200, 5_000)
    with tempfile.TemporaryDirectory() as name:
        folder, token = Path(name), Path(name, "token")
        token.write_text(secrets.token_hex(32))
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        make_images(folder / "few", 200)
        make_images(folder / "many", n)
        rounds = measure_nodes(folder, folder / "few", folder / "many")
    if len({manifest for found in rounds for _, _, manifest in found}) > 1:
        raise SystemExit("the manifests differ")
    walls, cpus = ([two[at] / one[at] for one, two in rounds] for at in (0, 1))
    busy = statistics.median(one[1] / one[0] for one, _ in rounds)
    lines = [
        f"| `ingest --engine ray` of {n:,} images, two nodes to one | wall | CPU |",
        "| --- | --- | --- |",
        f"| median of {_ROUNDS} rounds | {statistics.median(walls):.2f} | {statistics.median(cpus):.2f} |",
        f"| range | {min(walls):.2f}–{max(walls):.2f} | {min(cpus):.2f}–{max(cpus):.2f} |",
        "",
        f"All share this machine with the driver; with one node {busy:.2f} cores were busy. "
        "The manifests have one SHA-256.",
    ]
    write_section("Two nodes", lines, ("ray", "pyarrow", "numpy", "simplejpeg"))


if __name__ == "__main__":
    main()
