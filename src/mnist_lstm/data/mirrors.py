"""Download the files of a data set from mirrors, and verify them."""

import hashlib
import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mnist_lstm import UserError
from mnist_lstm.data.datasets import FILES, Dataset, Published
from mnist_lstm.files import write_atomically

# a function that gets a file's name, the number of bytes that have arrived, and the expected number
Progress = Callable[[str, int, int], object]

CHUNK = 64 * 1024  # bytes between two reports of progress
# The largest cost of a bad mirror: one byte more than the size of a file, and the time that these
# values allow. That is 5 minutes for MNIST's four files, and 20 for files of unknown size.
SOCKET_SECONDS = 10.0  # a mirror that sends nothing for so long counts as down
GRACE_SECONDS = 15.0  # for name lookup, connection and headers of a file, however slow
SLOWEST_BYTES_PER_SECOND = 50_000.0


class MirrorError(UserError):
    """No mirror provided every file. The message says why, and what to do offline."""


class _Down(Exception):
    """A mirror fails as a whole, for the given reason. It is not asked for other files."""


class _Wrong(Exception):
    """A mirror does not have one file, or has a wrong one, for the given reason."""


def mirror_list(dataset: Dataset, given: str | None, root: Path) -> Iterator[str]:
    """The mirrors of a data set in the order to try: `given`, if any, its own, torchvision's.

    `given` is a folder (relative to `root`), or a file:// or http(s):// URL. torchvision takes
    seconds to import, so it is imported only when the iteration reaches its mirrors.
    """
    if given:
        yield given if "://" in given else str(folder_of(given, root))
    yield from dataset.mirrors
    if dataset.torchvision:
        from torchvision import datasets  # type: ignore[import-untyped, unused-ignore]

        yield from getattr(datasets, dataset.torchvision).mirrors


def folder_of(given: str, root: Path) -> Path:
    """The folder that MNIST_MIRROR names; a relative path starts at `root`. Raises UserError."""
    try:
        return (root / Path(given).expanduser()).resolve()
    except RuntimeError:  # no such home folder
        raise UserError(f"MNIST_MIRROR={given}: there is no such user; write the path") from None


def fetch(
    dataset: Dataset,
    folder: Path,
    mirrors: Iterable[str],
    report: Callable[[str], None],
    progress: Progress = lambda name, arrived, expected: None,
) -> None:
    """Write the verified files of a data set into `folder`.

    A file that is already there is kept if it is right and removed if it is wrong. The next of
    `mirrors` is tried only while files are missing. `report` gets one line for each file, with its
    source, and one line for each mirror that failed, with the reason. `progress` gets the number of
    bytes during a download. Raises MirrorError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        for draft in folder.parent.glob(f".{name}.*.draft"):  # left by a killed process
            draft.unlink(missing_ok=True)
    made = dataset.make() if dataset.make else {}
    files = dataset.files or {name: _describe(content) for name, content in made.items()}
    missing = []
    # Smallest first: a bad mirror then costs only the shortest deadline.
    for name in sorted(files, key=lambda name: files[name].size):
        if content := _verified(folder / name, files[name]):
            report(_line(name, content, "already there"))
        else:
            (folder / name).unlink(missing_ok=True)
            missing.append(name)

    def put(name: str, content: bytes, source: str) -> None:
        write_atomically(folder / name, content, scratch=folder.parent)
        missing.remove(name)
        report(_line(name, content, source))

    for name, content in made.items():
        if name in missing:
            put(name, content, dataset.origin)
    refusals = []
    for mirror in mirrors if missing else ():
        reasons = []
        for name in tuple(missing):
            try:
                content = _obtain(mirror, name, files[name], progress)
            except _Wrong as error:
                reasons.append(f"{name}: {error}")
            except _Down as error:
                reasons.append(str(error))
                break
            else:
                put(name, content, f"from {_shown(mirror)}")
        if not missing:
            return
        more = f" (and {len(reasons) - 1} more files)" if reasons[1:] else ""
        refusals.append(f"{_shown(mirror)}: {reasons[0]}{more}")
        report(f"mirror {refusals[-1]}")
    if missing:
        raise MirrorError(
            f"{dataset.name}: no mirror has a correct copy of {', '.join(missing)}. "
            f"Tried: {'; '.join(refusals) or 'none'}. "
            "Offline, set MNIST_MIRROR to a folder that holds the four files of this data set, or "
            "use a data set that needs no network: `cp recipes/quick.yaml params.yaml`"
        )


def _describe(content: bytes) -> Published:
    return Published("sha256", hashlib.sha256(content).hexdigest(), len(content))


def _verified(path: Path, file: Published) -> bytes | None:
    """The content of an existing file; None if it is missing or wrong."""
    if not path.is_file() or path.stat().st_size > file.size:
        return None
    content = path.read_bytes()
    return None if file.mistake(content) else content


def _line(name: str, content: bytes, source: str) -> str:
    return f"{name:<{max(map(len, FILES))}}  {len(content) / 1000:>9,.1f} kB  {source}"


def _shown(mirror: str) -> str:
    """The address of a mirror without user name and password, for printing."""
    # with a colon before it, what ends with @ may be a password that has a slash; a path may have @
    return re.sub(r"//[^/@]*:.*@|//[^/]*@", "//…@", mirror, flags=re.DOTALL)


def _obtain(mirror: str, name: str, file: Published, progress: Progress) -> bytes:
    """Get the verified content of a file. Raises _Wrong or _Down."""
    seconds = GRACE_SECONDS + file.size / SLOWEST_BYTES_PER_SECOND
    content = _within(seconds, partial(_read, mirror, name, file.size + 1), progress)
    if content.lstrip()[:1] == b"<":
        raise _Wrong("a web page came in its place (a login or error page?)")
    if mistake := file.mistake(content):
        raise _Wrong(mistake)
    return content


def _within(seconds: float, work: Callable[[Progress], bytes], progress: Progress) -> bytes:
    """Return or raise what `work` does; raise _Down if it takes longer than `seconds`.

    `work` runs in a thread, which is then abandoned. A socket's timeout would not be enough: it
    limits only the wait for each byte, and host name lookups and network folders have no timeout.
    The abandoned thread ends when it gets its next bytes, and does not report them.
    """
    outcome: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
    is_abandoned = threading.Event()

    def told(name: str, arrived: int, expected: int) -> None:
        if is_abandoned.is_set():
            raise _Down("abandoned")
        progress(name, arrived, expected)

    def run() -> None:
        try:
            outcome.put(work(told))
        except Exception as error:
            outcome.put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        result = outcome.get(timeout=seconds)
    except queue.Empty:
        is_abandoned.set()
        raise _Down(f"too slow: a file took more than {seconds:.3g} s") from None
    if isinstance(result, Exception):
        raise result
    return result


def _read(mirror: str, name: str, limit: int, progress: Progress) -> bytes:
    """Read at most `limit` bytes of a mirror's file, unverified."""
    if "://" not in mirror:
        return _read_folder(Path(mirror), name, limit, progress)
    try:
        url = urlsplit(mirror)
    except ValueError as error:
        raise _Down(f"not a URL ({error})") from None
    if "@" in url.netloc:
        raise _Down("a user name or password in a mirror's URL is not supported")
    if url.scheme in ("http", "https"):
        url_of_file = f"{mirror.rstrip('/')}/{name}"
        return _download(url_of_file, limit, partial(progress, name))
    if url.scheme != "file":
        raise _Down("expected a folder, a file:// URL or an http(s):// URL")
    if url.netloc not in ("", "localhost"):
        raise _Down("expected an absolute path in a file:// URL, as in file:///path/to/folder")
    return _read_folder(Path(unquote(url.path)), name, limit, progress)


def _read_folder(folder: Path, name: str, limit: int, progress: Progress) -> bytes:
    if not folder.is_dir():
        raise _Down("not a folder" if folder.exists() else "no such folder")
    try:
        with (folder / name).open("rb") as file:
            content = file.read(limit)
    except OSError as error:
        raise _Wrong(error.strerror or type(error).__name__) from None
    progress(name, len(content), len(content))
    return content


def _download(url: str, limit: int, progress: Callable[[int, int], object]) -> bytes:
    import http.client
    import urllib.error
    import urllib.request  # imported here, because it takes a tenth of a second

    try:
        with urllib.request.urlopen(url, timeout=SOCKET_SECONDS) as response:
            expected = min(response.length or limit, limit)
            parts, arrived = [], 0
            while part := response.read(min(CHUNK, limit - arrived)):
                parts.append(part)
                arrived += len(part)
                progress(arrived, expected)
            return b"".join(parts)
    except urllib.error.HTTPError as error:
        error.close()
        raise _Wrong(
            f"HTTP status {error.code} {http.client.responses.get(error.code, '')}".strip()
        ) from None
    except urllib.error.URLError as error:
        raise _Down(_reason(error.reason)) from None
    except OSError as error:
        raise _Down(_reason(error)) from None
    except http.client.IncompleteRead:
        raise _Wrong("the connection broke off") from None
    except (http.client.InvalidURL, ValueError):
        raise _Down("not a usable URL") from None
    except http.client.HTTPException:
        raise _Down("its answer is not HTTP") from None


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {SOCKET_SECONDS:.3g} s"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be reached ({error.strerror})"
    return f"cannot be reached ({error})"
