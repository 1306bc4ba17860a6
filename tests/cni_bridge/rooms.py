"""All that a step of ADD or DEL on links needs, opened inside a throw-away host with one container."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cni_bridge import wiring
from cni_bridge.config import BridgeConfig, parse_config
from cni_bridge.plan import Plan, make_plan
from cni_bridge.refusals import kernel_refusals
from cni_bridge.undo import Undo
from cni_kernel.kernel import Kernel
from cni_kernel.namespace import Namespace
from cni_protocol.address import parse_cidr
from cni_protocol.attachment import Attachment
from cni_protocol.errors import CNIError
from cni_protocol.result import IPConfig, Result, Route
from tests.cni_bridge import make_request
from tests.kit.host import Host

ATTACHMENT = Attachment("mynet", "c1", "eth0")
PORT = ATTACHMENT.host_name


class Rooms:
    """All that a step needs, opened inside a host with one container."""

    def __init__(self, host: Host, outside: Kernel, inside: Kernel, namespace: Namespace) -> None:
        self.host = host
        self.outside = outside
        self.inside = inside
        self.namespace = namespace
        self.undo = Undo()

    def site(self, config: BridgeConfig) -> wiring.Site:
        return wiring.Site(self.outside, self.inside, self.namespace, config, ATTACHMENT)

    def connect(self, **keys: Any) -> BridgeConfig:
        config = config_of(**keys)
        wiring.connect(self.site(config), self.undo)
        return config

    def go_live(self, config: BridgeConfig, plan: Plan) -> None:
        wiring.go_live(self.site(config), plan, self.inside.get_link("eth0"))

    def fail(self) -> None:
        """Leave the undo stack as a failure does."""
        with pytest.raises(ZeroDivisionError), self.undo:
            raise ZeroDivisionError


def config_of(**keys: Any) -> BridgeConfig:
    return parse_config(make_request(ipam={"type": "host-local"}, **keys))


def plan_of(config: BridgeConfig, *addresses: str, routes: tuple[Route, ...] = ()) -> Plan:
    ips = tuple(IPConfig(parse_cidr(address)) for address in addresses)
    return make_plan(config, Result(ips=ips, routes=routes))


@contextmanager
def refused(code: int, words: str) -> Iterator[None]:
    with pytest.raises(CNIError) as caught, kernel_refusals():
        yield
    assert caught.value.code == code
    assert words in caught.value.msg
