"""Back ends and pools as operators see them."""

from __future__ import annotations

from lbarray.backends.ejection import CircuitState
from lbarray.backends.pool import NO_LIMIT, Member, Pool

__all__ = ["member_status", "pool_status"]


def member_status(member: Member, now: float) -> dict[str, object]:
    """One back end; ``now`` in the clock of its health."""
    circuit = member.circuit
    return {
        "address": f"{member.address.host}:{member.address.port}",
        "state": member.state.value,
        "since_s": round(now - member.health.since, 1),
        "check": member.health.last.said,
        "circuit": circuit.state.value,
        "ejected": int(circuit.state is CircuitState.OPEN),
        "ejected_for": circuit.why,
        "weight": member.weight,
        "share": round(member.share, 2),
        "outstanding": member.outstanding,
        "limit": None if member.limit == NO_LIMIT else member.limit,
        "requests": member.requests,
        "failures": member.failures,
        "idle": len(member.idle),
    }


def pool_status(pool: Pool) -> dict[str, object]:
    """A pool as a whole."""
    return {
        "fit": len(pool.fit),
        "back_ends": len(pool.members),
        "outstanding": pool.outstanding,
        "idle": pool.idle,
        "limit": None if pool.limits.max_requests == NO_LIMIT else pool.limits.max_requests,
        "queued": len(pool.queue),
        "requests": pool.requests,
        "retries": pool.retries,
    }
