"""Generate invalid params.yaml files, each with words that its error message must have."""

import re
import string
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from samples import REFERENCE_RECIPE

from mnist_lstm.pipeline.params import ADDED, Params

REFERENCE = REFERENCE_RECIPE.read_text()

Bad = tuple[str | bytes, str]


def _leaves(schema: dict[str, Any], prefix: str = "") -> dict[str, list[dict[str, Any]]]:
    """The JSON schema of each value, by its dotted key: a list of its alternatives."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, entry in schema["properties"].items():
        if "$ref" in entry:
            section = SCHEMA["$defs"][entry["$ref"].rpartition("/")[2]]
            found |= _leaves(section, f"{prefix}{name}.")
        else:
            found[prefix + name] = entry.get("anyOf", [entry])
    return found


SCHEMA = Params.model_json_schema()
LEAVES = _leaves(SCHEMA)
SECTIONS = sorted({key.rpartition(".")[0] for key in LEAVES} - {""})
KEYS = st.sampled_from(sorted(LEAVES))
WORDS = st.text(string.ascii_lowercase, min_size=6, max_size=12)

# for each type of a key, values of other types, in YAML
WRONG = {
    "integer": ["0.5", "1.0", "1e3", "0777", "0x1F", "1:30", "2001-01-01", "true", "'1'", ".inf"],
    "number": ["1e-3", "0x1F", "1:30.5", "2001-01-01", "true", "'0.5'", ".nan", "-.inf", "1.e+999"],
    "boolean": ["yes", "no", "on", "0", "1", "0.5", "'true'", ".inf"],
    "string": ["1", "0.5", ".inf", "true", "''", r'"\0"', r'"\ud800"', r'"cpu\n"', "cuda:128"],
}
ANY = ["[]", "[1]", "{}", "{a: 1}"]
NOTHING = ["", "~", "null"]

# a reader that accepts every tag would execute these: each creates a file or folder {it}
EXECUTES = [
    '!!python/object/apply:os.mkdir ["{it}"]',
    '!!python/object/apply:os.system ["touch {it}"]',
    '!!python/object/apply:subprocess.check_output [[touch, "{it}"]]',
    "!!python/object/new:type {{args: [x, !!python/tuple [], {{extend: !!python/name:exec }}], "
    "listitems: \"import os; os.mkdir('{it}')\"}}",
]
TAGS = [
    *EXECUTES,
    *("!!python/name:os.system x", "!!python/module:os x", "!!python/tuple []", "!!binary eA=="),
    *("!!int 1", "!!int x", "!!int", "!!float x", "!!bool x", "!!null x", "!!timestamp x"),
    *("!!set {{a}}", "!!omap [a: 1]", "!!map x", "!!seq x", "!!str x", "!own 1", "! 1", "!a%0Ab 1"),
]
CUT_SHORT = ["[", "{", "[1", "{a: 1", "[1, {a: [", '"', '"\\q"', "@", "`", "%", "- 1"]
TOO_MUCH = ["a: b", "&a *b", "'a' b", "[] []"]  # a value with something after it


def _parted(key: str) -> tuple[str, str, str]:
    return key.rpartition(".")


def put(key: str, value: str) -> str:
    """The reference recipe with another value, in YAML, at a key."""
    section, _, name = _parted(key)
    head = rf"^{section}:\n(?:  .*\n)*?  " if section else "^"
    text, count = re.subn(rf"(?m)({head}{name}:) .*", lambda it: f"{it[1]} {value}", REFERENCE)
    assert count == 1
    return text


def with_section(name: str, content: str) -> str:
    """The reference recipe with other content in a section."""
    text, count = re.subn(rf"(?m)^{name}:\n(  .*\n)+", lambda _: f"{name}:{content}\n", REFERENCE)
    assert count == 1
    return text


@st.composite
def wrong_types(draw: DrawFn) -> Bad:
    key = draw(KEYS)
    types = {one["type"] for one in LEAVES[key]}
    wrong = [value for type_ in types - {"null"} for value in WRONG[type_]]
    nothing = [] if "null" in types else NOTHING
    return put(key, draw(WORDS | st.sampled_from(wrong + nothing + ANY))), f"{key} must be "


@st.composite
def out_of_range(draw: DrawFn) -> Bad:
    limits = [
        (key, limit, one[limit])
        for key, entry in LEAVES.items()
        for one in entry
        for limit in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
        if limit in one
    ]
    key, limit, bound = draw(st.sampled_from(limits))
    beyond = draw(st.integers(0, 9) | st.integers(0, 10**90)) + (limit in ("minimum", "maximum"))
    value = bound + beyond if limit.lower().endswith("maximum") else bound - beyond
    words = {
        "minimum": "at least",
        "maximum": "at most",
        "exclusiveMinimum": "above",
        "exclusiveMaximum": "below",
    }
    return put(key, str(type(bound)(value))), f"{key} must be {words[limit]} "


@st.composite
def beyond_the_data(draw: DrawFn) -> Bad:
    name, images = draw(st.sampled_from([("mnist", 60000), ("kmnist", 60000), ("digits", 1437)]))
    key = draw(st.sampled_from(["preprocess.validation_size", "train.batch_size"]))
    text = put(key, str(images + draw(st.integers(0, 10**18))))
    text = text.replace("dataset: mnist", f"dataset: {name}")
    return text.replace("validation_size: 5000 ", "validation_size: 500 "), f"{key} must "


@st.composite
def unknown_keys(draw: DrawFn) -> Bad:
    section = draw(st.sampled_from(["", *SECTIONS]))
    elsewhere = [name for place, _, name in map(_parted, LEAVES) if place != section]
    word = draw(WORDS | st.sampled_from([*elsewhere, "Seed", "a b", "train.steps"]))
    odd = {"~": "None", "1.5": "1.5", "<<": "<<", "=": "=", '""': "''", r'"\n"': r"'\n'"}
    name, shown = draw(st.sampled_from([*odd.items(), *[(word, word)] * len(odd)]))
    line = f"{name}: {draw(st.sampled_from([*ANY, *NOTHING, '1']))}"
    if not section:
        mistake = "must be in its section: " if shown == "train.steps" else "is not a known key; "
        return f"{line}\n{REFERENCE}", f"{shown} {mistake}"
    text = REFERENCE.replace(f"\n{section}:\n", f"\n{section}:\n  {line}\n")
    return text, f"{section}.{shown} is not a known key; "


@st.composite
def missing_keys(draw: DrawFn) -> Bad:
    gone = draw(st.sampled_from([key for key in (*LEAVES, *SECTIONS) if key not in ADDED]))
    comment = draw(st.just("") | WORDS.map("# {}\n".format))
    if gone in SECTIONS:
        return with_section(gone, "").replace(f"{gone}:\n", comment), f"{gone} is missing"
    section, _, name = _parted(gone)
    text = re.sub(rf"(?m)^ *{name}: GONE\n", comment, put(gone, "GONE"))
    alone = section in ("fetch", "promote")  # these have only one key: the section becomes empty
    return text, f"{section} must be a section" if alone else f"{gone} is missing"


@st.composite
def wrong_nesting(draw: DrawFn) -> Bad:
    opening, inner, closing = draw(st.sampled_from([("[", "", "]"), ("{a: ", "1", "}")]))
    depth = draw(st.sampled_from([1, 2, 50, 1000]))
    value = opening * depth + inner + closing * depth
    key = draw(st.sampled_from([*LEAVES, *SECTIONS]))
    if key in LEAVES:
        return put(key, value), key
    inside = draw(st.permutations(SECTIONS))
    flat = [f" {value}", " 3", " x", " ~", "", "".join(f"\n  {one}: 1" for one in inside)]
    return with_section(key, draw(st.sampled_from(flat))), key


@st.composite
def tags(draw: DrawFn) -> Bad:
    tag = draw(st.sampled_from(TAGS)).format(it="executed")
    key = draw(st.sampled_from([*LEAVES, *SECTIONS]))
    named = f"{key}: has the YAML tag "
    if key in SECTIONS:
        return REFERENCE.replace(f"\n{key}:\n", f"\n{key}: {tag.split()[0]}\n"), named
    around = draw(st.sampled_from(["{}", "[{}]", "[[1, {}]]", "&a {}"]))
    return put(key, around.format(tag)), named


@st.composite
def anchors(draw: DrawFn) -> Bad:
    key, name = draw(KEYS), draw(WORDS)
    laughs = "&l0 [x, x, x, x, x, x, x, x, x]" + "".join(
        f", &l{level} [{', '.join([f'*l{level - 1}'] * 9)}]" for level in range(1, 12)
    )
    bad = [
        *(f"*{name}", f"&{name} [*{name}]", f"&{name} {{a: *{name}}}", f"{{<<: *{name}}}"),
        *(f"[&{name} 1, &{name} 2]", f"[{laughs}]", f"&{name}:", "&", "*"),
    ]
    return put(key, draw(st.sampled_from(bad))), key


@st.composite
def wrong_syntax(draw: DrawFn) -> Bad:
    key, value = draw(KEYS), draw(st.sampled_from([*CUT_SHORT, *TOO_MUCH, "TWICE"]))
    section, _, name = _parted(key)
    text, indent = put(key, value), "  " if section else ""
    line = text[: text.index(f"{name}: {value}")].count("\n") + 1
    if value == "TWICE":
        twice = put(key, f"1\n{indent}{name}: 1")
        return twice, f"line {line + 1}, column {len(indent) + 1}: {key}: occurs twice"
    if value in TOO_MUCH:
        return text, f"line {line}, column "
    return text, f": {key}"


@st.composite
def wrong_encodings(draw: DrawFn) -> Bad:
    text = put(draw(KEYS), draw(st.characters(min_codepoint=0xA1, max_codepoint=0xFF)))
    encoding = draw(st.sampled_from(["utf-16", "utf-16-le", "utf-32", "latin-1", "cp500", "utf-8"]))
    if encoding != "utf-8":
        return text.encode(encoding), "not "
    no_yaml = draw(st.sampled_from(["\0", "\ud800", "\x1b", "\uffff"]))
    return put(draw(KEYS), no_yaml).encode("utf-8", "surrogatepass"), "not "


KINDS = {
    kind.__name__: kind()
    for kind in (
        *(wrong_types, out_of_range, beyond_the_data, unknown_keys, missing_keys),
        *(wrong_nesting, tags, anchors, wrong_syntax, wrong_encodings),
    )
}
