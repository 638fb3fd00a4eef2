"""What is wrong with an MLflow store, in one line: its errors as TrackingError."""

import errno
import os
import sqlite3
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from alembic.util import CommandError
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from mnist_lstm import UserError
from mnist_lstm.tracking import credentials

# SQLite's codes for a problem of the place, not of the database: SQLITE_PERM, _READONLY, _IOERR and
# _CANTOPEN
NO_PLACE = (3, 8, 10, 14)
FULL = 13  # SQLITE_FULL
IN_USE = (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED
ERRORS: tuple[type[Exception], ...] = (
    MlflowException,
    SQLAlchemyError,  # MLflow does not wrap all of them
    CommandError,
    sqlite3.Error,
    ModuleNotFoundError,  # a database's driver
    OSError,
)


class TrackingError(UserError):
    """The store cannot be reached or refuses a request."""


@contextmanager
def errors_of(uri: str, experiment: str, *others: type[Exception]) -> Iterator[None]:
    """Raise every error of a store in the block, and the `others`, as TrackingError.

    `experiment` is what a user may lack the permission for.
    """
    try:
        yield
    except (*ERRORS, *others) as error:
        why = credentials.without_password(_why(error, uri, experiment), uri)
        raise TrackingError(f"MLflow store {credentials.printable(uri)}: {why}") from error


def _refusal(experiment: str, *errors: BaseException) -> str | None:
    """What a server's answer means that refuses a request because of who asks; None for others."""
    user, variables = (
        os.environ.get(credentials.USER),
        f"{credentials.USER} and {credentials.PASSWORD}",
    )
    for error in errors:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, MlflowException):
            status = error.get_http_status_code()
        if status == HTTPStatus.UNAUTHORIZED and not user:
            return f"the server asks who you are: set {variables}"
        if status == HTTPStatus.UNAUTHORIZED:
            return f"the server does not accept these: correct {variables}"
        if status == HTTPStatus.FORBIDDEN:
            who = f"{user} has" if user else "you have"
            return (
                f"{who} no permission for this; the server's administrator can give the "
                f"permission EDIT on the experiment {experiment} and on the registered model"
            )
    return None


def _why(error: BaseException, uri: str, experiment: str) -> str:
    """What is wrong with a store and what to do, from the innermost, shortest error."""
    inner = error
    while below := inner.__cause__ or inner.__context__:
        inner = below
    if refusal := _refusal(experiment, error, inner):
        return refusal
    if isinstance(inner, OSError):
        path = inner.filename2 or inner.filename  # of a copy, the second is where it was to be
        where = f"{path}: " if path else ""
        hint = (
            "; check that the server is running and that its address is correct"
            if uri.startswith("http")
            else ""
        )
        if inner.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "; free some space there"
        return f"{where}{inner.strerror or inner}{hint}"
    if isinstance(inner, sqlite3.Error):
        code = (getattr(inner, "sqlite_errorcode", None) or 0) & 0xFF
        if code == FULL:
            return f"{inner}; free some space there"
        if code in NO_PLACE:
            return f"{inner}; check that the disk has free space and that you may write there"
        if code in IN_USE:
            return (
                f"{inner}; another process is using it; run the command again when that process "
                "has ended"
            )
        return f"{inner}; move that file elsewhere; a new one is then made"
    if isinstance(error, CommandError):
        return (
            f"another version of MLflow made it ({error}); move it elsewhere; a new one is then "
            "made"
        )
    if isinstance(error, ModuleNotFoundError):
        return (
            f"this needs the package {error.name}, which is not installed; install it, or use a "
            "server"
        )
    return textwrap.shorten(str(error), 300, placeholder=" …")
