from html.parser import HTMLParser

from mnist_lstm.views.html_page import Picture, Section, Table, page


class Read(HTMLParser):
    """The elements of a page in order, with their attributes and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts += [data.strip()] if data.strip() else []

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


PAGE = page(
    "A title",
    "An introduction",
    [
        Section("One", ["A text", Table("Figures", [["", "now"], ["accuracy", "90%"]])]),
        Section("Two", [Picture("What is to be seen", b"\x89PNG")]),
    ],
)


def test_every_element_is_closed_and_every_heading_is_there() -> None:
    read = Read(PAGE)
    assert read.open == []
    assert [tag for tag, _ in read.elements if tag in ("h1", "h2")] == ["h1", "h2", "h2"]
    assert read.all("html") == [{"lang": "en"}]
    for text in ("A title", "An introduction", "One", "A text", "Figures", "now", "90%", "Two"):
        assert text in read.texts


def test_a_table_names_its_columns_and_rows() -> None:
    scopes = [attributes["scope"] for attributes in Read(PAGE).all("th")]
    assert scopes == ["col", "col", "row"]


def test_a_picture_is_in_the_page_and_in_words() -> None:
    (picture,) = Read(PAGE).all("img")
    assert picture["alt"] == "What is to be seen"
    assert picture["src"] == "data:image/png;base64,iVBORw=="


def test_nothing_is_fetched() -> None:
    read = Read(PAGE)
    addresses = [
        value
        for _, attributes in read.elements
        for name, value in attributes.items()
        if name in ("src", "href")
    ]
    assert len(addresses) == 2
    assert all(address and address.startswith("data:") for address in addresses)
    assert read.all("script") == []
    assert "url(" not in PAGE
    (policy,) = (meta["content"] for meta in read.all("meta") if "http-equiv" in meta)
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_names_that_look_like_html_are_text() -> None:
    text = "<script>alert('x')</script> & \"more\""
    read = Read(
        page(text, text, [Section(text, [text, Table(text, [[text]]), Picture(text, b"")])])
    )
    assert read.all("script") == []
    assert read.all("img")[0]["alt"] == text
    assert len([found for found in read.texts if found == text]) == 7
