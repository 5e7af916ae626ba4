"""Which configuration a node runs by, and how it takes up another one without losing anything."""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence

from twisted.logger import Logger

from lbarray.config.changes import PROCESSES_FIXED, Difference, differences, needing_restart
from lbarray.config.load import ConfigFile, load_file
from lbarray.config.model import Config
from lbarray.console.actions import Refused
from lbarray.errors import ArrayError, SystemRefused
from lbarray.node.array_changes import follow_array, gone_vips, hold_new_vips, let_go_of_vips
from lbarray.node.backend_parts import backends_settings
from lbarray.node.process_parts import process_count, process_settings
from lbarray.node.rewriting import rewriting_settings
from lbarray.node.worker_parts import make_access_log, make_tracing, worker_settings
from lbarray.values import PlaneService
from lbarray.worker.processes.parent import WorkerProcesses

if typing.TYPE_CHECKING:
    from lbarray.node.service import NodeService

__all__ = ["Configuring", "NeedsRestart"]


class NeedsRestart(Refused):
    """A configuration that differs in what a running node cannot change. ``found``: each with its reason."""

    reason = "needs_restart"

    def __init__(self, found: Sequence[tuple[Difference, str]]) -> None:
        listed = "; ".join(f"{difference} ({why})" for difference, why in found[:10])
        more = f"; and {len(found) - 10} more" if len(found) > 10 else ""
        super().__init__(
            f"nothing was changed: a running node cannot take up {listed}{more}. "
            "Restart the nodes one after the other instead (systemctl restart lbarray): clients notice nothing"
        )


class Configuring:
    """Keeps a node and its configuration file together.

    :ivar file: what the node runs by; ``None`` without a file (``twistd lbarray rewrite``).
    """

    log = Logger()

    def __init__(self, node: NodeService, file: ConfigFile | None) -> None:
        self.file = file
        self._node = node
        self._since = node.reactor.seconds()
        self._refused = ""
        self._listeners: list[Callable[[Config], None]] = []

    @property
    def version(self) -> str:
        """That of the file; empty without one."""
        return self.file.version if self.file else ""

    def status(self) -> dict[str, object]:
        """What the console shows."""
        return {
            "file": str(self.file.path) if self.file else "",
            "version": self.version,
            "since_s": round(self._node.reactor.seconds() - self._since, 1),
            "refused": self._refused,
        }

    def subscribe(self, taken_up: Callable[[Config], None]) -> None:
        """Call ``taken_up`` with each configuration that the node has begun to run by."""
        self._listeners.append(taken_up)

    def reload(self) -> list[Difference]:
        """Take up what the file says now. What differs is returned.

        :raises ArrayError: it will not do; nothing has changed.
        """
        if self.file is None:
            raise Refused("this node was started without a configuration file: there is nothing to reload")
        try:
            found = load_file(self.file.path)
            return self.take_up(found)
        except ArrayError as error:
            self._refused = str(error)
            self.log.error("configuration not taken up, the one before goes on: {error}", error=error)
            raise

    def take_up(self, new: ConfigFile) -> list[Difference]:
        """Run by this configuration from now on; only what differs is touched.

        :raises ArrayError: it cannot be; nothing has changed.
        """
        old = self._node.config
        found = differences(old, new.config)
        self.check_live(found, new.config)
        try:
            self._apply(old, new.config)
        except SystemRefused:
            self._apply(new.config, old)
            raise
        self._node.config = new.config
        for taken_up in self._listeners:
            taken_up(new.config)
        self.file = new
        if self._node.weighing is not None:
            self._node.weighing.forget()
        self._since = self._node.reactor.seconds()
        self._refused = ""
        said = "; ".join(str(difference) for difference in found) or "nothing differs"
        self.log.info("configuration {version} taken up: {said}", version=new.version, said=said[:2000])
        return found

    def check_live(self, found: list[Difference], new: Config) -> None:
        """:raises NeedsRestart: among these differences is one that this node cannot take up while it runs."""
        stuck = [(difference, difference.fixed_because) for difference in needing_restart(found)]
        by_processes = isinstance(self._node.worker, WorkerProcesses)
        if self._node.worker is not None and by_processes != (process_count(new) > 0):
            stuck += [(each, PROCESSES_FIXED) for each in found if each.key == "worker.processes"]
        if stuck:
            raise NeedsRestart(stuck)

    def _apply(self, old: Config, new: Config) -> None:
        """Room by room, in one turn of the reactor: no client meets half of it."""
        node = self._node
        hold_new_vips(node, old, new)
        if node.backends is not None and node.worker is not None and node.rewriting is not None:
            if (new.cdn, new.filters) != (old.cdn, old.filters):
                node.rewriting.reconfigure(**rewriting_settings(config=new, counters=node.counters))
            # The worker first: it is the one that the machine may refuse something.
            if isinstance(node.worker, WorkerProcesses):
                node.worker.reconfigure(
                    **process_settings(config=new, node_name=node.node_name, secret=node.secret, counters=node.counters)
                )
            else:
                node.worker.reconfigure(
                    **worker_settings(config=new, node_name=node.node_name, rewriting=node.rewriting)
                )
                if new.access_log != old.access_log:
                    log = make_access_log(config=new, node_name=node.node_name, counters=node.counters)
                    node.worker.use_access_log(log)
                if new.tracing != old.tracing:
                    node.worker.use_tracing(
                        make_tracing(reactor=node.reactor, config=new, node_name=node.node_name, counters=node.counters)
                    )
            node.backends.reconfigure(
                **backends_settings(reactor=node.reactor, config=new, secret=node.secret),
            )
        if node.acceptance is not None:
            node.acceptance.targets = tuple(node.places(new))
        if node.scheduler is not None:
            wanted = plane_services(new)
            gone = [service for service in plane_services(old) if service.id not in {each.id for each in wanted}]
            # Their last clients still need their packets: without the service, our own stack would answer with resets.
            node.scheduler.reconfigure([*wanted, *gone])
            if gone or gone_vips(old, new):
                node.reactor.callLater(new.worker.stop_grace, self._forget)
        follow_array(node, old, new)

    def _forget(self) -> None:
        """The last clients of services that are gone have had their time."""
        node = self._node
        if node.scheduler is not None and node.running:
            try:
                node.scheduler.reconfigure(plane_services(node.config))
                let_go_of_vips(node)
            except SystemRefused as error:
                self.log.error("{error}", error=error)


def plane_services(config: Config) -> list[PlaneService]:
    """The services as the forwarding plane knows them."""
    return [config.plane_service(name) for name in config.services]
