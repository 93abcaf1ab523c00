"""Who may import whom, and the habits that hold everywhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("fastgan_aug", "serving", "downstream")
HEAVY = {"ray", "mlflow", "fastapi", "starlette", "uvicorn"}
BARE = {"torch", "numpy", "safetensors"}  # what a bare GPU box has
CLIENT = {"numpy", "pyarrow", "httpx"}

# Third-party packages of each room, lazy imports included; the longest matching prefix counts.
THIRD_PARTY = {
    "fastgan_aug.gan": BARE,
    "fastgan_aug.data.augment": BARE,
    "fastgan_aug.data.dataset": {"numpy", "pyarrow"},
    "fastgan_aug.errors": set(),
    "fastgan_aug.storage": set(),
    "fastgan_aug.balance": set(),
    "fastgan_aug.target": set(),
    "fastgan_aug.code_version": set(),
    "fastgan_aug.conditions": {"numpy"},
    "serving.client": CLIENT,
    "serving.protocol": CLIENT,
    "serving.batch": CLIENT,
    "serving.request": CLIENT,
    "serving.address": CLIENT,
    "serving.asking": CLIENT,
    "serving.async_client": CLIENT,
    "serving.attempts": CLIENT,
    "serving.decoding": CLIENT,
    "serving.exchange": CLIENT,
    "serving.generating": CLIENT,
    "serving.progress": {"rich"},
    "serving.sampler": {"numpy", "imblearn", "sklearn"},
    "serving.torch_data": {"numpy", "torch"},
}
# Modules of this project that a room may not import.
NOT_OURS = {
    "fastgan_aug": ("serving", "downstream", "fastgan_aug.engines", "fastgan_aug.cli"),
    "fastgan_aug.engines": ("serving", "downstream", "fastgan_aug.cli"),
    "fastgan_aug.cli": (),
    "serving": ("downstream", "fastgan_aug.cli"),
    "serving.client": ("downstream", "fastgan_aug.cli", "fastgan_aug.engines", "fastgan_aug.gan"),
    "downstream": ("fastgan_aug.cli", "fastgan_aug.engines"),
}
# Packages that a room may not import.
NOT_THEIRS = {
    "fastgan_aug": HEAVY,
    "fastgan_aug.engines": {"fastapi", "starlette", "uvicorn"},
    "fastgan_aug.cli": set(),
    "serving": {"mlflow"},
    "serving.server.app": {"mlflow", "ray"},
    "downstream": HEAVY,
}
# Modules that bring in everything that their own imports bring: told by a real import.
LIGHT = {
    "gan": (
        [
            "fastgan_aug.data.augment",
            *(f"fastgan_aug.gan.{p.stem}" for p in (ROOT / "fastgan_aug/gan").glob("[a-z]*.py")),
        ],
        HEAVY | {"pydantic", "pyarrow", "sklearn", "scipy", "matplotlib", "httpx", "serving"},
    ),
    "client": (
        ["serving.client", "serving.protocol", "serving.batch", "serving.offline"],
        HEAVY | {"torch", "pydantic", "sklearn", "scipy", "matplotlib", "safetensors", "pandas"},
    ),
    "command line": (
        ["fastgan_aug.cli.main"],
        HEAVY | {"torch", "pydantic", "sklearn", "scipy", "matplotlib", "nilearn"},
    ),
    "package": (
        ["fastgan_aug", "serving", "downstream"],
        HEAVY | {"torch", "numpy", "pydantic", "httpx", "pyarrow"},
    ),
}


def modules() -> list[str]:
    paths = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))
    return [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in paths]


@cache
def tree(module: str) -> ast.Module:
    return ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text())


def imports(module: str) -> set[str]:
    """Every module that is imported anywhere in it, except for type checking alone."""
    found: set[str] = set()
    waiting: list[ast.AST] = [tree(module)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
        waiting.extend(ast.iter_child_nodes(node))
    return found


def rule(rules: dict[str, object], module: str) -> object | None:
    """The rule of the longest prefix of ``module``."""
    fitting = [prefix for prefix in rules if is_in(module, prefix)]
    return rules[max(fitting, key=len)] if fitting else None


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def third_party(module: str) -> set[str]:
    tops = {name.partition(".")[0] for name in imports(module)}
    return tops - set(sys.stdlib_module_names) - set(PACKAGES)


@pytest.mark.parametrize("module", modules())
def test_a_room_imports_only_what_it_may(module: str) -> None:
    allowed = rule(THIRD_PARTY, module)  # type: ignore[arg-type]
    if allowed is not None:
        assert third_party(module) <= allowed, f"allowed: {allowed}"  # type: ignore[operator]
    forbidden = rule(NOT_THEIRS, module)  # type: ignore[arg-type]
    assert not third_party(module) & forbidden  # type: ignore[operator]
    ours = rule(NOT_OURS, module)  # type: ignore[arg-type]
    crossed = {name for name in imports(module) for room in ours if is_in(name, room)}  # type: ignore[attr-defined]
    assert not crossed


def test_downstream_knows_the_service_by_its_client_alone() -> None:
    known = tuple(
        f"serving.{name}" for name in ("client", "protocol", "request", "batch", "extras")
    )
    for module in (m for m in modules() if is_in(m, "downstream")):
        service = {name for name in imports(module) if is_in(name, "serving")} - {"serving"}
        assert all(any(is_in(name, k) for k in known) for name in service), module


@pytest.mark.parametrize("room", LIGHT)
def test_a_light_room_loads_nothing_heavy(room: str) -> None:
    names, heavy = LIGHT[room]
    code = f"import sys, {', '.join(names)}; print(*{{n.partition('.')[0] for n in sys.modules}})"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert not set(ran.stdout.split()) & heavy


def test_the_packages_themselves_import_nothing() -> None:
    for module in (m for m in modules() if m.endswith("__init__")):
        assert not imports(module), module


@pytest.mark.parametrize("module", modules())
def test_no_pickle_and_no_print(module: str) -> None:
    pickles = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert not {name.partition(".")[0] for name in imports(module)} & pickles
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in ("torch.load", "torch.save"), node.lineno
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False
        if isinstance(node, ast.Call) and not is_in(module, "fastgan_aug.cli"):
            assert ast.unparse(node.func) != "print", f"line {node.lineno}"


@pytest.mark.parametrize("module", modules())
def test_nothing_happens_at_import(module: str) -> None:
    if module == "fastgan_aug.cli.main" or module.startswith("fastgan_aug.cli."):
        return  # typer applications are assembled at import
    for node in tree(module).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        harmless = isinstance(node, (*kinds, ast.Assign, ast.AnnAssign)) or docstring
        typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        assert harmless or typing, f"line {node.lineno}: {ast.unparse(node)[:80]}"
        for name in assigned(node):
            constant = re.fullmatch(r"_?[A-Z][A-Za-z0-9_]*|__all__|log|logger", name)
            assert constant, f"line {node.lineno}: {name} is module-level state"


def assigned(node: ast.stmt) -> Iterator[str]:
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return
    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
        for part in ast.walk(target):
            if isinstance(part, ast.Name):
                yield part.id


@pytest.mark.parametrize("module", modules())
def test_files_and_functions_stay_readable(module: str) -> None:
    path = (ROOT / module.replace(".", "/")).with_suffix(".py")
    assert path.stem not in ("utils", "helpers", "manager", "common")
    assert len(path.read_text().splitlines()) <= 400
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = [
                n
                for n in node.body
                if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))
            ]
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]
            assert lines <= 60, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("module", modules())
def test_no_data_set_is_built_in(module: str) -> None:
    if re.search(r"phantom|anatomy|lesions", module):
        return
    docstrings = {
        node.body[0].value
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    words = {"CER", "BG", "COR", "bilateral", "unilateral"}
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Constant) and node not in docstrings:
            assert node.value not in words, f"line {node.lineno}: {node.value!r}"
