"""What a plug-in file needs of lbarray. Small on purpose: every twistd on the machine may import it.

A file ``twisted/plugins/NAME.py`` of any installed wheel may hold::

    from lbarray.plugin import PolicyMaker
    tidal = PolicyMaker("tidal", "By the moon.", "acme.tidal:Tidal")

and ``policy = "tidal"`` works from then on.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import attrs
from twisted.plugin import IPlugin, getPlugins
from zope.interface import Attribute, implementer

__all__ = ["IBalancePolicyMaker", "IHealthProbeMaker", "PolicyMaker", "PolicySettings", "ProbeMaker", "makers"]


@attrs.frozen(kw_only=True)
class PolicySettings:
    """What a balance policy is made with; each takes what it needs.

    :ivar seconds: a clock that nobody sets back.
    :ivar chance: random numbers.
    :ivar seed: the same on every node of the array and secret: clients cannot aim at one back end.
    :ivar slack: share by which a back end may have more than its part before its keys spill, above 0.
    :ivar decay_s: after so many seconds what was measured counts for about a third.
    """

    seconds: Callable[[], float] = time.monotonic
    chance: random.Random = attrs.field(factory=random.Random)
    seed: bytes = b""
    slack: float = 0.25
    decay_s: float = 10.0


class IBalancePolicyMaker(IPlugin):
    """A balance policy that a pool may name."""

    name: str = Attribute("what the configuration's ``policy`` says")
    summary: str = Attribute("when to choose it, in one sentence")

    def make(settings: PolicySettings) -> object:
        """A fresh :class:`lbarray.interfaces.IBalancePolicy` for one pool."""


class IHealthProbeMaker(IPlugin):
    """A health check that a pool may name."""

    name: str = Attribute("what the configuration's ``check.kind`` says")
    summary: str = Attribute("what it finds out, in one sentence")

    def make(reactor: object, check: object) -> object:
        """An :class:`lbarray.interfaces.IHealthProbe` by the pool's ``[pools.NAME.check]``."""


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


@implementer(IBalancePolicyMaker)
@attrs.frozen
class PolicyMaker:
    """Names the policy's class as text, ``module:Class``; it is imported when a pool wants it."""

    name: str
    summary: str
    place: str

    def make(self, settings: PolicySettings) -> object:
        """A fresh policy."""
        return _named(self.place)(settings)


@implementer(IHealthProbeMaker)
@attrs.frozen
class ProbeMaker:
    """Names the probe's class as text, ``module:Class``; it is imported when a pool wants it."""

    name: str
    summary: str
    place: str

    def make(self, reactor: object, check: object) -> object:
        """A probe."""
        return _named(self.place)(reactor, check)


def makers(interface: Any) -> dict[str, Any]:
    """Everything installed that provides ``interface``, by name; of two with one name the last one found."""
    found: Iterator[Any] = iter(getPlugins(interface))
    return {maker.name: maker for maker in found}
