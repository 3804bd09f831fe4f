"""What importing costs, where the doors of heavy libraries are, and what the package's names are."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import affectdata

PACKAGE = Path(affectdata.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
PYPROJECT = PACKAGE.parent / "pyproject.toml"
# By design: the registry loads plugins, and the package itself passes on the public names.
LOADERS = ("affectdata", "affectdata.registry")
HEAVY = ("albumentations", "cv2", "duckdb", "numpy", "pandas", "PIL", "pyarrow", "scipy", "sklearn", "torch")
# Where a heavy library may be imported; everything else reaches it through these modules.
DOORS = {
    "albumentations": ["recipe/transforms.py"],
    "torch": ["train/", "release/dataset.py"],
    "torchvision": ["train/"],
    "sklearn": ["train/", "check/share_metrics.py"],  # heads, and measures of predictions
    "safetensors": ["train/"],
    "captum": ["train/"],
    "httpx2": ["manifest/fetch.py"],  # the network
    "obstore": ["store/objects.py"],
    "ray": ["engines/ray.py"],
    "ctypes": ["workers.py"],  # mallopt: a library must not change its host's allocator
}


@pytest.mark.parametrize(
    "code",
    [
        "import affectdata",
        "from affectdata.cli._main import run; assert run(['--help']) == 0",
        "from affectdata.cli._main import run; assert run(['--version']) == 0",
        "from affectdata.cli._main import run; assert run(['ingest', '--help']) == 0",
        "from affectdata import AffectdataError",
    ],
)
def test_nothing_heavy_is_loaded_by(code: str) -> None:
    check = f"\nimport sys\nfound = [m for m in {HEAVY!r} if m in sys.modules]\nassert not found, found"
    ran = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


COMMANDS = {  # and the libraries that they do without
    "ingest": ("pandas", "openpyxl", "xlrd", "duckdb", "albumentations", "torch", "sklearn", "scipy.sparse"),
    "sources": ("cv2", "scipy", "openpyxl", "torch", "albumentations", "duckdb"),
    "train-check --rules": ("cv2", "scipy", "sklearn", "torch", "albumentations", "duckdb"),
    "schema train-check": ("cv2", "scipy", "sklearn", "torch", "albumentations", "duckdb"),
    "schema recipe": ("cv2", "scipy", "torch", "albumentations", "duckdb"),
    "schema manifest": ("cv2", "scipy", "torch", "albumentations", "duckdb", "pandas"),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_imports_only_what_it_needs(command: str, small_gaped: Path, tmp_path: Path) -> None:
    arguments = [*command.split(), *([small_gaped, "--out", tmp_path] if command == "ingest" else [])]
    code = f"""
import sys
from affectdata.cli._main import main
try:
    main({[str(argument) for argument in arguments]!r})
except SystemExit as end:
    assert not end.code, end.code
found = [name for name in {COMMANDS[command]!r} if sys.modules.get(name)]
assert not found, found
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_a_dataframe_can_be_made_where_pandas_was_left_out() -> None:
    code = """
import sys
from affectdata.cli._main import _import_pandas_late
_import_pandas_late()
import pyarrow
assert "pandas" not in sys.modules
assert len(pyarrow.table({"a": [1, 2]}).to_pandas()) == 2
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_the_public_names_are_sorted_and_there() -> None:
    assert sorted(affectdata.__all__) == affectdata.__all__
    for name in affectdata.__all__:
        assert getattr(affectdata, name).__module__.startswith("affectdata.")
    with pytest.raises(AttributeError, match="no_such_name"):
        affectdata.no_such_name  # noqa: B018


def test_public_names_are_listed_for_completion() -> None:
    assert dir(affectdata) == sorted([*affectdata.__all__, "__version__"])


@pytest.mark.slow
def test_no_submodule_takes_the_place_of_a_public_name() -> None:
    """`import affectdata.x` sets the attribute `x` of the package: no function may share a folder's name."""
    code = """
import importlib, pkgutil
import affectdata
before = {name: getattr(affectdata, name) for name in affectdata.__all__}
for module in pkgutil.walk_packages(affectdata.__path__, "affectdata."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
changed = [name for name, value in before.items() if getattr(affectdata, name) is not value]
assert not changed, changed
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def names_of(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [] if node.level else [node.module or ""]


def statements(module: Path) -> Iterator[tuple[ast.Import | ast.ImportFrom, ast.AST | None]]:
    """Yield every import statement of a module at run time with the function that it stands in."""

    def visit(
        node: ast.AST, function: ast.AST | None
    ) -> Iterator[tuple[ast.Import | ast.ImportFrom, ast.AST | None]]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, function
        inside = node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) else function
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(ast.parse(module.read_text(encoding="utf-8")), None)


@cache
def imports(module: Path) -> list[tuple[str, ast.AST | None]]:
    """Return every import of a module at run time with the function that it stands in."""
    return [(name, function) for node, function in statements(module) for name in names_of(node)]


def place(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


@pytest.mark.slow
@pytest.mark.parametrize("library", DOORS)
def test_a_heavy_library_has_one_door(library: str) -> None:
    users = [
        place(module) for module in MODULES for name, _ in imports(module) if name.split(".")[0] == library
    ]
    assert [user for user in users if not user.startswith(tuple(DOORS[library]))] == []


def is_command(function: ast.AST) -> bool:
    return isinstance(function, ast.FunctionDef) and any(
        "click.command" in ast.unparse(decorator) for decorator in function.decorator_list
    )


# Imports inside functions, because most commands do without them.
LATE = {
    "cli/_main.py": {"pyarrow"},
    "cli/schema.py": {"affectdata"},  # each document has a module of its own
    "column_map/sample.py": {"openpyxl"},
    "images/phash.py": {"scipy"},
    "manifest/manifest.py": {"affectdata"},  # published manifests import obstore
    "manifest/query.py": {"duckdb"},
    "reading/sample.py": {"cv2"},
    "reading/workbooks.py": {"openpyxl", "xlrd"},
    "recipe/recipe.py": {"affectdata"},  # transforms import albumentations, which only pipelines need
    "release/release.py": {"affectdata"},  # published folders import obstore
    "store/remote.py": {"affectdata"},  # copies of trees import obstore
    "sources/emotic.py": {"scipy"},
    "sources/ferplus.py": {"cv2"},
    "workers.py": {"cv2"},
}


@pytest.mark.slow
def test_imports_stand_inside_functions_only_in_commands_and_what_they_call() -> None:
    inside = [
        (place(module), name)
        for module in MODULES
        for name, function in imports(module)
        if function
        and place(module) not in ("api.py", "results.py")
        and name.split(".")[0] not in LATE.get(place(module), ())
        and not (place(module).startswith("cli/") and is_command(function))
    ]
    assert inside == []


def test_a_command_module_imports_nothing_heavy_at_its_top() -> None:
    for module in sorted((PACKAGE / "cli").glob("*.py")):
        top = {name.split(".")[0] for name, function in imports(module) if function is None}
        assert not top & set(HEAVY), place(module)


@pytest.mark.slow
def test_every_module_says_what_it_holds() -> None:
    without = [place(module) for module in MODULES if not ast.get_docstring(ast.parse(module.read_text()))]
    assert without == []


def dotted(module: Path) -> str:
    parts = module.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {dotted(module): module for module in MODULES}


def imports_by_string(module: Path) -> Iterator[str]:
    """Yield the modules of this package that a string of a module names, or begins to name (an f-string)."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        text = node.values[0] if isinstance(node, ast.JoinedStr) and node.values else node
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            parts = text.value.rstrip(".").split(".")
            if re.fullmatch(r"affectdata(\.\w+)+\.?", text.value):
                yield next(name for n in range(len(parts), 0, -1) if (name := ".".join(parts[:n])) in NAMES)


def edges(module: Path) -> Iterator[str]:
    """Yield the modules of this package that a module imports, by statement or by string."""
    yield from imports_by_string(module)
    for node, _ in statements(module):
        for alias in node.names:
            base = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            inside = f"{base}{alias.name}"
            yield from (name for name in (inside, base.rstrip(".")) if name in NAMES)


def layer_of() -> dict[str, int]:
    """Return the layer of every folder and root module, the top one first, as the contract has them."""
    contracts = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = (each["layers"] for each in contracts if each.get("containers") == ["affectdata"])
    return {name: at for at, layer in enumerate(layers) for name in re.findall(r"\w+", layer)}


def test_every_folder_and_root_module_has_a_layer() -> None:
    top = {name.split(".")[1] for name in NAMES if "." in name}
    assert top - {"__main__"} <= layer_of().keys()


@pytest.mark.slow
def test_an_import_by_string_goes_up_no_layer() -> None:
    layers = layer_of()
    by_string = [
        (name, other)
        for name, module in NAMES.items()
        if name not in LOADERS
        for other in imports_by_string(module)
    ]
    assert ("affectdata.release.release", "affectdata.release.dataset") in by_string  # it finds them
    up = [
        (name, other) for name, other in by_string if layers[name.split(".")[1]] > layers[other.split(".")[1]]
    ]
    assert up == []


@pytest.mark.slow
def test_no_import_makes_a_circle_at_run_time() -> None:
    graph = {name: set(edges(module)) - {name} for name, module in NAMES.items() if name not in LOADERS}
    TopologicalSorter(graph).prepare()  # a CycleError names the circle


def test_few_modules_lie_at_the_root() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 12


def test_every_folder_says_what_goes_in_and_out() -> None:
    docstrings = {
        place(module): ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
        for module in PACKAGE.glob("*/__init__.py")
    }
    assert [
        name for name, text in docstrings.items() if not re.search(r"^In: .* Out: ", text, re.M | re.S)
    ] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("affectdata.manifest", ["Manifest", "Images", "load_manifest", "write_manifest"]),
        ("affectdata.release", ["Release", "newest_release", "open_release"]),
        ("affectdata.train.finetune", ["finetune", "FittedNetwork"]),
    ],
)
def test_what_users_import_is_there_after_every_module_was_imported(module: str, names: list[str]) -> None:
    code = (
        "import importlib, sys\n"
        f"for name in {sorted(set(NAMES) - {'affectdata.__main__'})!r}: importlib.import_module(name)\n"
        f"module = importlib.import_module({module!r})\n"
        f"for name in {names!r}: assert callable(getattr(module, name)), name\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
