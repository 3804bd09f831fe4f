"""What importing costs, where the doors of heavy libraries are, and what the package's names are."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import affectdata

PACKAGE = Path(affectdata.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("albumentations", "cv2", "duckdb", "numpy", "pandas", "PIL", "pyarrow", "scipy", "sklearn", "torch")
# Where a heavy library may be imported; everything else reaches it through these modules.
DOORS = {
    "albumentations": ["recipe/transforms.py"],
    "torch": ["train/", "release/dataset.py"],
    "torchvision": ["train/"],
    "sklearn": ["train/"],
    "safetensors": ["train/"],
    "captum": ["train/"],
    "httpx2": ["manifest/fetch.py"],  # the network
    "ctypes": ["cli/_main.py"],  # mallopt: a library must not change its host's allocator
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


def test_the_public_names_are_sorted_and_there() -> None:
    assert sorted(affectdata.__all__) == affectdata.__all__
    for name in affectdata.__all__:
        assert getattr(affectdata, name).__module__.startswith("affectdata.")
    with pytest.raises(AttributeError, match="no_such_name"):
        affectdata.no_such_name  # noqa: B018


def names_of(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [] if node.level else [node.module or ""]


def imports(module: Path) -> Iterator[tuple[str, ast.AST | None]]:
    """Yield every import of a module at run time with the function that it stands in."""

    def visit(node: ast.AST, function: ast.AST | None) -> Iterator[tuple[str, ast.AST | None]]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((name, function) for name in names_of(node))
        inside = node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) else function
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(ast.parse(module.read_text(encoding="utf-8")), None)


def place(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


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


def test_imports_stand_inside_functions_only_in_commands_and_what_they_call() -> None:
    inside = [
        (place(module), name)
        for module in MODULES
        for name, function in imports(module)
        if function
        and place(module) not in ("api.py", "results.py")
        and not (place(module).startswith("cli/") and is_command(function))
    ]
    assert inside == []


def test_a_command_module_imports_nothing_heavy_at_its_top() -> None:
    for module in sorted((PACKAGE / "cli").glob("*.py")):
        top = {name.split(".")[0] for name, function in imports(module) if function is None}
        assert not top & set(HEAVY), place(module)


def test_every_module_says_what_it_holds() -> None:
    without = [place(module) for module in MODULES if not ast.get_docstring(ast.parse(module.read_text()))]
    assert without == []
