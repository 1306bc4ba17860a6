"""Names and marks that every command derives anew."""

import hashlib

import pytest

from cni_protocol.attachment import Attachment, describe_owner, shortened, spelt_anew


def test_the_host_name_is_the_same_in_every_build() -> None:
    # fixed on purpose: an update of the plugin must find the interfaces that its predecessor made
    assert Attachment("mynet", "c1", "eth0").host_name == "veth956cd39114a"


def test_host_names_fit_the_kernel_and_differ() -> None:
    attachments = [
        Attachment(network, container, ifname)
        for network in ("mynet", "n" * 200)
        for container in ("c1", "c" * 64, "d" * 500)
        for ifname in ("eth0", "fifteen-bytes-x")
    ]
    names = [attachment.host_name for attachment in attachments]
    assert len(set(names)) == len(attachments)
    assert all(len(name.encode()) <= 15 for name in names)


def test_an_owner_is_readable_when_it_is_short() -> None:
    assert Attachment("mynet", "f" * 64, "eth0").owner == f"mynet,{'f' * 64},eth0"


def test_long_owners_fit_a_comment_of_nft_and_differ() -> None:
    long = "n" * 300
    owners = {
        Attachment(network, container, "fifteen-bytes-x").owner
        for network in (long, long + "a", long + "b")
        for container in (long, long + "a")
    }
    assert len(owners) == 6
    assert all(len(owner.encode()) <= 125 for owner in owners)
    assert all(owner.startswith("nnn") and owner.endswith(",fifteen-bytes-x") for owner in owners)


@pytest.mark.parametrize("network", ["mynet", "n" * 100, "n" * 101, "n" * 300])
def test_the_owners_of_a_network_begin_alike_and_no_other_network_s_do(network: str) -> None:
    prefix = Attachment(network, "", "").owner_prefix
    assert Attachment(network, "c1", "eth0").owner.startswith(prefix)
    for other in (network + "x", network[:-1], "x" + network):
        assert not Attachment(other, "c1", "eth0").owner.startswith(prefix)


@pytest.mark.parametrize(("length", "kept"), [(1, True), (40, True), (41, False), (1000, False)])
def test_only_a_long_name_is_shortened(length: int, kept: bool) -> None:
    short = shortened("n" * length, 40)
    assert (short == "n" * length) is kept
    assert len(short) <= 40
    assert "," not in short


def old_spelling(part: str) -> str:
    return part if len(part) <= 100 else f"{part[:35]}:{hashlib.sha256(part.encode()).hexdigest()}"


@pytest.mark.parametrize("network", ["mynet", "n" * 41, "n" * 101], ids=["short", "longer", "long"])
@pytest.mark.parametrize(
    "container_id", ["c1", "c" * 64, "c" * 70, "c" * 200], ids=["short", "usual", "longer", "long"]
)
def test_the_former_spelling_of_an_owner_is_read(network: str, container_id: str) -> None:
    attachment = Attachment(network, container_id, "eth0")
    former = "/".join((old_spelling(network), old_spelling(container_id), "eth0"))
    assert spelt_anew(former) == spelt_anew(attachment.owner) == attachment.owner
    assert attachment.hint in former
    assert attachment.hint in attachment.owner
    assert Attachment(network, "", "").hint in former


@pytest.mark.parametrize("mark", ["", "somebody's", "a/b", "a/b/c/d"])
def test_what_is_no_owner_stays_as_it_is(mark: str) -> None:
    assert spelt_anew(mark) == mark
    assert describe_owner(mark) == repr(mark)


def test_an_owner_in_words() -> None:
    assert describe_owner("mynet,c1,eth0") == "container c1 interface eth0 of network mynet"
