"""Any sequence of commands, of what others do in the directory, of deaths and reboots, against a plain model."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from cni_ipam.index import Index
from cni_protocol.errors import ALREADY_EXISTS, NO_ADDRESS, NOT_AVAILABLE
from tests.cni_ipam import Network
from tests.kit.marks import seeds

SMALL = {"subnet": "10.1.0.0/28"}  # gives .2 to .14
POOL = [f"10.1.0.{i}" for i in range(2, 15)]


class Model:
    """What should be reserved after any number of commands, of ours and of others."""

    def __init__(self, network: Network, choose: random.Random, reboot: Callable[[], None]) -> None:
        self.network = network
        self.choose = choose
        self.reboot = reboot
        self.held: dict[str, str] = {}
        self.others = 0

    def add(self) -> None:
        name = f"c{self.choose.randrange(18)}"
        if f"{name}\r\neth0" in self.held.values():
            assert self.network.refusal("ADD", SMALL, name).code == ALREADY_EXISTS
        elif len(self.held) == len(POOL):
            assert self.network.refusal("ADD", SMALL, name).code == NO_ADDRESS
        else:
            (given,) = self.network.add(SMALL, name)
            address = given.partition("/")[0]
            assert address in POOL
            assert address not in self.held
            self.held[address] = f"{name}\r\neth0"

    def delete(self) -> None:
        name = self.choose.choice([f"c{self.choose.randrange(18)}", f"theirs{self.choose.randrange(self.others + 1)}"])
        self.network.call("DEL", SMALL, name)
        self.held = {ip: content for ip, content in self.held.items() if content != f"{name}\r\neth0"}

    def check(self) -> None:
        for address, content in self.held.items():
            name = content.partition("\r")[0]
            previous = {"ips": [{"address": f"{address}/28"}]}
            assert self.network.call("CHECK", SMALL, name, prevResult=previous) is None

    def status(self) -> None:
        if len(self.held) == len(POOL):
            assert self.network.refusal("STATUS", SMALL, cniVersion="1.1.0").code == NOT_AVAILABLE
        else:
            assert self.network.call("STATUS", SMALL, cniVersion="1.1.0") is None

    def collect(self) -> None:
        valid = [content for content in self.held.values() if self.choose.random() < 0.7]
        self.network.collect([tuple(content.split("\r\n")) for content in valid])
        self.held = {ip: content for ip, content in self.held.items() if content in valid}

    def create(self) -> None:
        free = sorted(set(POOL) - set(self.held))
        if free:
            self.others += 1
            address = self.choose.choice(free)
            self.held[address] = f"theirs{self.others}\r\neth0"
            self.network.put(address, self.held[address])

    def remove(self) -> None:
        if self.held:
            address = self.choose.choice(sorted(self.held))
            del self.held[address]
            (self.network.directory / address).unlink()

    def leave_empty(self) -> None:
        free = sorted(set(POOL) - set(self.held))
        if free:
            self.network.put(self.choose.choice(free), "")

    def damage_index(self) -> None:
        for path in self.network.data_dir.glob(".pycni/mynet/*/index"):
            content = bytearray(path.read_bytes())
            content[self.choose.randrange(len(content))] ^= 1 << self.choose.randrange(8)
            path.write_bytes(content[: self.choose.choice((len(content), self.choose.randrange(len(content))))])

    def die(self) -> None:
        """A command that ends right before it would write the index, or in the middle of that."""
        with pytest.MonkeyPatch.context() as patch:
            for name in self.choose.choice((("write", "sign"), ("sign",))):
                patch.setattr(Index, name, lambda *_: None)
            self.choose.choice((self.add, self.delete, self.collect))()

    def begin_boot(self) -> None:
        self.network.call("DEL", SMALL, "nobody")  # see what others have written
        self.reboot()
        self.held = {}


@pytest.mark.parametrize("seed", seeds(12))
def test_any_sequence_of_commands_and_of_what_others_do_is_as_the_model_has_it(
    seed: int, memory: Path, reboot: Callable[[], None]
) -> None:
    choose = random.Random(seed)
    model = Model(Network(memory), choose, reboot)
    ours = (model.add, model.add, model.add, model.delete, model.delete, model.check, model.status)
    rarely = (model.collect, model.die, model.begin_boot, model.damage_index)
    theirs = (model.create, model.remove, model.leave_empty)
    model.add()
    for _ in range(250):
        choose.choice(choose.choices((ours, rarely, theirs), (85, 5, 10))[0])()
    model.network.call("DEL", SMALL, "nobody")
    assert model.network.reserved() == model.held
    assert len(model.network.exhaust(SMALL)) == len(POOL) - len(model.held)
