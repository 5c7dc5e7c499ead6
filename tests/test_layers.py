"""Imports go one way, and torch stays on the learner's side."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "robot": {"robot"},
    "perception": {"robot", "perception"},
    "policy": {"robot", "perception", "policy"},
    "teleop": {"robot", "perception", "policy", "teleop"},
    "calibration": {"robot", "perception", "calibration"},
    "launch": {"robot", "perception", "policy", "teleop", "calibration"},
}
OURS = {*MAY_IMPORT, "tests", "benchmarks"}
ROBOT_SIDE = ("robot", "perception", "teleop")


def modules(root: Path, package: str) -> dict[str, Path]:
    """Dotted name -> file of every module under `package`."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((root / package).rglob("*.py"))
    }


def imported(path: Path) -> Iterator[str]:
    """Every dotted name that a module imports anywhere, inside functions too; `a` and `a.b` for `from a import b`."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            assert node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def wrong_way(root: Path, package: str) -> list[str]:
    """Imports of `package` that go against the layers."""
    return sorted(
        {
            f"{module} imports {name.partition('.')[0]}"
            for module, path in modules(root, package).items()
            for name in imported(path)
            if name.partition(".")[0] in OURS - MAY_IMPORT[package]
        }
    )


def ways_to_torch(root: Path) -> list[str]:
    """Chains of imports by which a module of the robot's side would load torch."""
    files = {module: path for package in MAY_IMPORT for module, path in modules(root, package).items()}
    edges = {module: set(imported(path)) for module, path in files.items()}
    chains = []
    for start in (module for package in ROBOT_SIDE for module in modules(root, package)):
        came_from = {start: ""}
        queue = [start]
        for module in queue:
            for name in sorted(edges[module]):
                if name.partition(".")[0] == "torch":
                    chain = [module]
                    while came_from[chain[0]]:
                        chain.insert(0, came_from[chain[0]])
                    chains.append(" -> ".join([*chain, "torch"]))
                elif name in files and name not in came_from:
                    came_from[name] = module
                    queue.append(name)
    return sorted(set(chains))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package: str) -> None:
    assert modules(ROOT, package)
    assert wrong_way(ROOT, package) == []


def test_no_chain_of_imports_leads_from_the_robot_to_torch() -> None:
    assert ways_to_torch(ROOT) == []


def test_the_checks_see_a_planted_import(tmp_path: Path) -> None:
    for package in MAY_IMPORT:
        (tmp_path / package).mkdir()
    (tmp_path / "robot" / "arm.py").write_text("def f():\n    from policy import learner\n")
    (tmp_path / "policy" / "learner.py").write_text("from torch import nn\n")
    (tmp_path / "policy" / "fine.py").write_text("import robot.arm\nimport torchlike\n")

    assert wrong_way(tmp_path, "robot") == ["robot.arm imports policy"]
    assert wrong_way(tmp_path, "policy") == []
    assert ways_to_torch(tmp_path) == ["robot.arm -> policy.learner -> torch"]


def test_launch_is_no_package() -> None:
    # ROS 2 ships a package named `launch`; ours must not stand before it
    assert not list((ROOT / "launch").rglob("__init__.py"))


def test_importing_the_whole_robot_side_loads_no_torch() -> None:
    names = [module for package in ROBOT_SIDE for module in modules(ROOT, package)]
    code = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr
