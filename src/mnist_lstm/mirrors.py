"""The data sets: files, checksums, mirrors; download and verify."""

import hashlib
import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mnist_lstm import UserError
from mnist_lstm.files import sha256, write_atomically

TRAIN_IMAGES = "train-images-idx3-ubyte.gz"
TRAIN_LABELS = "train-labels-idx1-ubyte.gz"
TEST_IMAGES = "t10k-images-idx3-ubyte.gz"
TEST_LABELS = "t10k-labels-idx1-ubyte.gz"
FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)

SOCKET_SECONDS = 10.0  # without a byte, then a mirror counts as down
GRACE_SECONDS = 15.0  # for name lookup, connection and headers of a file, however they trickle
SLOWEST_BYTES_PER_SECOND = 50_000.0  # MNIST's largest file may take 15 s + 198 s


@dataclass(frozen=True)
class Published:
    """What a file must be: SHA-256 in hex, size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Dataset:
    """A data set, as four files of IDX inside gzip, named as in `FILES`.

    It has either `files`, which mirrors provide, or `make`, which returns the files' contents by
    name and needs no mirror.
    """

    name: str
    classes: tuple[str, ...]
    train_images: int
    test_images: int
    files: Mapping[str, Published] = field(default_factory=dict)
    make: Callable[[], dict[str, bytes]] | None = None


class MirrorError(UserError):
    """No mirror provided every file: each mirror with its reason, and what to do offline."""


class _Down(Exception):
    """A mirror that need not be asked for another file, and why."""


class _Wrong(Exception):
    """A file that a mirror does not have, or has wrong, and why."""


def mirror_list(given: str | None, root: Path) -> Iterator[str]:
    """Mirrors in the order to ask: `given`, if any, then torchvision's.

    `given` is a folder (a relative one is in `root`), or a file:// or http(s):// URL. torchvision
    takes seconds to import, and is imported only when the iteration gets there.
    """
    if given:
        yield given if "://" in given else str((root / Path(given).expanduser()).resolve())
    from torchvision.datasets import MNIST  # type: ignore[import-untyped, unused-ignore]

    yield from MNIST.mirrors


def fetch(
    dataset: Dataset, folder: Path, mirrors: Iterable[str], report: Callable[[str], None]
) -> None:
    """Put the files of a data set into `folder`, each verified before it gets there.

    A file found there stays if it is right and goes if it is not. A mirror is taken from `mirrors`
    only when those before it left a file missing. `report` is told in a line each which file came
    from where, and why a mirror was passed over. Raises MirrorError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        for draft in folder.parent.glob(f".{name}.*.draft"):  # left by a kill
            draft.unlink(missing_ok=True)
    made = dataset.make() if dataset.make else {}
    files = dataset.files or {name: _describe(content) for name, content in made.items()}
    missing = []
    # Smallest first: a mirror that is no good then costs the shortest deadline.
    for name in sorted(files, key=lambda name: files[name].size):
        if _verifies(folder / name, files[name]):
            report(_line(name, files[name], "already there"))
        else:
            (folder / name).unlink(missing_ok=True)
            missing.append(name)

    def put(name: str, content: bytes, source: str) -> None:
        write_atomically(folder / name, content, scratch=folder.parent)
        missing.remove(name)
        report(_line(name, files[name], source))

    for name, content in made.items():
        if name in missing:
            put(name, content, "made here")
    refusals = []
    for mirror in mirrors if missing else ():
        reasons = []
        for name in tuple(missing):
            try:
                content = _obtain(mirror, name, files[name])
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
            f"{dataset.name}: no mirror gave {', '.join(missing)}. Asked: {'; '.join(refusals)}. "
            "Offline, set MNIST_MIRROR to a folder that holds the four files, or take the data set "
            "that needs no network: `cp recipes/quick.yaml params.yaml`"
        )


def _digits() -> dict[str, bytes]:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped, unused-ignore]

    from mnist_lstm.idx import encode

    digits, train = load_digits(), DATASETS["digits"].train_images
    images = (digits.images * 255 / 16).round().astype("uint8")  # (1797, 8, 8), was 0–16
    labels = digits.target.astype("uint8")  # (1797,)
    return {
        TRAIN_IMAGES: encode(images[:train]),
        TRAIN_LABELS: encode(labels[:train]),
        TEST_IMAGES: encode(images[train:]),
        TEST_LABELS: encode(labels[train:]),
    }


DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="mnist",
            classes=tuple("0123456789"),
            train_images=60_000,
            test_images=10_000,
            files={
                TRAIN_IMAGES: Published(
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9_912_422
                ),
                TRAIN_LABELS: Published(
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28_881
                ),
                TEST_IMAGES: Published(
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1_648_877
                ),
                TEST_LABELS: Published(
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4_542
                ),
            },
        ),
        Dataset(
            name="digits",
            classes=tuple("0123456789"),
            train_images=1_437,
            test_images=360,
            make=_digits,
        ),
    )
}


def _describe(content: bytes) -> Published:
    return Published(hashlib.sha256(content).hexdigest(), len(content))


def _verifies(path: Path, file: Published) -> bool:
    return path.is_file() and path.stat().st_size == file.size and sha256(path) == file.sha256


def _line(name: str, file: Published, source: str) -> str:
    return f"{name:<{max(map(len, FILES))}}  {file.size / 1000:>9,.1f} kB  {source}"


def _shown(mirror: str) -> str:
    """A mirror as it may be printed: without user name and password."""
    return re.sub(r"//[^/]*@", "//…@", mirror)


def _obtain(mirror: str, name: str, file: Published) -> bytes:
    """A file's verified content. Raises _Wrong or _Down."""
    seconds = GRACE_SECONDS + file.size / SLOWEST_BYTES_PER_SECOND
    content = _within(seconds, lambda: _read(mirror, name, file.size + 1))
    if content.lstrip()[:1] == b"<":
        raise _Wrong("a web page came in its place (a login or error page?)")
    if len(content) != file.size:
        size = "more" if len(content) > file.size else f"{len(content):,}"
        raise _Wrong(f"expected {file.size:,} bytes, {size} came")
    found = _describe(content).sha256
    if found != file.sha256:
        raise _Wrong(f"SHA-256 is {found[:12]}…, expected {file.sha256[:12]}…")
    return content


def _within(seconds: float, work: Callable[[], bytes]) -> bytes:
    """What `work` returns or raises; _Down if that takes longer.

    A thread, which is then left behind: a socket's timeout limits the wait for each byte only,
    and the lookup of a name and a folder on a network have none.
    """
    outcome: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put(work())
        except Exception as error:
            outcome.put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        result = outcome.get(timeout=seconds)
    except queue.Empty:
        raise _Down(f"too slow: a file took more than {seconds:.3g} s") from None
    if isinstance(result, Exception):
        raise result
    return result


def _read(mirror: str, name: str, limit: int) -> bytes:
    """At most `limit` bytes of a mirror's file, unverified."""
    if "://" not in mirror:
        return _read_folder(Path(mirror), name, limit)
    try:
        url = urlsplit(mirror)
    except ValueError as error:
        raise _Down(f"not a URL ({error})") from None
    if "@" in url.netloc:
        raise _Down("a user name or password in a mirror's URL is not supported")
    if url.scheme in ("http", "https"):
        return _download(f"{mirror.rstrip('/')}/{name}", limit)
    if url.scheme != "file":
        raise _Down("expected a folder, a file:// URL or an http(s):// URL")
    if url.netloc not in ("", "localhost"):
        raise _Down("expected an absolute path in a file:// URL, as in file:///path/to/folder")
    return _read_folder(Path(unquote(url.path)), name, limit)


def _read_folder(folder: Path, name: str, limit: int) -> bytes:
    if not folder.is_dir():
        raise _Down("not a folder" if folder.exists() else "no such folder")
    try:
        with (folder / name).open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise _Wrong(error.strerror or type(error).__name__) from None


def _download(url: str, limit: int) -> bytes:
    import http.client
    import urllib.error
    import urllib.request  # a tenth of a second, so only here

    try:
        with urllib.request.urlopen(url, timeout=SOCKET_SECONDS) as response:
            content: bytes = response.read(limit)
            return content
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
