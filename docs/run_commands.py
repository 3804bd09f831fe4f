"""Run every command of README and documentation in folders of generated images, by an installed package.

    python docs/run_commands.py ENV/bin

ENV is an environment with the package, such as the empty one that `make wheel` makes. What needs an extra
must say so (exit code 5) where it is missing. Addresses need the network and are left out, and so is
plugins.md, which needs the plugin of the example. This script needs no package.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ("gaped", "oasis", "fi", "utkface", "wikiart_emotions", "image_folder")
EXTRAS = ("groups", "predict", "publish", "report", "study", "suggest", "train-check")
FINDINGS = ("diff", "doctor")  # exit code 1 if there are any
PLACEHOLDERS = {
    "RECIPE": "weights_only",
    "releases/valence_bins-…": "releases/current",
    "releases/a-01234567 releases/a-89abcdef": "releases/current releases/current",
    "releases/theirs": "releases/current",
    "releases/mine": "releases/current",
    "wikiart/": "wikiart_emotions/",
    "sample gaped gaped/": "sample gaped sampled/",
}
SMALL_SET = "{name: pair, cells: {valence: {low: [0, 50], high: [50, 100]}}, n: 2}"
_COMMAND = re.compile(
    r'^ *(?:- run: |cmd: )?(affectdata .*)$|^ *shell: "(affectdata .*)"$|^Example: `(affectdata .*)`$', re.M
)
_PYTHON = re.compile(r"^```python\n(import csv\n.*?)^```", re.M | re.S)
_MAP = re.compile(r"^```yaml\n(.*?name: (?:rated|my_pictures)\n.*?)^```", re.M | re.S)
_SET = re.compile(r"^```yaml\n(name: negative_positive\n.*?)^```", re.M | re.S)


def sections() -> Iterator[tuple[str, str]]:
    """Yield name and text of what runs in a folder of its own: a page, or a section of some."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        if page.name in ("howto.md", "projects.md"):
            yield from ((f"{page.stem}: {part.splitlines()[0]}", part) for part in text.split("\n## ")[1:])
        elif page.name == "commands.md":  # other lines are synopses
            yield page.stem, "\n".join(re.findall("^Example: .*", text, re.M))
        elif page.name != "plugins.md":
            yield page.stem, text


def main() -> int:
    """Run all commands, print those that fail, and return their number."""
    binaries = Path(sys.argv[1]).resolve()
    environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "GITHUB_STEP_SUMMARY": "summary"}
    environment.pop("PYTHONPATH", None)
    n_run = n_failed = 0
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder, "samples")
        for name in (*SOURCES, "capd"):
            shell(f"affectdata sample {name} {samples / name}", Path(folder), environment)
        for number, (title, text) in enumerate(sections()):
            commands = ["".join(found) for found in _COMMAND.findall(text)]
            place = Path(folder, str(number))
            if commands:
                prepare(title, text, place, samples, environment)
            for command in commands:
                for placeholder, value in PLACEHOLDERS.items():
                    command = command.replace(placeholder, value)
                code = run(command, place, environment)
                n_run += code is not None
                if code is not None and code not in expected(command):
                    n_failed += 1
                    print(f"{title}: {command}: exit code {code}")
    print(f"{n_run} commands run, {n_failed} failed")
    return min(n_failed, 1)


def prepare(title: str, text: str, place: Path, samples: Path, environment: dict[str, str]) -> None:
    """Fill a folder with what the commands of a text read."""
    place.mkdir()
    for name in SOURCES:
        shutil.copytree(samples / name, place / name)
    for name in ("data/mine", "new"):
        shutil.copytree(samples / "image_folder", place / name)
    if "capd.csv" in text:
        shutil.rmtree(place / "gaped")
        shutil.copytree(samples / "capd", place, dirs_exist_ok=True)
    write_my_pictures(place)
    for name, found in (("columns.yaml", _MAP.search(text)), ("set.yaml", _SET.search(text))):
        if found:
            (place / name).write_text(found[1], encoding="utf-8")
    if not (place / "set.yaml").is_file():
        (place / "set.yaml").write_text(SMALL_SET, encoding="utf-8")
    for script in _PYTHON.findall(text):
        (place / "draw.py").write_text(script, encoding="utf-8")
        shell("python draw.py", place, environment)
    for command in commands_before(title, text):
        shell(f"affectdata {command}", place, environment)


def commands_before(title: str, text: str) -> tuple[str, ...]:
    """Return the commands of which a text takes the results."""
    if title.startswith("projects"):
        return ()
    if "recipes/mine.yaml" in text:
        return ("ingest data/mine", "init .")
    return ("ingest gaped", "ingest oasis", "balance --recipe valence_bins --link releases/current")


def write_my_pictures(place: Path) -> None:
    """Write the folder of the README, and two images."""
    images = sorted((place / "gaped").rglob("*.bmp"))
    (place / "my_pictures").mkdir()
    rows = ["file,val_mean,val_sd,aro_mean,category"]
    for number, image in enumerate(images[:60]):
        shutil.copy(image, place / "my_pictures" / f"{number}.bmp")
        rows.append(f"{number}.bmp,{random.Random(number).uniform(1, 9):.2f},1.5,4,{'ab'[number % 2]}")
    (place / "my_pictures" / "ratings.csv").write_text("\n".join(rows), encoding="utf-8")
    for name, image in zip(("a.jpg", "b.jpg"), images, strict=False):
        shutil.copy(image, place / name)


def run(command: str, place: Path, environment: dict[str, str]) -> int | None:
    """Run a command; None if it cannot run here."""
    if (
        command.startswith("affectdata download")
        or "://" in command
        or "FOLDER" in command
        or "ROOT" in command
    ):
        return None
    if command.startswith("affectdata export") and "--i-may-redistribute" not in command:
        command = command.partition(" #")[0] + " --i-may-redistribute"
    result = subprocess.run(
        ["bash", "-c", command], cwd=place, env=environment, capture_output=True, text=True
    )
    if result.returncode not in expected(command):
        print(result.stderr)
    return result.returncode


def expected(command: str) -> tuple[int, ...]:
    """Return the exit codes that a command may have."""
    name = command.split()[1]
    return (0, 1, 5) if name in EXTRAS or "--engine" in command else (0, 1) if name in FINDINGS else (0,)


def shell(command: str, place: Path, environment: dict[str, str]) -> None:
    """Run a command that must succeed."""
    subprocess.run(["bash", "-c", command], cwd=place, env=environment, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
