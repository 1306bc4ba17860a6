"""Calls to etcd over its JSON gateway: reads, conditional writes, leases, watches. It asks one member after
another until one answers.

Source: https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/ and api_reference_v3/
Must not: know what the keys mean.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from cni_node.api.client import ANSWER_BOUND, CallError, Client
from cni_node.api.credentials import Access, load_files, read_text
from cni_node.sources.etcd_members import Members
from cni_node.sources.etcd_messages import Batch, Entry, behind, encode, nonsense, to_batch, to_entry, to_number
from cni_protocol.errors import INVALID_CONFIG, CNIError

PAGE = 1000  # entries of one answer
SILENCE = 300.0  # seconds after which a watch without messages is begun again, which costs one request
AWAY = (0, 502, 503, 504)  # statuses (0: no answer) after which the next member is asked
# With this header, a member that has lost its leader ends its watches; without, it stays silent for ever.
HAS_LEADER = {"Grpc-Metadata-hasleader": "true"}
UNAUTHENTICATED, PERMISSION_DENIED = 16, 7  # gRPC's codes

_T = TypeVar("_T")


class EtcdAccess(NamedTuple):
    """How to reach etcd: URLs of its members, paths of PEM files, and a user with the path of a password file.

    Empty strings are none. `timeout` is that of one call, `silence` that of a watch, both in seconds.
    """

    endpoints: tuple[str, ...]
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    user: str = ""
    password_file: str = ""
    timeout: float = ANSWER_BOUND
    silence: float = SILENCE


class CompactedError(Exception):
    """etcd's history does not reach back to the wanted revision: the caller must list everything again."""


class Etcd:
    """A client of etcd. One thread uses it; `interrupt` and `close` are for any thread. All calls raise CallError.

    `members` may be shared with another client, so that both ask the same member. `left` is called when this client
    leaves a member.
    """

    def __init__(
        self, access: EtcdAccess, members: Members | None = None, left: Callable[[], None] = lambda: None
    ) -> None:
        if not access.endpoints:
            raise CNIError(INVALID_CONFIG, "etcd has no endpoint; one is expected, as in https://192.168.1.10:2379")
        self._access = access
        self._members, self._left = members or Members(access.endpoints), left
        self._token = ""
        self._closed = False
        self._client = self._new_client()

    def get(self, key: str) -> Entry | None:
        """The entry of a key, None when there is none."""
        entries, _ = self._range({"key": encode(key)})
        return entries[0] if entries else None

    def entries(self, prefix: str) -> tuple[list[Entry], int]:
        """All entries whose keys begin with `prefix`, sorted by key, and the revision at which they were read."""
        query: dict[str, Any] = {"range_end": encode(behind(prefix)), "limit": str(PAGE)}
        found: list[Entry] = []
        first, revision = prefix, 0
        while True:
            entries, now = self._range({**query, "key": encode(first)})
            found += entries
            revision = revision or now
            if len(entries) < PAGE:
                return found, revision
            first = entries[-1].key + "\0"
            query["revision"] = str(revision)

    def put_if(self, unchanged: dict[str, Entry | None], values: dict[str, str], lease: int) -> bool:
        """Write `values` in one transaction, if the entries `unchanged` are still the same (None: still absent).

        `lease` is the id of the lease for the values, 0 for none: then they stay for ever. Returns whether they were
        written.
        """
        revisions = {key: str(entry.modified if entry else 0) for key, entry in unchanged.items()}
        compare = [
            {"key": encode(key), "target": "MOD", "result": "EQUAL", "mod_revision": revision}
            for key, revision in revisions.items()
        ]
        tied = {"lease": str(lease)} if lease else {}
        puts = [{"request_put": {"key": encode(key), "value": encode(value), **tied}} for key, value in values.items()]
        return bool(self._call("kv/txn", {"compare": compare, "success": puts}).get("succeeded"))

    def grant(self, seconds: int) -> int:
        """Create a lease of some seconds. Returns its id."""
        return to_number(self._call("lease/grant", {"TTL": str(seconds)}), "ID")

    def keep_alive(self, lease: int) -> int:
        """Renew a lease. Returns its remaining seconds, 0 when it has ended."""
        answer = self._call("lease/keepalive", {"ID": str(lease)})
        result = answer.get("result")
        if not isinstance(result, dict):
            raise CallError(f"etcd does not renew the lease: {answer.get('error') or answer}"[:200], 503)
        return to_number(result, "TTL")

    def seconds_left(self, lease: int) -> int:
        """The remaining seconds of a lease, -1 when it has ended."""
        return to_number(self._call("lease/timetolive", {"ID": str(lease)}), "TTL")

    def watch(self, prefix: str, revision: int) -> Iterator[Batch]:
        """Watch the keys that begin with `prefix`, from a revision on. Returns once the watch has begun.

        The first batch has no changes. The iterator ends with the watch, and raises CallError and CompactedError.
        """
        request = {
            "key": encode(prefix),
            "range_end": encode(behind(prefix)),
            "start_revision": str(revision),
            "progress_notify": True,
        }
        messages = self._somewhere(
            lambda headers: self._client.stream(
                "/v3/watch", {"create_request": request}, {**headers, **HAS_LEADER}, self._access.silence
            )
        )
        return self._batches(messages, revision)

    def interrupt(self) -> None:
        """Make the call in progress fail; the client goes on with the next member. For any thread."""
        self._client.interrupt()

    def close(self) -> None:
        """Make the call in progress and every later one fail. For any thread."""
        self._closed = True
        self._client.close()

    def _range(self, query: dict[str, Any]) -> tuple[list[Entry], int]:
        answer = self._call("kv/range", query)
        kvs = answer.get("kvs") or []
        if not isinstance(kvs, list):
            raise nonsense("kvs")
        return [to_entry(each) for each in kvs], to_number(answer.get("header"), "revision")

    def _batches(self, messages: Iterator[Any], wanted: int) -> Iterator[Batch]:
        newest = 0
        try:
            for message in messages:
                result = message.get("result") if isinstance(message, dict) else None
                if not isinstance(result, dict):
                    error = message.get("error") if isinstance(message, dict) else None
                    words = error.get("message") if isinstance(error, dict) else message
                    raise CallError(f"etcd ends the watch: {words}"[:200], 503)
                if result.get("canceled"):
                    if "compact_revision" in result:
                        raise CompactedError
                    raise CallError(f"etcd refuses the watch: {result.get('cancel_reason') or 'no reason given'}", 200)
                revision = to_number(result.get("header"), "revision")
                if result.get("created"):
                    newest = revision
                    if newest < wanted - 1:  # etcd was set up anew, and would be silent until our revision
                        raise CompactedError
                    revision = wanted - 1  # earlier changes are still to come
                yield to_batch(result, revision, newest)
        except CallError as error:
            if error.status in AWAY:
                self._next_member()
            raise

    def _call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._somewhere(lambda headers: self._client.call("POST", f"/v3/{path}", body, headers))
        if not isinstance(answer, dict):
            raise nonsense(path)
        return answer

    def _somewhere(self, ask: Callable[[dict[str, str]], _T]) -> _T:
        """Call `ask` at the current member; if that fails, at each other member once."""
        if self._member != self._members.asked:
            self._change_member()
        for left in range(len(self._access.endpoints) - 1, -1, -1):
            try:
                return self._authenticated(ask)
            except CallError as error:
                if error.status not in AWAY:
                    raise
                self._next_member()
                if not left:
                    raise
        raise AssertionError("there is an endpoint")

    def _authenticated(self, ask: Callable[[dict[str, str]], _T]) -> _T:
        if not self._access.user:
            return ask({})
        if self._token:
            try:
                return ask({"Authorization": self._token})
            except CallError as error:
                if error.status != 401 and _code(error) != UNAUTHENTICATED:
                    raise
        self._token = ""  # it has expired, or the member was restarted
        try:
            password = read_text(self._access.password_file).strip("\r\n")
        except CNIError as error:
            raise CallError(error.msg, 401) from None
        answer = self._client.call(
            "POST", "/v3/auth/authenticate", {"name": self._access.user, "password": password}, {}
        )
        self._token = str(answer.get("token")) if isinstance(answer, dict) else ""
        return ask({"Authorization": self._token})

    def _next_member(self) -> None:
        self._members.leave(self._member)
        self._left()
        self._change_member()

    def _change_member(self) -> None:
        self._client.close()
        self._client = self._new_client()
        if self._closed:  # by another thread, which may have met the one before
            self._client.close()

    def _new_client(self) -> Client:
        self._member = self._members.asked
        access, endpoint = self._access, self._access.endpoints[self._member]

        def load() -> Access:
            return load_files(endpoint, access.ca_file, access.certificate_file, access.key_file)

        return Client(load, access.timeout)


def explain(error: CallError, prefix: str) -> str:
    """A failed call as a sentence, with a remedy if one is known."""
    if _code(error) == PERMISSION_DENIED:
        return f"{error}: the user needs a role with the permission readwrite on the prefix {prefix}/"
    if error.status == 400 and "user name is empty" in str(error):
        return f"{error}: etcd asks for a user and a password"
    return str(error)


def _code(error: CallError) -> Any:
    return error.body.get("code") if isinstance(error.body, dict) else None
