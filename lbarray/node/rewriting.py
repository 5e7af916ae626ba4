"""What of a configuration rewriting follows: the rules of ``[cdn]``, the plug-ins of ``[[filters]]``."""

from __future__ import annotations

from typing import Any

from lbarray.config.cdn import Cdn
from lbarray.config.model import Config
from lbarray.rewrite.cdn import CdnFilter
from lbarray.rewrite.pages import PageRule, PageRules
from lbarray.rewrite.plugins import make_filter
from lbarray.rewrite.probes import ProbeSettings
from lbarray.rewrite.rules import CdnRules
from lbarray.rewrite.service import Chained
from lbarray.telemetry.counters import Counters

__all__ = ["cdn_filter", "cdn_rules", "rewriting_settings"]


def rewriting_settings(*, config: Config, counters: Counters) -> dict[str, Any]:
    """For the service: at the start, and by ``reconfigure`` while it runs.

    :raises BadConfig: a plug-in is not there, or does not accept its options.
    """
    cdn = config.cdn
    return {
        "cdn": cdn_filter(cdn, counters) if cdn is not None else None,
        "chain": [
            Chained(
                filter=make_filter(each.use, each.options, f"filters[{place}]"),
                host=each.host.lower().encode(),
                path=each.path.encode(),
                max_size=each.max_size,
            )
            for place, each in enumerate(config.filters)
        ],
        "probes": _probes(cdn) if cdn is not None else None,
        "memo_octets": cdn.memo if cdn is not None else 0,
    }


def cdn_rules(cdn: Cdn) -> CdnRules:
    """What is moved where."""
    return CdnRules(
        hosts=cdn.every_host,
        scheme="" if cdn.scheme == "relative" else cdn.scheme,
        paths=cdn.paths,
        globs=cdn.globs,
        extensions=cdn.extensions,
        exclude=cdn.exclude,
        types=cdn.types,
        min_size=cdn.min_size,
        max_size=cdn.max_size,
        own_hosts=cdn.own_hosts,
        version=cdn.version or "",
        attributes=cdn.attributes,
        css=cdn.css,
        embeds=cdn.embeds,
        metas=cdn.metas,
        import_maps=cdn.import_maps,
        add_crossorigin=cdn.add_crossorigin,
    )


def cdn_filter(cdn: Cdn, counters: Counters) -> CdnFilter:
    """What decides about responses."""
    return CdnFilter(
        rules=cdn_rules(cdn),
        pages=PageRules(
            [
                PageRule(
                    host=page.host.lower().encode(),
                    path=page.path.encode(),
                    rewrite=page.rewrite,
                    share=page.percent / 100,
                )
                for page in cdn.pages
            ],
            share=cdn.percent / 100,
            skip_cookies=[name.encode() for name in cdn.skip_cookies],
        ),
        counters=counters,
        amend_csp=cdn.csp == "amend",
        link_fields=cdn.link_fields,
        manifests=cdn.manifests,
        location=cdn.location,
    )


def _probes(cdn: Cdn) -> ProbeSettings | None:
    check = cdn.check
    if check is None:
        return None
    return ProbeSettings(
        scheme="http" if cdn.scheme == "http" else "https",
        path=check.path,
        lowest=check.expect[0],
        highest=check.expect[1],
        interval_s=check.interval,
        timeout_s=check.timeout,
        rise=check.rise,
        fall=check.fall,
        connect=check.connect,
    )
