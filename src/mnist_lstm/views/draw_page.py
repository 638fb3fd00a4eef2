"""The page of `mnist-lstm draw`: a model that reads drawings in the browser, in one HTML file.

lstm.js is the model, prepare.js brings a drawing to its form, draw.js and draw.css are the page.
drop.js is for a page that a server sent: it has the server prepare picture files.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SCRIPTS = ("lstm", "prepare", "draw")


def page(title: str, data: Mapping[str, Any], *, served: bool = False) -> str:
    """The HTML of a page that needs no other file. `data` is what draw.js reads, in JSON's types.

    Its policy lets the browser run these scripts and no other, and load nothing. A page that is
    `served` may send pictures to its server.
    """
    parts = {name: _text(f"{name}.js") for name in SCRIPTS} | {"style": _text("draw.css")}
    scripts = list(parts.values())[: len(SCRIPTS)]
    parts["drop"], connect = "", ""
    if served:
        scripts.append(drop := _text("drop.js"))
        parts["drop"], connect = f"<script>{drop}</script>\n", "connect-src 'self'; "
    parts["policy"] = (
        f"default-src 'none'; script-src {' '.join(map(_hash, scripts))}; "
        f"style-src {_hash(parts['style'])}; img-src data:; {connect}"
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    parts |= {"title": escape(title), "data": _json(data)}
    # in one pass, so that nothing is replaced in what was put in
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _text("draw.html"))


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _json(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element that it is in."""
    text = json.dumps(data, separators=(",", ":"))  # ASCII
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
