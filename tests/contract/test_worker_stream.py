"""What drivers and workers say to each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmldnn_contract.worker_stream import (
    Begin,
    Ended,
    MessageReader,
    Printed,
    Stop,
    format_message,
    parse_message,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
MESSAGES = st.one_of(
    st.builds(Begin, st.lists(TEXTS).map(tuple), st.dictionaries(TEXTS, TEXTS)),
    st.just(Stop()),
    st.builds(Printed, st.binary()),
    st.builds(Ended, st.integers(-64, 255)),
)


@given(st.lists(MESSAGES), st.integers(1, 40))
def test_a_stream_cut_anywhere_says_what_was_said(messages, size):
    stream = b"".join(map(format_message, messages))
    reader = MessageReader()
    chunks = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert [message for chunk in chunks for message in reader.feed(chunk)] == messages


def test_a_message_is_one_line_of_json():
    assert format_message(Printed(b"a\n\xff")) == b'{"output": "a\\n\\u00ff"}\n'


@pytest.mark.parametrize("line", [b"[]", b"{}", b'{"stop": false}', b'{"status": "1"}'])
def test_anything_else_is_refused(line):
    with pytest.raises(ValueError, match="is no message of a worker"):
        parse_message(line)


def test_what_is_no_json_is_refused():
    with pytest.raises(ValueError, match="Expecting value"):
        parse_message(b"Traceback")
