"""The rules by name with a line on each, read from their sources: the command line lists them without torch."""

import ast
from pathlib import Path

RULES_FOLDER = Path(__file__).parent / "rules"


def rule_summaries() -> dict[str, str]:
    """Return ``{name: summary}`` of the rules in the registry, in its order."""
    classes = {}
    for path in RULES_FOLDER.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                classes[node.name] = _texts(node)
    registry = ast.parse((RULES_FOLDER / "__init__.py").read_text(encoding="utf-8"))
    tuples = [node for node in ast.walk(_assignment(registry, "RULES")) if isinstance(node, ast.Tuple)]
    names = [entry.id for node in tuples for entry in node.elts if isinstance(entry, ast.Name)]
    return {classes[name]["name"]: classes[name]["summary"] for name in names}


def _assignment(module: ast.Module, name: str) -> ast.expr:
    for node in module.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            if node.value is None:
                break
            return node.value
    raise LookupError(f"no {name} in {RULES_FOLDER}/__init__.py")


def _texts(node: ast.ClassDef) -> dict[str, str]:
    return {
        line.target.id: line.value.value
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        if isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)
    }
