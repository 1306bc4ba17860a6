"""/proc/sys/net of a throw-away host, judged by what the host's own processes read there."""

import errno
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_kernel import sysctl
from cni_kernel.errors import KernelError
from tests.kit.host import Host

pytestmark = pytest.mark.kernel


def value(host: Host, name: str) -> str:
    return host.run("cat", f"/proc/sys/net/{name}").stdout.strip()


def set_value(host: Host, name: str, text: str) -> None:
    host.run("sh", "-c", f"echo {text} > /proc/sys/net/{name}")


@pytest.mark.parametrize(
    ("version", "name", "other"),
    [(4, "ipv4/ip_forward", "ipv6/conf/all/forwarding"), (6, "ipv6/conf/all/forwarding", "ipv4/ip_forward")],
    ids=["IPv4", "IPv6"],
)
def test_forwarding_is_per_family_and_idempotent(host: Host, version: int, name: str, other: str) -> None:
    set_value(host, name, "0")
    set_value(host, other, "0")
    with host.entered():
        assert not sysctl.is_forwarding(version)
        sysctl.ensure_forwarding(version)
        sysctl.ensure_forwarding(version)
        assert sysctl.is_forwarding(version)
    assert (value(host, name), value(host, other)) == ("1", "0")


def test_the_machines_own_settings_stay(host: Host) -> None:
    with open("/proc/sys/net/ipv4/ip_forward", encoding="ascii") as file:
        before = file.read()
    with host.entered():
        sysctl.ensure_forwarding(4)
    with open("/proc/sys/net/ipv4/ip_forward", encoding="ascii") as file:
        assert file.read() == before


@pytest.mark.parametrize("detect", [False, True], ids=["no detection", "detection"])
@pytest.mark.parametrize("name", ["eth0", "eth0.7"])
def test_an_interface_of_ours_listens_to_no_router(host: Host, name: str, detect: bool) -> None:
    host.run("ip", "link", "add", name, "type", "bridge")
    for key, text in (("accept_ra", "2"), ("disable_ipv6", "1"), ("accept_dad", "2")):
        set_value(host, f"ipv6/conf/{name}/{key}", text)
    with host.entered():
        sysctl.own_interface(name, ipv6=False, detect_duplicates=detect)
    assert value(host, f"ipv6/conf/{name}/accept_ra") == "0"
    assert value(host, f"ipv6/conf/{name}/accept_dad") == str(int(detect))
    assert value(host, f"ipv6/conf/{name}/disable_ipv6") == "1"


def test_an_interface_with_ipv6_addresses_may_have_and_keeps_them(host: Host) -> None:
    host.run("ip", "link", "add", "eth0", "type", "bridge")
    for name in ("lo", "eth0"):
        set_value(host, f"ipv6/conf/{name}/disable_ipv6", "1")
    with host.entered():
        sysctl.own_interface("eth0", ipv6=True, detect_duplicates=False)
    assert value(host, "ipv6/conf/lo/disable_ipv6") == "0"
    host.run("ip", "link", "set", "eth0", "up")
    host.run("ip", "address", "add", "fd00::1/64", "dev", "eth0")
    host.run("ip", "link", "set", "eth0", "down")
    assert "fd00::1/64" in host.addresses("eth0")


def test_a_bridge_of_ours_listens_to_no_router(host: Host) -> None:
    host.run("ip", "link", "add", "br0", "type", "bridge")
    set_value(host, "ipv6/conf/br0/disable_ipv6", "1")
    with host.entered():
        assert sysctl.listens_to_routers("br0")
        assert not sysctl.may_have_ipv6("br0")
        assert sysctl.ignore_router_advertisements("br0") == []
        assert not sysctl.listens_to_routers("br0")
    assert value(host, "ipv6/conf/br0/accept_ra") == "0"
    assert value(host, "ipv6/conf/br0/disable_ipv6") == "1"
    assert value(host, "ipv6/conf/br0/keep_addr_on_down") == "0"


def test_a_gateway_may_have_ipv6_addresses_and_keeps_them_and_all_of_it_is_restored(host: Host) -> None:
    host.run("ip", "link", "add", "br0", "type", "bridge")
    for key, text in (("accept_ra", "2"), ("disable_ipv6", "1"), ("keep_addr_on_down", "0")):
        set_value(host, f"ipv6/conf/br0/{key}", text)
    with host.entered():
        before = sysctl.list_ipv6_settings("br0")
        assert sysctl.allow_ipv6("br0") == []
        assert sysctl.may_have_ipv6("br0")
        sysctl.ignore_router_advertisements("br0")
        assert [value for _, value in sysctl.list_ipv6_settings("br0")] == ["0", "0", "1"]
        sysctl.restore_settings(before)
    assert [value(host, f"ipv6/conf/br0/{key}") for key in ("accept_ra", "disable_ipv6", "keep_addr_on_down")] == [
        *("2", "1", "0")
    ]


@pytest.mark.parametrize("keeps", ["0", "1"])
def test_addresses_are_kept_over_a_link_down(host: Host, keeps: str) -> None:
    host.run("ip", "link", "add", "br0", "type", "bridge")
    set_value(host, "ipv6/conf/br0/keep_addr_on_down", keeps)
    host.run("ip", "link", "set", "br0", "up")
    host.run("ip", "address", "add", "fd00::1/64", "dev", "br0")
    with host.entered(), sysctl.keeping_addresses("br0"):
        host.run("ip", "link", "set", "br0", "down")
    assert host.addresses("br0") == ["fd00::1/64"]
    assert value(host, "ipv6/conf/br0/keep_addr_on_down") == keeps


def test_routers_are_listened_to_while_forwarding_or_only_without(host: Host) -> None:
    host.run("ip", "link", "add", "br0", "type", "bridge")
    for forwarding, expected in ((True, "2"), (False, "1")):
        with host.entered():
            sysctl.listen_to_routers("br0", while_forwarding=forwarding)
        assert value(host, "ipv6/conf/br0/accept_ra") == expected


@pytest.mark.parametrize("version", [4, 6])
def test_forwarding_is_switched_off_again(host: Host, version: int) -> None:
    with host.entered():
        sysctl.ensure_forwarding(version)
        sysctl.stop_forwarding(version)
        assert not sysctl.is_forwarding(version)


@pytest.mark.parametrize(
    ("version", "key"), [(4, "net.ipv4.ip_forward"), (6, "net.ipv6.conf.all.forwarding")], ids=["IPv4", "IPv6"]
)
def test_the_key_of_forwarding_is_one_that_sysctl_knows(host: Host, version: int, key: str) -> None:
    assert sysctl.forwarding_key(version) == key
    host.run("sysctl", "-w", f"{key}=1")
    with host.entered():
        assert sysctl.is_forwarding(version)


def test_duplicates_are_looked_for_beyond_one_s_own_loops(host: Host) -> None:
    host.run("ip", "link", "add", "eth0", "type", "bridge")
    set_value(host, "ipv6/conf/eth0/enhanced_dad", "0")
    with host.entered():
        sysctl.own_interface("eth0", ipv6=True, detect_duplicates=True)
    assert value(host, "ipv6/conf/eth0/enhanced_dad") == "1"


def read_only(path: str, mode: str = "r", **options: Any) -> Any:
    """open() where /proc/sys is read-only."""
    if "w" in mode:
        raise OSError(errno.EROFS, "Read-only file system")
    return open(path, mode, **options)


def test_a_nicety_that_cannot_be_had_is_named(host: Host) -> None:
    with host.entered():
        refusals = sysctl.own_interface("eth0.7", ipv6=False, detect_duplicates=False)
    assert [str(refusal).split(" cannot")[0] for refusal in refusals] == [
        *("sysctl net.ipv6.conf.eth0/7.accept_ra=0", "sysctl net.ipv6.conf.eth0/7.accept_dad=0")
    ]


@pytest.mark.parametrize(
    ("ipv6", "detect", "niceties"),
    [
        (False, False, ["accept_ra", "accept_dad"]),
        (False, True, ["accept_ra", "enhanced_dad"]),
        (True, False, ["accept_ra", "accept_dad", "keep_addr_on_down"]),
        (True, True, ["accept_ra", "enhanced_dad", "keep_addr_on_down"]),
    ],
)
def test_what_a_read_only_proc_keeps_from_an_interface_of_ours(
    host: Host, mocker: MockerFixture, ipv6: bool, detect: bool, niceties: list[str]
) -> None:
    host.run("ip", "link", "add", "eth0", "type", "bridge")
    set_value(host, "ipv6/conf/eth0/enhanced_dad", "0")
    mocker.patch("cni_kernel.sysctl.open", read_only, create=True)
    with host.entered():
        refusals = sysctl.own_interface("eth0", ipv6=ipv6, detect_duplicates=detect)
        assert [str(refusal).split("=")[0].rpartition(".")[2] for refusal in refusals] == niceties
        assert len(sysctl.announce_changes("eth0", (4, 6))) == 2


@pytest.mark.parametrize(
    ("key", "text", "detect"),
    [("eth0/disable_ipv6", "1", False), ("lo/disable_ipv6", "1", False), ("eth0/accept_dad", "0", True)],
)
def test_what_ipv6_needs_is_an_error_where_it_cannot_be_had(
    host: Host, mocker: MockerFixture, key: str, text: str, detect: bool
) -> None:
    host.run("ip", "link", "add", "eth0", "type", "bridge")
    set_value(host, f"ipv6/conf/{key}", text)
    mocker.patch("cni_kernel.sysctl.open", read_only, create=True)
    with host.entered(), pytest.raises(KernelError, match="Read-only file system"):
        sysctl.own_interface("eth0", ipv6=True, detect_duplicates=detect)


def test_a_read_only_proc_with_the_right_values_will_do(host: Host, mocker: MockerFixture) -> None:
    host.run("ip", "link", "add", "br0", "type", "bridge")
    with host.entered():
        sysctl.ignore_router_advertisements("br0")
        sysctl.allow_ipv6("br0")
        sysctl.ensure_forwarding(4)
        mocker.patch("cni_kernel.sysctl.open", read_only, create=True)
        assert sysctl.ignore_router_advertisements("br0") == sysctl.allow_ipv6("br0") == []
        sysctl.ensure_forwarding(4)
        with pytest.raises(KernelError, match="Read-only file system"):
            sysctl.stop_forwarding(4)
        with pytest.raises(KernelError, match="Read-only file system"):
            sysctl.listen_to_routers("br0", while_forwarding=True)


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
def test_a_kernel_without_ipv6_is_fine_until_ipv6_is_wanted(host: Host, mocker: MockerFixture, ipv6: bool) -> None:
    mocker.patch("os.path.isdir", return_value=False)
    with host.entered():
        assert sysctl.ignore_router_advertisements("br0") == []
        if not ipv6:
            assert sysctl.own_interface("eth0", ipv6=False, detect_duplicates=False) == []
            return
        with pytest.raises(KernelError, match="without IPv6"):
            sysctl.own_interface("eth0", ipv6=True, detect_duplicates=False)


@pytest.mark.parametrize("versions", [(4,), (6,), (4, 6), ()])
def test_changes_are_announced_in_the_families_that_have_addresses(host: Host, versions: tuple[int, ...]) -> None:
    host.run("ip", "link", "add", "br0", "type", "bridge")
    with host.entered():
        sysctl.announce_changes("br0", versions)
    for version, key in ((4, "ipv4/conf/br0/arp_notify"), (6, "ipv6/conf/br0/ndisc_notify")):
        assert host.run("cat", f"/proc/sys/net/{key}").stdout == f"{int(version in versions)}\n"
