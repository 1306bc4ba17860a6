"""An IPAM plugin of the test's own, which can hold a call in its middle."""

import json
import subprocess
from typing import Any

from tests.kit.calls import call_environment
from tests.kit.host import Host, wait_until

# What a delegate inherits: all of it is to be the same with the service and without.
_TELL = r"""
env | grep -v '^_=' | sort; umask; pwd; ulimit -a; ls /proc/self/fd; ls /proc/$$/fd
for n in net mnt uts ipc user pid; do readlink /proc/self/ns/$n; done
grep -E '^(Uid|Gid|Groups|Umask|Cap|NoNewPrivs|Seccomp|SigIgn|SigBlk)' /proc/self/status
tr '\0' '\n' </proc/$$/cmdline
"""
_SCRIPT = f"""#!/bin/sh
{{ {_TELL} }} >/run/stand-in/inherited 2>&1
echo "$CNI_COMMAND" >>/run/stand-in/calls
if [ -e /run/stand-in/hold ] && [ "$CNI_COMMAND" = ADD ]; then
    while [ -e /run/stand-in/hold ]; do sleep 0.02; done
fi
[ "$CNI_COMMAND" != ADD ] || echo '{{"cniVersion": "1.1.0", "ips": [{{"address": "10.9.0.2/24"}}]}}'
"""


class StandIn:
    """The plugin, in /run/stand-in of a host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._run("mkdir /run/stand-in && cat >/run/stand-in/plugin && chmod 755 /run/stand-in/plugin", _SCRIPT)

    @property
    def config(self) -> dict[str, Any]:
        """A network that is asked for by a call of cni-bridge."""
        ipam = {"type": "plugin"}
        return {"cniVersion": "1.1.0", "name": "held", "type": "cni-bridge", "bridge": "br0", "ipam": ipam}

    def variables(self, command: str = "ADD") -> dict[str, str]:
        """The environment of such a call, for a container c1."""
        return call_environment(command, path=["/run/stand-in"])

    def begin(self, executable: str) -> "subprocess.Popen[bytes]":
        """Begin an ADD of c1 that is held in its middle. Returns when it is there."""
        self._host.add_container("c1")
        self._run("touch /run/stand-in/hold")
        calling = subprocess.Popen(
            self._host.argv(executable),
            env=self.variables(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert calling.stdin is not None
        calling.stdin.write(json.dumps(self.config).encode())
        calling.stdin.close()
        calling.stdin = None
        assert wait_until(lambda: self.calls == ["ADD"], 20), calling.communicate()
        return calling

    def release(self) -> None:
        """Let the call go on."""
        self._run("rm -f /run/stand-in/hold")

    @property
    def calls(self) -> list[str]:
        """The commands that came."""
        return self._run("cat /run/stand-in/calls 2>/dev/null || true").split()

    @property
    def inherited(self) -> str:
        """What the last call inherited."""
        return self._run("cat /run/stand-in/inherited")

    def _run(self, script: str, stdin: str = "") -> str:
        return self._host.run("sh", "-c", script, input=stdin).stdout
