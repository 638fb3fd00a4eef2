from pathlib import Path

from mnist_lstm.learning.fingerprint import code_digest, fingerprint


def test_different_facts_have_different_fingerprints() -> None:
    facts = {"seed": 0, "train": {"steps": 10, "batch_size": 5}}
    assert fingerprint(facts) == fingerprint({"train": {"batch_size": 5, "steps": 10}, "seed": 0})
    assert fingerprint(facts) != fingerprint(facts | {"seed": 1})
    assert fingerprint(facts) != fingerprint(facts | {"threads": 2})


def test_a_comment_does_not_change_the_digest_of_code(tmp_path: Path) -> None:
    source = tmp_path / "code.py"
    digests = []
    for text in ("x = 1 + 2\n", "# why\nx = (1 +\n     2)\n", "x = 1 + 3\n"):
        source.write_text(text)
        digests.append(code_digest([source]))
    assert digests[0] == digests[1] != digests[2]
    for content in (b"x = 1 # \xe4\n", b"x = 2 # \xe4\n", b"x = '\0'\n"):  # no Python
        source.write_bytes(content)
        digests.append(code_digest([source]))
    assert len(set(digests)) == 5
