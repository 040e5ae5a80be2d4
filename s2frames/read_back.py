"""The requests that a reconciliation needs."""

from __future__ import annotations

from s2frames.errors import AppendConditionFailed, SeqNumMismatch
from s2frames.operation import Plan, ask, read_range
from s2frames.reconcile import Finding, Reconciliation
from s2frames.rest import check_tail
from s2frames.target import StreamTarget

__all__ = ["read_back"]


def read_back(
    target: StreamTarget, reconciliation: Reconciliation, refusal: AppendConditionFailed
) -> Plan[Finding]:
    """Read what stands in the stream from the first unacked batch on.

    Up to where the service said that the tail is, or, when it said something about the fencing
    token instead, up to where it is now: the service checks the token first, so that batches may
    have landed all the same.
    """
    if isinstance(refusal, SeqNumMismatch):
        end = refusal.expected
    else:
        tail = yield from ask(check_tail(target.settings, target.basin, target.stream))
        end = tail.seq_num
    yield from read_range(target, reconciliation.next_seq_num, end, reconciliation.take)
    reconciliation.finish(end)
    return reconciliation.finding
