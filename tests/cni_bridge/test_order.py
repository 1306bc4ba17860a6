"""The order of the steps of ADD, DEL and GC, with a recorder in the place of every room: needs no kernel."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_bridge import bridge, commands, locks, removal, sandbox, sync, wiring
from cni_bridge.commands import add, collect, delete
from cni_bridge.undo import Undo
from cni_kernel import kernel
from cni_kernel.values import Link
from cni_protocol.attachment import Attachment
from cni_protocol.errors import CNIError, Interrupted
from cni_protocol.result import Interface
from tests.cni_bridge import make_request
from tests.cni_bridge.rooms import ATTACHMENT, PORT, config_of, plan_of

IPAM: dict[str, Any] = {"ipam": {"type": "other-ipam"}}
RESULT = {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.5/16"}]}
CNI0 = Link(5, "cni0", "bridge", "02:00:00:00:00:07", 1500, True, True, False, 0, 0, "", False, False, False, False)
INTERFACES = (Interface("cni0"), Interface(PORT), Interface("eth0", "02:00:00:00:00:01", 1500, "/run/netns/c1"))


class Recorder:
    """Writes down what is called, in order, and fails where it is told to."""

    def __init__(self, mocker: MockerFixture) -> None:
        self.seen: list[str] = []
        self.failing: dict[str, BaseException] = {}
        self._mocker = mocker

    def stand_in(self, name: str, answer: object = None) -> Callable[..., Any]:
        def call(*_: object, **__: object) -> Any:
            self.seen.append(name)
            if name in self.failing:
                raise self.failing[name]
            return answer

        return call

    def block(self, name: str) -> Callable[..., Any]:
        @contextmanager
        def enter(*_: object, **options: object) -> Iterator[None]:
            what = " ".join([name, *(f"{key}={value}" for key, value in options.items())])
            self.seen.append(f"{what} begins")
            try:
                yield
            finally:
                self.seen.append(f"{what} ends")

        return enter

    def patch(self, room: object, *names: str, answer: object = None) -> None:
        for name in names:
            self._mocker.patch.object(room, name, self.stand_in(name, answer))

    def patch_block(self, room: object, name: str) -> None:
        self._mocker.patch.object(room, name, self.block(name))

    def run_plugin(self, _: str, command: str, __: object) -> Any:
        return self.stand_in(f"IPAM {command}", RESULT)()


@pytest.fixture
def recorder(mocker: MockerFixture) -> Recorder:
    """A recorder in the place of locks, kernel and IPAM plugin."""
    made = Recorder(mocker)
    for name in ("activity_lock", "attachment_lock"):
        made.patch_block(locks, name)
    mocker.patch.object(commands, "run_plugin", made.run_plugin)
    return made


@pytest.fixture
def adding(mocker: MockerFixture, recorder: Recorder) -> Recorder:
    """... and in that of all steps of ADD."""
    mocker.patch.object(kernel, "Kernel")
    mocker.patch.object(sandbox, "open_sandbox")
    mocker.patch.object(sandbox, "open_inside")
    recorder.patch(wiring, "require_absent", "connect", "go_live")
    recorder.patch(wiring, "configure_container", answer=CNI0)
    recorder.patch(wiring, "list_interfaces", answer=INTERFACES)
    recorder.patch(wiring, "configure_host", answer=())
    recorder.patch(sync, "ensure_rules", "delete_own_rules")
    recorder.patch(commands, "is_own", answer=False)
    return recorder


BEGIN = ["activity_lock exclusive=False begins", "attachment_lock begins", "require_absent"]
STEPS = [
    *("configure_container", "list_interfaces", "ensure_rules", "go_live", "configure_host", "finish"),
]
END = ["attachment_lock ends", "activity_lock exclusive=False ends"]


@pytest.mark.parametrize("own", [True, False], ids=["our address plugin", "another one"])
def test_add_does_one_step_after_the_other_under_its_locks(adding: Recorder, own: bool) -> None:
    adding.patch(commands, "is_own", answer=own)
    request = make_request(ipMasq=True, **IPAM)._replace(finish_uninterrupted=adding.stand_in("finish"))
    assert add(request)["interfaces"][0]["name"] == "cni0"
    connecting = ["IPAM ADD", "connect"] if own else ["connect", "IPAM ADD"]
    assert adding.seen == [*BEGIN, "is_own", *connecting, *STEPS, *END]


@pytest.mark.parametrize("step", STEPS)
def test_an_add_that_fails_or_is_interrupted_is_undone_under_its_locks(adding: Recorder, step: str) -> None:
    for failure in (CNIError(100, "no"), Interrupted("SIGTERM")):
        adding.seen.clear()
        adding.failing[step] = failure
        request = make_request(ipMasq=True, **IPAM)._replace(finish_uninterrupted=adding.stand_in("finish"))
        with pytest.raises(type(failure)):
            add(request)
        done = STEPS[: STEPS.index(step) + 1]
        rules = ["delete_own_rules"] if STEPS.index(step) >= STEPS.index("ensure_rules") else []
        assert adding.seen == [*BEGIN, "is_own", "connect", "IPAM ADD", *done, *rules, "IPAM DEL", *END]


@pytest.fixture
def deleting(recorder: Recorder) -> Recorder:
    """A recorder in the place of all steps of DEL and GC."""
    recorder.patch(removal, "remove_packet_rules", "remove_pair", "remove_frame_rules", "remove_stale_pairs")
    return recorder


DELETION = ["remove_packet_rules", "remove_pair", "remove_frame_rules", "IPAM DEL"]


@pytest.mark.parametrize("failing", ["", *DELETION])
def test_del_does_every_step_in_order_under_the_attachment_s_lock(deleting: Recorder, failing: str) -> None:
    # what holds the container to its MAC goes after its interface, and its address after everything that has it
    deleting.failing[failing] = CNIError(100, "no")
    if failing:
        with pytest.raises(CNIError, match="no"):
            delete(make_request("DEL", **IPAM))
    else:
        delete(make_request("DEL", **IPAM))
    assert deleting.seen == ["attachment_lock begins", *DELETION, "attachment_lock ends"]


def test_add_and_del_of_one_attachment_take_the_same_lock(
    mocker: MockerFixture, adding: Recorder, deleting: Recorder
) -> None:
    names: list[str] = []

    def lock(name: str) -> Any:
        names.append(name)
        return adding.block("attachment_lock")()

    mocker.patch.object(locks, "attachment_lock", lock)
    add(make_request(**IPAM))
    delete(make_request("DEL", **IPAM))
    other = make_request("DEL", **IPAM)._replace(container_id="c2")
    delete(other)
    assert names == [PORT, PORT, Attachment("mynet", "c2", "eth0").host_name]


@pytest.mark.parametrize("known", [True, False], ids=["list", "no list"])
def test_gc_keeps_adds_off_and_releases_addresses_last(deleting: Recorder, known: bool) -> None:
    keys: dict[str, Any] = {"cni.dev/valid-attachments": []} if known else {}
    collect(make_request("GC", cniVersion="1.1.0", **IPAM, **keys))
    steps = ["remove_stale_pairs", "remove_packet_rules", "remove_frame_rules"] if known else []
    lock = "activity_lock exclusive=True"
    assert deleting.seen == [f"{lock} begins", *steps, "IPAM GC", f"{lock} ends"]


@pytest.mark.parametrize("vlan", [0, 5])
def test_the_bridge_is_looked_at_and_used_under_the_host_s_lock(
    mocker: MockerFixture, recorder: Recorder, vlan: int
) -> None:
    # or an ADD that fails would remove the bridge as unused before it has our port
    recorder.patch_block(wiring, "host_lock")
    recorder.patch(wiring, "ensure_bridge", answer=CNI0)
    recorder.patch(wiring, "add_port")
    host = mocker.Mock()
    host.set_vlans = recorder.stand_in("set_vlans")
    wiring.connect(wiring.Site(host, mocker.Mock(), mocker.Mock(), config_of(vlan=vlan), ATTACHMENT), Undo())
    vlans = ["set_vlans"] if vlan else []
    assert recorder.seen == ["host_lock begins", "ensure_bridge", "add_port", *vlans, "host_lock ends"]


@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
def test_the_gateway_is_put_there_or_taken_away_under_the_host_s_lock(
    mocker: MockerFixture, recorder: Recorder, fails: bool
) -> None:
    recorder.patch_block(wiring, "host_lock")
    recorder.patch(wiring, "_ensure_gateway_interface", answer=CNI0)
    recorder.patch(wiring, "_warn_of_overlaps", "_ensure_forwarding")
    host = mocker.Mock()
    host.list_addresses.return_value = []
    host.add_addresses, host.set_mac, host.delete_address = map(recorder.stand_in, ("add", "set_mac", "delete"))
    config = config_of(isGateway=True)
    steps = ["_ensure_gateway_interface", "_warn_of_overlaps", "add", "set_mac", "_ensure_forwarding"]
    if fails:
        recorder.failing["_ensure_forwarding"] = CNIError(100, "no")
        with pytest.raises(CNIError):
            wiring.configure_host(host, config, plan_of(config, "10.1.0.5/16"))
    else:
        wiring.configure_host(host, config, plan_of(config, "10.1.0.5/16"))
    assert recorder.seen == ["host_lock begins", *steps, *(["delete"] if fails else []), "host_lock ends"]


@pytest.mark.parametrize("undo", [bridge._restore_bridge, bridge._delete_unused_bridge])
def test_the_bridge_is_given_back_under_the_host_s_lock(
    mocker: MockerFixture, recorder: Recorder, undo: Callable[..., None]
) -> None:
    recorder.patch_block(bridge, "host_lock")
    host = mocker.Mock()
    host.list_ports = recorder.stand_in("list_ports", [CNI0])
    undo(host, *((CNI0, set(), []) if undo is bridge._restore_bridge else (config_of(),)))
    assert recorder.seen == ["host_lock begins", "list_ports", "host_lock ends"]
