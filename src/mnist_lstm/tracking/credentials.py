"""Keep a password out of the address of the store, so that no message of any library can have it.

A tracking server's user name and password go into the variables from which MLflow reads them. The
password of a PostgreSQL database goes into the variable from which its driver reads it.
"""

import os
import re
from urllib.parse import unquote

URI = "MLFLOW_TRACKING_URI"
USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
POSTGRES = "PGPASSWORD"
NETLOC = re.compile(r"([\w+]+://)([^/?#]*)@(.*)", re.DOTALL)


def hide() -> None:
    """Take the password out of MLFLOW_TRACKING_URI, for this process and those that it starts.

    The password of another kind of database stays there: its driver reads no variable.
    """
    if not (found := NETLOC.fullmatch(os.environ.get(URI, ""))):
        return
    scheme, (user, _, password), rest = found[1], found[2].partition(":"), found[3]
    if not (user and password):
        return
    if scheme in ("http://", "https://"):
        os.environ |= {USER: unquote(user), PASSWORD: unquote(password)}
        os.environ[URI] = scheme + rest
    elif re.match(r"postgres(ql)?\b", scheme):
        os.environ[POSTGRES] = unquote(password)
        os.environ[URI] = f"{scheme}{user}@{rest}"


def printable(uri: str) -> str:
    """An address without user name and password, for messages."""
    return re.sub(r"//.*@", "//…@", uri, flags=re.DOTALL)


def without_password(text: str, uri: str) -> str:
    """A message of a library, without the user name and password of an address."""
    given = uri.partition("://")[2].rpartition("@")[0]
    for secret in (given, given.partition(":")[2], unquote(given.partition(":")[2])):
        if secret:
            text = text.replace(secret, "…")
    return text


def is_malformed(uri: str) -> bool:
    """Whether an address has a password with `/`, `?` or `#`, which would end its host."""
    scheme, _, rest = uri.partition("://")
    host = re.split("[/?#]", rest, maxsplit=1)[0]
    is_of_server = scheme in ("http", "https") and "@" in rest and "@" not in host
    return is_of_server and re.search(r":(?!\d*$)", host) is not None
