"""The rules by name with a line on each, read from their sources: the command line lists them without torch."""

import ast
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path

from alignscape.imports import locate
from alignscape.plugins import installed, source

RULES_FOLDER = Path(__file__).parent / "rules"


@cache
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


def installed_rules() -> dict[str, EntryPoint]:
    """Return the rules that installed packages add, by name; none is imported."""
    return installed("alignscape.rules", rule_summaries())


def listed_rules() -> dict[str, str]:
    """Return a line on each rule there is by name: ours with their summaries, others with the package they are from."""
    return rule_summaries() | {name: f"from {source(entry)}" for name, entry in installed_rules().items()}


def declared_texts(rule: str) -> dict[str, str]:
    """Return the class attributes of a rule of somebody else that are plain texts (``summary``, ``colour``, ...), read
    from its source without running it; empty where that is not to be found."""
    entry = None if ":" in rule else installed_rules().get(rule)
    module, _, name = (rule if entry is None else entry.value).partition(":")
    path = locate(module) if name else None
    if path is None or path.suffix != ".py":
        return {}
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (OSError, ValueError, SyntaxError):
        return {}
    classes = [node for node in body if isinstance(node, ast.ClassDef) and node.name == name]
    return _texts(classes[-1]) if classes else {}


def _assignment(module: ast.Module, name: str) -> ast.expr:
    for node in module.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            if node.value is None:
                break
            return node.value
    raise LookupError(f"no {name} in {RULES_FOLDER}/__init__.py")


def _texts(node: ast.ClassDef) -> dict[str, str]:
    lines = [line for line in node.body if isinstance(line, ast.AnnAssign | ast.Assign)]
    return {
        target.id: line.value.value
        for line in lines
        for target in (line.targets if isinstance(line, ast.Assign) else [line.target])
        if isinstance(target, ast.Name) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)
    }
