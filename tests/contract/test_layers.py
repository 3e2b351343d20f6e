"""The house rules that a machine can check: imports run downwards, the torch-free ring holds, sizes stay small."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "lmwright"
FILES = sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def test_imports_run_downwards() -> None:
    """The table of layers stands in pyproject.toml; import-linter follows every import, nested ones too."""
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [linter, "--no-cache"], cwd=SOURCE.parents[1], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


def test_every_room_is_in_the_table_of_layers() -> None:
    """A room that the table does not name would be free to import anything."""
    table = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())["tool"]["importlinter"]
    named = set(re.findall(r"lmwright\.(\w+)", " ".join(table["contracts"][0]["layers"])))
    assert {room(path) for path in FILES} - {"__init__", "__main__"} <= named


def module_name(path: Path) -> str:
    return ".".join(["lmwright", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")


TORCH_FREE = [
    module_name(path)
    for path in FILES
    if room(path)
    in {"errors", "config", "runs", "seeds", "progress", "text", "scaling", "report", "cli", "__init__"}
] + [
    "lmwright.model.config",
    "lmwright.api",
    "lmwright.decode.params",
    *(f"lmwright.recipes.{name}" for name in ("fit", "fit_words", "fit_json", "comparison_words")),
]


def test_the_torch_free_ring_imports_no_torch() -> None:
    program = (
        "import importlib, sys\n"
        f"for name in {TORCH_FREE!r}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'torch', 'transformers'} & set(sys.modules)\n"
        "    assert not heavy, (name, heavy)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_command_line_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from lmwright.cli import main\n"
        "for verb in ['', *main.verbs()]:\n"
        "    assert main.run([*verb.split(), '--help']) == 0\n"
        "heavy = {'torch', 'numpy', 'pyarrow', 'tokenizers', 'matplotlib', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {("torch", "load"), ("torch", "save"), ("yaml", "load"), ("os", "system"), ("os", "popen")}
FORBIDDEN_KEYWORDS = {"shell", "trust_remote_code", "allow_pickle"}


def dangers(tree: ast.AST) -> list[str]:
    """Everything in a syntax tree that could run code from data."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_MODULES:
            found.append(node.module or "")
        elif isinstance(node, ast.ImportFrom) and node.module == "jinja2":
            found += [alias.name for alias in node.names if alias.name in {"Environment", "Template"}]
        elif isinstance(node, ast.Call):
            found += _call_dangers(node)
    return found


def _call_dangers(node: ast.Call) -> list[str]:
    found = []
    function = node.func
    if isinstance(function, ast.Name) and function.id in FORBIDDEN_CALLS:
        found.append(function.id)
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        pair = (function.value.id, function.attr)
        if pair in FORBIDDEN_ATTRIBUTES or pair in {("jinja2", "Environment"), ("jinja2", "Template")}:
            found.append(".".join(pair))
    for keyword in node.keywords:
        off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        if keyword.arg in FORBIDDEN_KEYWORDS and not off:
            found.append(keyword.arg)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_the_source_runs_no_code_from_data(path: Path) -> None:
    assert dangers(ast.parse(path.read_text())) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(f)",
        "eval(x)",
        "exec(x)",
        "subprocess.run(x, shell=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=flag)",
        "np.load(f, allow_pickle=True)",
        "from jinja2 import Environment",
        "jinja2.Template(x)",
    ],
)
def test_the_danger_check_can_fail(line: str) -> None:
    assert dangers(ast.parse(line))


def test_files_and_functions_stay_small() -> None:
    lines = sorted(len(path.read_text().splitlines()) for path in FILES)
    assert lines[-1] <= 600
    assert lines[len(lines) // 2] <= 150
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                length = node.end_lineno - node.lineno + 1
                assert length <= 120, f"{path}:{node.lineno} {node.name} has {length} lines"


def test_every_module_says_what_it_is() -> None:
    for path in FILES:
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no module docstring"
