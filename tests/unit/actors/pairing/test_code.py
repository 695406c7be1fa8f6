"""Code of a pairing: the words, and how owners type them."""

import pytest

from fastn_p2p_actors.pairing.code import InvalidCode, matching_words, meeting_words, new_code, read_code, word_list


def test_the_list_has_2048_words_that_their_first_four_letters_tell_apart() -> None:
    words = list(word_list().values())
    assert len(words) == 2048
    assert words == sorted(words)
    assert all(word.isascii() and word.isalpha() and word.islower() and 4 <= len(word) <= 8 for word in words)
    assert all(word_list()[word[:4]] == word for word in words)


def test_new_codes_are_read_as_they_are() -> None:
    codes = {new_code() for _ in range(50)}
    assert len(codes) == 50
    for code in codes:
        assert read_code([code]) == read_code(code.split()) == code


@pytest.mark.parametrize(
    "texts",
    [
        ["tunnel", "bundle", "sonic", "slight"],
        ["tunnel-bundle-sonic-slight"],
        ["TUNNEL, Bundle,", " sonic\tslight.\n"],
        ["tunn", "bund", "soni", "slig"],
        ["tunne bundl", "sonic slight"],
    ],
)
def test_owners_may_type_words_in_many_ways(texts: list[str]) -> None:
    assert read_code(texts) == "tunnel bundle sonic slight"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "these are 0"),
        ("tunnel bundle sonic", "these are 3"),
        ("tunnel bundle sonic slight sonic", "these are 5"),
        ("tunnel bundle sonic sli", "'sli' is not one of the words"),
        ("tunnel bundle sonic slightly", "'slightly' is not one of the words. Did you mean 'slight'?"),
        ("tunel bundle sonic slight", "'tunel' is not one of the words. Did you mean 'tunnel'?"),
    ],
)
def test_other_text_is_no_code(text: str, words: str) -> None:
    with pytest.raises(InvalidCode) as caught:
        read_code([text])
    assert words in str(caught.value)


def test_completion_offers_the_words_that_begin_so() -> None:
    assert matching_words("tunn") == ["tunnel"]
    assert matching_words("TUN") == ["tuna", "tundra", "tune", "tunnel"]
    assert matching_words("xyz") == []


def test_the_first_two_words_find_the_host() -> None:
    assert meeting_words("tunnel bundle sonic slight") == "tunnel bundle"
