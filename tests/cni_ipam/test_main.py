"""The executables: their names, and which function serves which command."""

import pytest

from cni_bridge import commands as of_bridge
from cni_bridge.__main__ import PLUGIN as BRIDGE
from cni_ipam import commands as of_ipam
from cni_ipam.__main__ import PLUGIN as IPAM
from cni_protocol.plugin import Plugin


@pytest.mark.parametrize(("plugin", "name", "module"), [(BRIDGE, "cni-bridge", of_bridge), (IPAM, "cni-ipam", of_ipam)])
def test_each_command_has_its_function(plugin: Plugin, name: str, module: object) -> None:
    functions = {"ADD": "add", "DEL": "delete", "CHECK": "check", "STATUS": "status", "GC": "collect"}
    assert plugin.name == name
    assert plugin.commands == {command: getattr(module, function) for command, function in functions.items()}
