"""What CNI_NETNS may name."""

import pytest

from cni_bridge.sandbox import find_sandbox, open_sandbox
from cni_protocol.errors import CNIError

OWN = "/proc/self/ns/net"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/dev/null", "is not a network namespace"),
        ("/tmp", "is not a network namespace"),
        ("/proc/self/ns/mnt", "is not a network namespace"),
        (OWN, "is the network namespace of the host itself"),
        ("/run/netns/there-is-none", "No such file or directory"),
        ("", "No such file or directory"),
        ("a\0b", "null"),
    ],
    ids=["device", "directory", "mount namespace", "own", "vanished", "empty", "NUL"],
)
def test_what_is_no_container_is_refused(path: str, words: str) -> None:
    with pytest.raises(CNIError) as caught:
        open_sandbox(path)
    assert caught.value.code == 4
    assert "CNI_NETNS=" in caught.value.msg
    assert words in caught.value.msg
    assert find_sandbox(path) is None
