"""From a file to characters and numbers: encodings, line ends, what is refused and where."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_np.text import TextError, Vocabulary, VocabularyError, example, read_text
from lstm_np.text.characters import printable

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"abc\n", "abc\n"),
        (b"\xef\xbb\xbfabc", "abc"),
        ("häß €😀".encode(), "häß €😀"),
        (b"one\r\ntwo\rthree\n", "one\ntwo\nthree\n"),
        (b"a\x00b\x1b[0m", "a\x00b\x1b[0m"),
    ],
)
def test_a_text_is_read(tmp_path, content, text):
    (tmp_path / "t").write_bytes(content)
    assert read_text(tmp_path / "t") == text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"t: the file is empty; name a text to learn from"),
        (b"\xef\xbb\xbf", r"t: the file is empty; name a text to learn from"),
        (b"ab\ncd\xff", r"t: not UTF-8: byte 0xFF at offset 5 \(line 2\) belongs to no character; convert it, or name"),
        (b"\xef\xbb\xbfab\xc3", r"byte 0xC3 at offset 5 \(line 1\)"),
        (b"x" * 5000 + b"\xc0", r"byte 0xC0 at offset 5,000 \(line 1\)"),
        ("ab".encode("utf-16"), r"byte 0xFF at offset 0 \(line 1\) .*; it begins as UTF-16 does: convert it"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, content, said):
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(TextError, match=said) as error:
        read_text(tmp_path / "t")
    assert "\n" not in str(error.value)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
@settings(max_examples=50, deadline=None)
def test_numbers_are_those_of_the_characters_in_the_order_of_code_points(text):
    if len(set(text)) < 2:
        text += "\x00\U0010ffff"
    vocabulary = Vocabulary.of(text)
    assert vocabulary.characters == tuple(sorted(set(text)))
    codes = vocabulary.encode(text)
    assert codes.tolist() == [vocabulary.characters.index(one) for one in text]
    assert vocabulary.decode(codes) == text


def test_characters_that_are_not_known_are_named_with_their_positions():
    vocabulary = Vocabulary.of("abc ")
    said = (
        "the vocabulary of 4 characters lacks 'd' (U+0064) at position 4, '€' (U+20AC) at position 6, '\\U0010ffff' "
        "(U+10FFFF) at position 7; leave them out"
    )
    with pytest.raises(VocabularyError, match=f"^{re.escape(said)}$"):
        vocabulary.encode("abcdd€\U0010ffff")
    with pytest.raises(VocabularyError, match=r"'4' \(U\+0034\) at position 5 and 3 more; leave"):
        vocabulary.encode("01234567")
    with pytest.raises(VocabularyError, match=r"U\+DCFF"):  # a byte of a command line that is no text
        vocabulary.encode("a\udcff")
    assert vocabulary.encode("").shape == (0,)


@pytest.mark.parametrize(
    ("characters", "said"),
    [
        ([], "at least two different characters, found none"),
        (["a"], "at least two different characters, found 'a'"),
        (["a", "b", "a"], "each of its characters once"),
        (["a", "bc"], "single characters"),
        (["a", 5], "single characters"),
    ],
)
def test_what_is_no_vocabulary(characters, said):
    with pytest.raises(VocabularyError, match=said):
        Vocabulary(characters)


def test_what_a_terminal_is_shown():
    assert printable("tab\tand\nline, é€") == "tab\tand\nline, é€"
    assert printable("\x1b[2J\x00\r\udcff") == "\\x1b[2J\\x00\\r\\udcff"


def test_the_example_is_a_function_of_its_seed_and_its_blocks_are_balanced():
    text = example(20_000)
    assert len(text) == 20_000
    assert text.startswith(example(500))
    assert example(500, seed=1) != example(500)
    whole = text[: text.rindex("\n\n")]
    assert whole.count("(") == whole.count(")")
    assert whole.count("[") == whole.count("]")
    opened = []
    for line in whole.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word in ("begin", "if", "repeat"):
            opened.append(re.match(r"\w+", rest)[0] if word == "begin" else word)
        elif word == "end":
            assert rest == opened.pop()
            assert len(line) - len(line.lstrip()) == 4 * len(opened)
    assert not opened
    assert np.mean([line.startswith(" ") for line in whole.splitlines()]) > 0.5
