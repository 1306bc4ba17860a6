"""Makes the kernel's table of policies equal to the desired one, in one transaction with only the differences.

After a restart the table in the kernel is kept: the name of a chain or set depends on its content, so equal ones match.
Must not: touch another table, or decide what is allowed.
"""

import errno

from cni_kernel.errors import asking
from cni_kernel.netlink import NetlinkError
from cni_kernel.nft_tables import Contents, TableSocket
from cni_node.policy.change import Change, Difference
from cni_node.policy.desired import PENDING, Desired
from cni_node.policy.model import DIRECTIONS
from cni_node.policy.rules import TABLE, TYPES, Digests, Ruleset, denied_chain

_TRIES = 8  # others may change their own tables between our look and our change
_AGAIN = (errno.ERESTART, errno.EEXIST, errno.ENOENT, errno.EBUSY)


class PolicyTable:
    """The table, in the network namespace that the process is in."""

    def __init__(self) -> None:
        """Raises KernelError."""
        with asking("nftables cannot be used", "nf_tables"):
            self._socket = TableSocket(TABLE)
        self._known: Contents | None = None
        self._digests: dict[str, Digests] = {}  # of chains by their names, since most are the same the next time

    @property
    def port(self) -> int:
        """The address that the kernel's notifications name for what this has changed."""
        return self._socket.port

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def forget(self) -> None:
        """Read the table again the next time, since another program has changed it."""
        self._known = None

    def ensure(self, desired: Desired, *, adopting: bool = False) -> Change:
        """Have exactly this; with `adopting` isolated pods of an earlier agent that are not known wait.

        Returns what that changed. Raises KernelError.
        """
        wanted = Ruleset(desired, self._digests)
        self._digests = wanted.digests
        anew = False
        with asking("the table of policies cannot be written", "nf_tables"):
            for _ in range(_TRIES):
                fresh = self._known is None
                try:
                    return self._ensure(wanted, desired.judged, adopting=adopting, anew=anew)
                except NetlinkError as error:
                    self._known = None
                    if (anew or not fresh) and error.errno not in _AGAIN:
                        raise
                    # just read, and refused all the same: a chain or set is of another kind, as of another version
                    anew = fresh and error.errno != errno.ERESTART
            return self._ensure(wanted, desired.judged, adopting=adopting, anew=anew)

    def delete(self) -> None:
        """Take the whole table away: nothing is isolated any more. Raises KernelError."""
        self._known = None
        with asking("the table of policies cannot be deleted", "nf_tables"):
            if self._socket.read({}) is not None:
                self._socket.commit([self._socket.delete_table()], self._socket.generation())

    def denied(self) -> dict[str, int]:
        """Packets that were dropped, by why: a direction, "cut", "stray", "pending". Raises KernelError."""
        with asking("the counters of policies cannot be read", "nf_tables"):
            found = {direction: self._socket.counted(denied_chain(direction)) for direction in DIRECTIONS}
            return found | {name: self._socket.counted(name) for name in ("cut", "stray", PENDING)}

    def _ensure(self, wanted: Ruleset, judged: frozenset[bytes], *, adopting: bool, anew: bool) -> Change:
        generation = None
        if self._known is None:
            generation = self._socket.generation()
            self._known = self._socket.read(TYPES) or Contents({}, {})
        difference = Difference(wanted, self._known, judged, adopting=adopting, anew=anew)
        if difference.change != Change():
            # added first, since it may not be there; what the kernel refuses is something else then
            old = [self._socket.add_table(), self._socket.delete_table()] if anew else []
            self._socket.commit([*old, self._socket.add_table(), *difference.messages(self._socket)], generation)
            self._known = difference.after
        return difference.change
