"""The certificates of one service while it runs: chosen by name, read anew when their files change, watched to the end.

A connection keeps the certificate that it began with. The context that connections are made from is not replaced
by a reload, so session tickets outlive it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence

from OpenSSL import SSL
from twisted.logger import Logger

from lbarray.errors import SystemRefused
from lbarray.telemetry.counters import Counters
from lbarray.worker.tls.certificates import (
    Certificate,
    CertificateFiles,
    expiry_text,
    fingerprint_of_files,
    read_certificate,
)
from lbarray.worker.tls.contexts import Policy, base_context, certificate_context, on_server_name
from lbarray.worker.tls.names import NameTable
from lbarray.worker.tls.ocsp import Staple, read_staple

__all__ = ["TICKET_KEY_S", "CertificateStore"]

#: Seconds after which session tickets get another key: what an old key could open, it opens no longer.
TICKET_KEY_S = 86400.0

#: Days before its end at which a certificate is worth a warning in the log.
WARN_DAYS = (14, 7, 3, 1, 0)


class CertificateStore:
    """Contexts for one service.

    :param service: its name in the configuration.
    :param files: the default certificate first.
    :param strict: clients that ask for a name no certificate has are refused.
    :param now: seconds since the epoch.
    :ivar context: connections are made from it.
    """

    log = Logger()

    def __init__(
        self,
        *,
        service: str,
        files: Sequence[CertificateFiles],
        policy: Policy,
        strict: bool,
        counters: Counters,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.service = service
        self.context: SSL.Context
        self.certificates: tuple[Certificate, ...] = ()
        self._files = tuple(files)
        self._policy = policy
        self._strict = strict
        self._counters = counters
        self._now = now
        self._names: NameTable[SSL.Context]
        self._staples: dict[int, Staple] = {}
        self._staple_files: dict[int, tuple[tuple[int, int, int], ...]] = {}
        self._seen: tuple[tuple[int, int, int], ...] = ()
        self._seen_ca: tuple[tuple[int, int, int], ...] = ()
        self._warned: dict[str, int] = {}
        self._front_since = 0.0
        self._key = f"services.{service}.tls"
        self._session_id = hashlib.sha256(service.encode()).digest()

    # Reading

    def load(self, *, warn: bool = True) -> None:
        """Read everything for the first time.

        :param warn: say what ends soon; not where others will.
        :raises SystemRefused: it cannot be used.
        """
        self._load_certificates()
        self._load_front()
        if warn:
            self.check_expiry()

    def _load_front(self) -> None:
        self.context = base_context(self._policy, session_id=self._session_id, key=self._key)
        on_server_name(self.context, self._choose)
        self._front_since = self._now()

    def _ca_files(self) -> tuple[tuple[int, int, int], ...]:
        return fingerprint_of_files([self._policy.clients.ca]) if self._policy.clients.ca else ()

    def _load_certificates(self) -> None:
        seen = fingerprint_of_files([path for files in self._files for path in files.paths()])
        seen_ca = self._ca_files()
        certificates = [
            read_certificate(files, key=self._key if place == 0 else f"{self._key}.certificates[{place - 1}]")
            for place, files in enumerate(self._files)
        ]
        names = self._table(certificates)
        self.certificates, self._names, self._seen, self._seen_ca = tuple(certificates), names, seen, seen_ca
        self._staple_files = {}
        self._refresh_staples()

    def _table(self, certificates: Sequence[Certificate]) -> NameTable[SSL.Context]:
        """One context for each set of certificates that share a name."""
        contexts: dict[tuple[int, ...], SSL.Context] = {}

        def context_for(names: Sequence[str], first: int) -> SSL.Context:
            kinds: dict[str, int] = {certificates[first].kind: first}
            for place, other in enumerate(certificates):
                if set(names) & set(other.names):
                    kinds.setdefault(other.kind, place)
            chosen = tuple(sorted(kinds.values()))
            if chosen not in contexts:
                contexts[chosen] = self._context(chosen, [certificates[place] for place in chosen])
            return contexts[chosen]

        entries = [
            ([name], context_for([name], place))
            for place, certificate in enumerate(certificates)
            for name in certificate.names
        ]
        default = context_for(certificates[0].names, 0)
        return NameTable(entries, default=default, strict=self._strict)

    def _context(self, places: Sequence[int], certificates: Sequence[Certificate]) -> SSL.Context:
        context = certificate_context(self._policy, certificates, session_id=self._session_id, key=self._key)
        if any(certificate.files.ocsp for certificate in certificates):
            by_serial = {certificate.leaf.serial_number: certificate.leaf for certificate in certificates}

            def staple(connection: SSL.Connection, data: object) -> bytes:
                ours = connection.get_certificate()
                serial = ours.get_serial_number() if ours is not None else None
                if serial not in by_serial:
                    return b""
                found = self._staples.get(serial)
                return found.at(self._now()) if found is not None else b""

            context.set_ocsp_server_callback(staple)
        return context

    def _choose(self, name: str | None) -> SSL.Context | None:
        found = self._names.find(name)
        if found is None:
            self._counters.add("tls_refused", "unknown_name" if name else "no_name")
        return found

    # While running

    def refresh(self) -> bool:
        """Look whether files have changed, and use what they hold now; true when certificates were read anew.

        What cannot be used changes nothing: the certificates in use stay, and the log says why.
        """
        self._refresh_staples()
        if self._now() - self._front_since > TICKET_KEY_S:
            self._load_front()
        seen = fingerprint_of_files([path for files in self._files for path in files.paths()])
        if (seen, self._ca_files()) == (self._seen, self._seen_ca):
            return False
        return self.reload()

    def reload(self) -> bool:
        """Read all files anew, changed or not."""
        ca_before = self._seen_ca
        try:
            self._load_certificates()
            if self._seen_ca != ca_before:
                # Other authorities: sessions that the old ones vouched for must not be taken up again.
                self._load_front()
        except SystemRefused as error:
            # Told once for each change of the files, not at each look.
            self._seen = fingerprint_of_files([path for files in self._files for path in files.paths()])
            self._seen_ca = self._ca_files()
            self._counters.add("certificate_reloads", "failed")
            self.log.error("service {service} keeps its certificates: {error}", service=self.service, error=error)
            return False
        self._counters.add("certificate_reloads", "done")
        self.log.info("service {service}: certificates read anew", service=self.service)
        self.check_expiry()
        return True

    def follow(self, other: CertificateStore) -> None:
        """Use what another store of this service has read. Session tickets live on unless what is spoken differs."""
        same = (other._policy, other._seen_ca) == (self._policy, self._seen_ca)
        self.certificates, self._names, self._strict = other.certificates, other._names, other._strict
        self._files, self._seen, self._seen_ca = other._files, other._seen, other._seen_ca
        self._staples, self._staple_files = other._staples, other._staple_files
        self._policy = other._policy
        if not same:
            self._load_front()

    def _refresh_staples(self) -> None:
        now = self._now()
        for certificate in self.certificates:
            path = certificate.files.ocsp
            if path is None:
                continue
            serial = certificate.leaf.serial_number
            seen = fingerprint_of_files([path])
            if self._staple_files.get(serial) == seen:
                continue
            self._staple_files[serial] = seen
            staple = self._staples[serial] = read_staple(path, certificate.leaf, now)
            if staple.why:
                self._counters.add("ocsp_staples", "refused")
                self.log.warn(
                    "no staple for {names} from {path}: {why}", names=certificate.names, path=path, why=staple.why
                )
            else:
                self._counters.add("ocsp_staples", "read")

    def check_expiry(self) -> None:
        """Warn of certificates that end soon; each number of days is told once."""
        now = self._now()
        for certificate in self.certificates:
            left = certificate.days_left(now)
            due = [days for days in WARN_DAYS if left <= days]
            path = str(certificate.files.certificate)
            if not due or self._warned.get(f"{path}{certificate.not_after}", 10000) <= due[-1]:
                continue
            self._warned[f"{path}{certificate.not_after}"] = due[-1]
            self.log.warn(
                "service {service}: the certificate {path} {ends} {when}; put a new one in its place",
                service=self.service,
                path=path,
                ends="has ended on" if left <= 0 else "ends on",
                when=expiry_text(certificate.not_after),
            )

    def status(self) -> list[dict[str, object]]:
        """What the console shows: each certificate, and for how long it is good."""
        now = self._now()
        return [
            {
                "file": str(certificate.files.certificate),
                "names": list(certificate.names),
                "kind": certificate.kind,
                "not_after": expiry_text(certificate.not_after),
                "days_left": round(certificate.days_left(now), 1),
                "stapled": self._stapled(certificate, now),
            }
            for certificate in self.certificates
        ]

    def _stapled(self, certificate: Certificate, now: float) -> bool:
        staple = self._staples.get(certificate.leaf.serial_number)
        return staple is not None and bool(staple.at(now))
