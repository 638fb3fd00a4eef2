"""Fingerprints of trainings: on one machine, the same fingerprint means the same weights."""

import ast
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path


def fingerprint(facts: Mapping[str, object]) -> str:
    """The hex digest of everything that determines the weights of a training.

    `facts` are JSON values: parameters, digests of data and code, versions, device, threads.
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def code_digest(sources: Sequence[Path]) -> str:
    """The hex digest of Python files' syntax trees: comments and line breaks do not change it.

    Of a file that is no Python, such as one with a byte that is not UTF-8, it covers the bytes.
    """
    trees = [_tree(source.read_bytes()) for source in sources]
    return hashlib.sha256("\n".join(trees).encode()).hexdigest()


def _tree(code: bytes) -> str:
    try:
        return ast.dump(ast.parse(code))
    except (SyntaxError, ValueError):  # it is not imported: Python would refuse it
        return repr(code)
