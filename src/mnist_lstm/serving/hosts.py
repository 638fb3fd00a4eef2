"""The names by which requests may call the server, so that no other site's page can use it."""

import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mnist_lstm import UserError

OWN = ("127.0.0.1", "localhost")
NAME = re.compile(r"(\*\.)?[\w.-]+")


def check(hosts: Sequence[str]) -> None:
    """Raises UserError for what is no name of a host, such as an address with a port."""
    for host in hosts:
        if not NAME.fullmatch(host):
            raise UserError(
                f"a host has a name such as digits.example.org, without a port, not {host!r}"
            )


class KnownHosts:
    """Answer requests by `refusal` that name another host. `*.example.org` is any host below it."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str], refusal: ASGIApp) -> None:
        self.app, self.refusal = app, refusal
        self.hosts = [host.lower() for host in (*OWN, *hosts)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = Headers(scope=scope).get("host", "").partition(":")[0].lower()
        is_known = any(
            named.endswith(host[1:]) if host.startswith("*") else named == host
            for host in self.hosts
        )
        await (self.app if is_known else self.refusal)(scope, receive, send)
