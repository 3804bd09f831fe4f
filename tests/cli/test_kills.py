"""A command killed at one of its last file operations and run again gives the bytes of a run without a kill.

The short form of `make torture`, in a process of its own, as it forks; commands with networks are only there.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kills import make_folder, try_kills
from tests.served import serve

NAMES = (
    *("ingest", "ingest --onto", "split", "balance", "concat", "select", "init"),
    *("export --to folders --by subtype", "export --to hf", "export --to webdataset"),
)


@pytest.mark.slow
def test_killed_commands_resume(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.cli.test_kills", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-2000:]


def main(root: Path) -> None:
    """Write a line per failure."""
    with serve(b"") as site:
        make_folder(root / "base", site.address, with_model=False)
    for tally in try_kills(root / "base", root, random.Random(0), kills=4, names=NAMES):
        for failure in tally.failures:
            sys.stdout.write(f"{tally.promise}: {failure}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
