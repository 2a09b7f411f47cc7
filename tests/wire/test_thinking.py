"""`<think>` is taken out of a text wherever the text was cut."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.models.thinking import Tags


def split(pieces: list[str], *, implied: bool = False) -> tuple[str, str]:
    tags = Tags(implied=implied)
    out = [part for piece in pieces for part in tags.feed(piece)] + tags.end()
    thinking = "".join(text for part, text in out if part == "thinking")
    return thinking, "".join(text for part, text in out if part == "text")


def test_thoughts_and_answer_are_told_apart() -> None:
    assert split([" \n<think>\nHm.\n</think>\n\nYes."]) == ("Hm.\n", "Yes.")


def test_only_a_tag_at_the_start_counts() -> None:
    assert split(["See <think>x</think>."]) == ("", "See <think>x</think>.")


def test_a_second_pair_is_text() -> None:
    assert split(["<think>a</think>b<think>c</think>"]) == ("a", "b<think>c</think>")


def test_an_end_without_a_start_is_text() -> None:
    assert split(["a</think>b"]) == ("", "a</think>b")


def test_an_implied_start_needs_no_tag() -> None:
    assert split(["\nHm.</think>", "\nYes."], implied=True) == ("Hm.", "Yes.")


def test_a_start_without_an_end_is_all_thought() -> None:
    assert split(["<think>Hm</thi"]) == ("Hm</thi", "")


def test_half_a_tag_at_the_end_is_text() -> None:
    assert split(["<thi"]) == ("", "<thi")


def test_what_may_be_a_tag_is_held_back_no_longer_than_that() -> None:
    tags = Tags()

    assert tags.feed("<th") == []
    assert tags.feed("e") == [("text", "<the")]
    assert tags.settled


def test_a_lot_of_white_space_is_not_kept() -> None:
    tags = Tags()

    assert tags.feed(" " * 65) == [("text", " " * 65)]


PIECES = st.lists(
    st.sampled_from(["<think>", "</think>", "<", "</", "th", "ink>", " ", "\n", "ab"])
)


@given(pieces=PIECES, implied=st.booleans())
@settings(deadline=None)
def test_splits_change_nothing(pieces: list[str], *, implied: bool) -> None:
    whole = "".join(pieces)

    assert split(pieces, implied=implied) == split([whole], implied=implied)
    assert split(list(whole), implied=implied) == split([whole], implied=implied)


@given(text=st.text())
@settings(deadline=None)
def test_text_without_tags_passes_unchanged(text: str) -> None:
    if "<think>" not in text:
        assert split([text]) == ("", text)
