"""The keyword arguments with which clients open sessions: the same for every adapter."""

from __future__ import annotations

from typing import TypedDict

from s2frames.checkpoint import Checkpoint
from s2frames.retry import Retry
from s2frames.writer_state import WriterState

__all__ = ["AppendOptions", "ReadOptions"]


class AppendOptions(TypedDict, total=False):
    """Options of `append_session`; `s2frames.settings.AppendSettings` tells what each means."""

    dedupe: bool
    resume: WriterState | None
    writer_id: str | None
    first_dedupe_seq: int | None
    exclusive: bool
    match_seq_num: int | None
    fencing_token: str | None
    allow_duplicates: bool
    max_frame_bytes: int
    linger: float
    max_inflight_batches: int
    max_inflight_bytes: int
    retry: Retry | None


class ReadOptions(TypedDict, total=False):
    """Options of `read_session`; `s2frames.settings.ReadSettings` tells what each means."""

    start: int | Checkpoint
    timestamp: int | None
    last: int | None
    follow: bool
    wait: int | None
    limit: int | None
    until: int | None
    end: int | None
    dedupe: bool
    max_frame_bytes: int
    max_writers: int
    max_buffered_bytes: int | None
    max_reread: int
    max_scan_bytes: int
    retry: Retry | None
