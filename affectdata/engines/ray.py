"""Ray Core tasks: on this machine, or on the cluster that RAY_ADDRESS names; needs the extra `ray`.

Tasks, not Ray Data, which keeps no order by default. A task whose worker or node is lost runs again. Every
node must read and write the paths that the driver does, and must have the same affectdata and the same
libraries that decide pixels: a node that differs is refused, as its rows would differ.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from affectdata.engines import threads
from affectdata.errors import InputError
from affectdata.hashing import canonical_json, file_hash
from affectdata.images.decode import pixel_versions
from affectdata.images.phash import grey_thumbnail, hash_thumbnail
from affectdata.recipe.transforms import Step
from affectdata.render.render import canaries
from affectdata.workers import keep_freed_memory, use_one_thread

In = TypeVar("In")
Out = TypeVar("Out")
_RETRIES = 4  # of a task whose worker or node is lost
# What OpenCV rounds differently on other CPUs.
_PIPELINES: dict[str, list[Step]] = {
    "warp": [
        {"Affine": {"rotate": [5, 10], "interpolation": "cubic", "border_mode": "reflect_101", "p": 1.0}}
    ],
    "blur": [{"GaussianBlur": {"p": 1.0}}],
    "hue": [{"HueSaturationValue": {"p": 1.0}}],
    "size": [{"RandomResizedCrop": {"size": [50, 60], "interpolation": "cubic", "p": 1.0}}],
}


def default_workers() -> int:
    """Return the number of CPUs of the cluster, or of this machine without one."""
    if not (ray.is_initialized() or os.environ.get("RAY_ADDRESS")):
        return threads.default_workers()
    _connect(1)
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def map_ordered(fn: Callable[[In], Out], batches: Iterable[In], workers: int) -> Iterator[Out]:
    """Yield `fn(batch)` for every batch (`workers.map_ordered`).

    Ray decides how many of the `2 * workers` tasks under way run at a time: as many as there are CPUs.

    Raises:
        InputError: a node has other versions than the driver or computes other pixels, or a batch was lost
            with its worker again and again.
    """
    _connect(workers)
    expected = _describe()
    job = _Job(ray.put(fn), _check_nodes(expected), expected, str(Path.cwd()))
    shared = [ray.put(job)]
    window: deque[Any] = deque()
    try:
        for batch in batches:
            window.append(_run_task.remote(shared, batch))
            if len(window) >= 2 * workers:
                yield _take(window)
        while window:
            yield _take(window)
    finally:
        for task in window:
            ray.cancel(task)


def _connect(workers: int) -> None:
    """Connect to the cluster of RAY_ADDRESS, or start Ray here for the life of this process."""
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        options |= {"num_cpus": max(workers, 1), "include_dashboard": False}
    try:
        ray.init(address=address or "local", **options)
    except ConnectionError as error:
        raise InputError(
            f"cannot connect to Ray: {error}",
            where=f"RAY_ADDRESS={address}",
            fix="start the cluster, or unset RAY_ADDRESS to run Ray on this machine",
        ) from error


@dataclass(frozen=True)
class _Job:
    """What all tasks of one `map_ordered` share: the function, the nodes that were checked, and how.

    The workers of a node read the arrays of the function in its object store, where there is one copy.
    """

    function: Any  # a reference, so that it is not unpickled before its folder is set
    nodes: frozenset[str]
    expected: dict[str, str]
    folder: str  # relative paths begin there


_FUNCTIONS: dict[str, Callable[[Any], Any]] = {}  # in a worker: the function of its last task, by job


def _run(shared: list[Any], batch: Any) -> Any:
    """Apply the function of a job to a batch, in a worker; the first time, set the worker up.

    The job is in a list so that it is not sent with every batch.
    """
    name = shared[0].hex()
    if name not in _FUNCTIONS:
        keep_freed_memory()
        pa.set_memory_pool(pa.system_memory_pool())  # the variable comes too late for a process of Ray's
        use_one_thread()
        job: _Job = ray.get(shared[0])
        context = ray.get_runtime_context()
        if context.get_node_id() not in job.nodes:  # it joined after the check
            _compare(ray.util.get_node_ip_address(), _describe(), job.expected)
        os.chdir(job.folder)
        _FUNCTIONS.clear()
        _FUNCTIONS[name] = ray.get(job.function)
    return _FUNCTIONS[name](batch)


_run_task = ray.remote(max_retries=_RETRIES)(_run)


def _take(window: deque[Any]) -> Any:
    """Wait for the first task, and return what it returned or raise what it raised."""
    try:
        return ray.get(window.popleft())
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        raise InputError(
            f"a batch was lost with its worker {1 + _RETRIES} times: {str(error).strip().splitlines()[0]}",
            fix="give the nodes more memory, or use fewer --workers; the same command goes on from here",
        ) from error


def _describe() -> dict[str, str]:
    """Return what decides bytes and pixels in this process."""
    image = np.random.default_rng(1).integers(0, 256, (96, 128, 3), np.uint8)
    pixels = [canaries(_PIPELINES), hash_thumbnail(grey_thumbnail(image))]
    canary = file_hash(canonical_json(pixels).encode())[:16]
    return {"affectdata": version("affectdata"), **pixel_versions(), "canary": canary}


_describe_node = ray.remote(num_cpus=0)(_describe)


def _check_nodes(expected: dict[str, str]) -> frozenset[str]:
    """Compare every node with the driver, which is `expected`; return the nodes that agree.

    Raises:
        InputError: a node differs, or has no affectdata.
    """
    addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    tasks = {
        node: _describe_node.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote()
        for node in addresses
    }
    agreed = set()
    for node, task in tasks.items():
        try:
            found = ray.get(task)
        except RayTaskError as error:
            raise InputError(
                f"node {addresses[node]} cannot run affectdata: {error.cause}",
                fix="install the same affectdata there",
            ) from error
        except RayError:
            continue  # the node was removed; if it is not, its workers check themselves
        _compare(addresses[node], found, expected)
        agreed.add(node)
    return frozenset(agreed)


def _compare(node: str, found: dict[str, str], expected: dict[str, str]) -> None:
    """Refuse a node that would give other bytes.

    Raises:
        InputError: names the node and what differs.
    """
    differs = [
        f"{name} {found.get(name, 'missing')} instead of {expected[name]}"
        for name in expected
        if found.get(name) != expected[name]
    ]
    if differs:
        raise InputError(
            f"node {node} would give other results than this machine: {', '.join(differs)}",
            where="only the canary differs: the node has another kind of CPU" if len(differs) == 1 else "",
            fix="install the same versions on every node, or remove it from the cluster",
        )
