"""Code that differs by device is what docs/gpu.md lists, and nothing else."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("alignscape", "training", "landscape", "robustness", "reports")
SECTION = re.compile(r"^## What differs by device$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `([\w/]+\.py)` \| (.+?) \| .+ \|$", re.MULTILINE)


def asks_for_the_device(node):
    """Whether a piece of syntax is ``torch.cuda``, ``.is_cuda``, ``"cuda"``, or a comparison with ``"cpu"``."""
    if isinstance(node, ast.Attribute):
        return node.attr in ("is_cuda", "cudnn") or (
            node.attr == "cuda" and isinstance(node.value, ast.Name | ast.Attribute)
        )
    if isinstance(node, ast.Constant):
        return node.value == "cuda"
    if isinstance(node, ast.Compare):
        return any(isinstance(x, ast.Constant) and x.value == "cpu" for x in (node.left, *node.comparators))
    return False


def places(tree):
    """Yield the names of the outermost functions, methods and module-level assignments that ask for the device."""

    def visit(body, prefix):
        for node in body:
            if isinstance(node, ast.ClassDef):
                yield from visit(node.body, f"{prefix}{node.name}.")
            elif any(map(asks_for_the_device, ast.walk(node))):
                yield prefix + name_of(node)

    def name_of(node):
        if isinstance(node, ast.FunctionDef):
            return node.name
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        return ", ".join(target.id for target in targets if isinstance(target, ast.Name)) or "(module)"

    return list(visit(tree.body, ""))


def test_code_that_differs_by_device_is_listed():
    found = {
        (path.relative_to(ROOT).as_posix(), place)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for place in places(ast.parse(path.read_text()))
    }
    (section,) = SECTION.findall((ROOT / "docs/gpu.md").read_text())
    listed = {(file, name) for file, names in ROW.findall(section) for name in re.findall(r"`([^`]+)`", names)}
    assert found - listed == set(), "not listed in docs/gpu.md"
    assert listed - found == set(), "listed, but the same on every device"


def test_what_counts_as_asking():
    code = """
def f(x): return x.is_cuda
def g(x): return torch.cuda.synchronize()
def h(x): return x.device.type == "cpu"
def same(x): return x.to("cpu")
LIMITS = {"cuda": 1}
class C:
    def m(self): torch.backends.cudnn.allow_tf32 = True
"""
    assert places(ast.parse(code)) == ["f", "g", "h", "LIMITS", "C.m"]
