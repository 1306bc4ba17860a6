"""`pycni cluster`: prints which node has which pod range, from etcd.

Must not: change anything, or need an agent.
"""

import argparse
import sys

from cni_node.api.client import CallError
from cni_node.settings import add_etcd_options, etcd_access
from cni_node.sources.etcd_calls import Etcd
from cni_node.sources.etcd_lease import EtcdSettings
from cni_node.sources.etcd_listing import read_holdings, render_holdings
from cni_protocol.errors import CNIError

_FAILED = 1


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add_etcd_options(parser)


def run(options: argparse.Namespace) -> int:
    """Print the table. Returns the exit status."""
    access = etcd_access(options)
    prefix = options.etcd_prefix or EtcdSettings(access, "", ()).prefix
    try:
        etcd = Etcd(access)
        try:
            sys.stdout.write(render_holdings(read_holdings(etcd, prefix)))
        finally:
            etcd.close()
    except (CallError, CNIError) as error:
        print(f"pycni: {error}", file=sys.stderr)
        return _FAILED
    return 0
