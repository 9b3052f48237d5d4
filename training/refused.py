"""What to do with a file of weights that must not be loaded as it is: the line that says so."""

import io
import json
import os
import pickle
import pickletools
import re
import shlex
import zipfile

NESTED = (
    *("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params", "params_ema"),
    *("ema", "model_ema", "ema_state_dict", "state_dict_ema"),
)
"""Keys that trainers keep the weights under, the first that is there is taken: weights themselves before averages."""
MAGIC = 0x1950A86A20F9469CFC6C  # what a file of torch.save without a zip begins with
PLAIN = ("collections.OrderedDict", "collections OrderedDict")


def is_torchscript(content: bytes) -> bool:
    """Whether these bytes of a file are what ``torch.jit.save`` wrote."""
    names = _members(content)
    return any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names)


def refused_pickle(path: str | os.PathLike[str], content: bytes, error: pickle.UnpicklingError) -> str:
    """Say why torch's restricted reader will not have ``content``, and how to get at the weights."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    what = f" ({found[1]})" if found else ""
    text = f"{path} is refused: it holds more than tensors and plain values{what}, and loading it could run code"
    if (words := _top(content)) is None:
        return text
    kept = ".state_dict()" if not words else f'["{words[0]}"]'
    return f"{text}; {resave(path, 'torch.load', kept, ', weights_only=False')}"


def resave(path: str | os.PathLike[str], loader: str, kept: str, more: str = "") -> str:
    """Return the advice to write the tensors of ``path`` to a file of their own."""
    name = json.dumps(os.fspath(path), ensure_ascii=False)
    code = f'import torch; torch.save({loader}({name}, map_location="cpu"{more}){kept}, "weights.pt")'
    return f"if you trust it, keep its tensors alone by: python -c {shlex.quote(code)}"


def _top(content: bytes) -> list[str] | None:
    """Return the key under which a pickled dictionary has its weights, in a list; an empty list if the pickle is an
    object, which has a state dict; None where that cannot be told."""
    data = next((name for name in _members(content) if name.endswith("data.pkl")), None)
    stream = io.BytesIO(content if data is None else zipfile.ZipFile(io.BytesIO(content)).read(data))
    try:
        operations = _operations(stream)
        if operations[1:2] == [("LONG1", MAGIC)]:  # torch before 1.6: two numbers, what machine it was, the object
            operations = [_operations(stream) for _ in range(3)][-1]
    except ValueError:
        return None
    first = next((one for one in operations if one[0] not in ("PROTO", "FRAME")), ("", None))
    if first[0] in ("GLOBAL", "STACK_GLOBAL") and str(first[1]).replace(" ", ".") not in PLAIN:
        return []
    words = {argument for name, argument in operations if "UNICODE" in name}
    return next(([key] for key in NESTED if key in words), None)


def _operations(stream: io.BytesIO) -> list[tuple[str, object]]:
    return [(code.name, argument) for code, argument, _ in pickletools.genops(stream)]


def _members(content: bytes) -> list[str]:
    try:
        return zipfile.ZipFile(io.BytesIO(content)).namelist()
    except zipfile.BadZipFile:
        return []
