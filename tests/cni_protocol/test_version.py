"""The versions of the specification."""

import pytest

from cni_protocol.errors import INCOMPATIBLE_VERSION, CNIError
from cni_protocol.version import NEWEST, OLDEST, SUPPORTED, at_least, require_command, require_supported


def test_every_released_version_is_supported_in_order() -> None:
    assert SUPPORTED == ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
    assert (OLDEST, NEWEST) == ("0.1.0", "1.1.0")


@pytest.mark.parametrize("version", SUPPORTED)
def test_a_supported_version_passes(version: str) -> None:
    require_supported(version)


@pytest.mark.parametrize("version", ["", "0.0.1", "0.3", "0.3.2", "1.0", "1.0.0 ", "v1.0.0", "1.1.1", "2.0.0", "\n"])
def test_any_other_version_is_refused_with_a_list_of_what_would_do(version: str) -> None:
    with pytest.raises(CNIError) as caught:
        require_supported(version)
    assert caught.value.code == INCOMPATIBLE_VERSION
    assert repr(version) in caught.value.msg
    assert all(supported in caught.value.msg for supported in SUPPORTED)


def test_versions_are_ordered_by_release() -> None:
    for i, version in enumerate(SUPPORTED):
        assert [at_least(version, other) for other in SUPPORTED] == [j <= i for j in range(len(SUPPORTED))]


@pytest.mark.parametrize(
    ("command", "first"),
    [("ADD", "0.1.0"), ("DEL", "0.1.0"), ("CHECK", "0.4.0"), ("STATUS", "1.1.0"), ("GC", "1.1.0")],
)
def test_a_command_exists_from_its_version_on(command: str, first: str) -> None:
    for version in SUPPORTED:
        if at_least(version, first):
            require_command(command, version)
        else:
            with pytest.raises(CNIError, match=f"{command} exists from cniVersion {first} on.*{version}") as caught:
                require_command(command, version)
            assert caught.value.code == INCOMPATIBLE_VERSION
