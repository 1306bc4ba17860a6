"""What persists over a reboot, as files; `--once` itself is run in tests/test_node.py."""

from pathlib import Path

from cni_node.agent.setup import persist


def test_sysctls_and_the_module_are_set_at_every_boot(tmp_path: Path) -> None:
    assert persist(tmp_path, (4, 6)) == []
    assert (tmp_path / "etc/modules-load.d/pycni.conf").read_text() == "br_netfilter\n"
    assert (tmp_path / "etc/sysctl.d/99-pycni.conf").read_text() == (
        "net.ipv4.ip_forward = 1\n"
        "net.ipv6.conf.all.forwarding = 1\n"
        "net.bridge.bridge-nf-call-iptables = 1\n"
        "net.bridge.bridge-nf-call-ip6tables = 1\n"
    )


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/sysctl.d").write_text("no directory")
    [problem] = persist(tmp_path, (4,))
    assert problem.startswith("/etc/sysctl.d/99-pycni.conf cannot be written (File exists)")
    assert (tmp_path / "etc/modules-load.d/pycni.conf").exists()
