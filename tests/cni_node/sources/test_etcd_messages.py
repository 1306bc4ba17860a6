"""What a message of etcd's watch says."""

import base64
from typing import Any

import pytest

from cni_node.sources.etcd_messages import to_batch


def event(kind: str, key: str, revision: int) -> dict[str, Any]:
    kv = {"key": base64.b64encode(key.encode()).decode(), "mod_revision": str(revision)}
    return {"type": kind, "kv": kv} if kind == "DELETE" else {"kv": kv}  # the gateway leaves PUT out


@pytest.mark.parametrize(
    ("kinds", "put", "deleted"),
    [
        pytest.param(["PUT", "DELETE"], [], ["a"], id="came and went"),
        pytest.param(["DELETE", "PUT"], [6], [], id="went and came"),
        pytest.param(["PUT", "PUT"], [6], [], id="changed twice"),
        pytest.param(["PUT", "DELETE", "PUT", "DELETE"], [], ["a"], id="twice"),
        pytest.param([], [], [], id="nothing"),
    ],
)
def test_of_each_key_the_last_change_counts(kinds: list[str], put: list[int], deleted: list[str]) -> None:
    events = [event(kind, "a", revision) for revision, kind in enumerate(kinds, 5)]
    batch = to_batch({"events": [*events, event("PUT", "b", 9)]}, 20, 9)
    assert [(entry.key, entry.modified) for entry in batch.put] == [*(("a", each) for each in put), ("b", 9)]
    assert (list(batch.deleted), batch.revision, batch.replayed) == (deleted, 9, True)
