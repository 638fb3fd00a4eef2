"""Keep a password out of the address of the store, so that no message of any library can have it.

A tracking server's user name and password go into the variables from which MLflow reads them. The
password of a PostgreSQL database goes into the variable from which its driver reads it.
"""

import os
import re
from urllib.parse import unquote, unquote_plus

URI = "MLFLOW_TRACKING_URI"
USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
POSTGRES = "PGPASSWORD"
FILE = "sqlite:///"  # no user, no host: the rest is a path, which may have any character
NETLOC = re.compile(r"([\w+]+://)([^/?#]*)@(.*)", re.DOTALL)
# SQLAlchemy's rule: a password may have any character but @
DATABASE = re.compile(r"(postgres[\w+]*://)([^:/]*:[^@]*)@(.*)", re.DOTALL)
IN_QUERY = re.compile(r"([?&])password=([^&]*)(&|$)")  # as PostgreSQL's driver takes it
# values of a query that may be secret, for any driver; ODBC's is a list of settings
SECRET = re.compile(r"([?&][^=&]*(?:pass|pwd|secret|token|odbc)[^=&]*=)([^&]+)", re.IGNORECASE)


def hide() -> None:
    """Take the password out of MLFLOW_TRACKING_URI, for this process and those that it starts.

    The password of another kind of database stays there: its driver reads no variable.
    """
    _hide_before_host(os.environ.get(URI, ""))
    _hide_in_query(os.environ.get(URI, ""))


def _hide_before_host(uri: str) -> None:
    if not (found := NETLOC.fullmatch(uri) or DATABASE.fullmatch(uri)):
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


def _hide_in_query(uri: str) -> None:
    """Take PostgreSQL's password out of the query, where it counts more than before the host."""
    if uri.startswith("postgres") and (found := IN_QUERY.search(uri)):
        os.environ[POSTGRES] = unquote_plus(found[2])
        os.environ[URI] = uri[: found.start()] + found[1] * bool(found[3]) + uri[found.end() :]


def printable(uri: str) -> str:
    """An address without user name and password, for messages."""
    if uri.startswith(FILE):
        return uri
    return SECRET.sub(r"\1…", re.sub(r"//.*@", "//…@", uri, flags=re.DOTALL))


def without_password(text: str, uri: str) -> str:
    """A message of a library, without the user name and password of an address."""
    if uri.startswith(FILE):
        return text
    given = uri.partition("://")[2].rpartition("@")[0]
    password = given.partition(":")[2]
    found = [
        given,
        password,
        password.partition("@")[0],
        *(each[2] for each in SECRET.finditer(uri)),
    ]
    for secret in (*found, *map(unquote, found), *map(unquote_plus, found)):
        if secret:
            text = text.replace(secret, "…")
    return text


def is_malformed(uri: str) -> bool:
    """Whether an address has a password with `/`, `?` or `#`, which would end its host."""
    scheme, _, rest = uri.partition("://")
    host = re.split("[/?#]", rest, maxsplit=1)[0]
    is_of_server = scheme in ("http", "https") and "@" in rest and "@" not in host
    return is_of_server and re.search(r":(?!\d*$)", host) is not None
