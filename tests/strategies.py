"""Hypothesis strategies that several test files draw from."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from s2frames.records import Header, Record, SequencedRecord, StreamPosition
from s2frames.u64 import U64_MAX

# The ends of the range, and where a varint or a signed number of another length begins.
u64s: st.SearchStrategy[int] = st.one_of(
    st.integers(0, U64_MAX),
    st.sampled_from([0, 1, 127, 128, 2**32, 2**53 - 1, 2**53, 2**63, U64_MAX]),
)

headers: st.SearchStrategy[tuple[Header, ...]] = st.lists(
    st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=5
).map(tuple)

records: st.SearchStrategy[Record] = st.builds(
    Record, st.binary(max_size=300), headers, st.none() | u64s
)

positions: st.SearchStrategy[StreamPosition] = st.builds(StreamPosition, u64s, u64s)

sequenced_records: st.SearchStrategy[SequencedRecord] = st.builds(
    SequencedRecord, u64s, u64s, headers, st.binary(max_size=300)
)

any_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
    max_leaves=20,
)
