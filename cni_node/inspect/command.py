"""`pycni inspect`: reads the node, joins what it found by owner, and shows it as text, JSON, a picture or a page.

Must not: change anything on the node.
"""

import argparse
import json
import sys
from pathlib import Path

from cni_node.inspect.document import document_of
from cni_node.inspect.html import page
from cni_node.inspect.join import join
from cni_node.inspect.reading import Places, read_node
from cni_node.inspect.store import DIRECTORY as STORE
from cni_node.inspect.svg import draw
from cni_node.inspect.text import render
from cni_node.results import DIRECTORY as RESULTS

_OK, _PARTLY = 0, 1  # exit statuses


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--json", action="store_true", help="all of it, for programs")
    parser.add_argument("--svg", metavar="FILE", type=Path, help="a picture, into a file")
    parser.add_argument("--html", metavar="FILE", type=Path, help="a page that can be searched, into a file")
    parser.add_argument("--all", action="store_true", help="long lists in full; else the first ten")
    parser.add_argument(
        "--results", metavar="DIR", type=Path, default=RESULTS, help=f"what the runtime remembers [{RESULTS}]"
    )
    parser.add_argument("--store", metavar="DIR", type=Path, default=STORE, help=f"reservations [{STORE}]")


def run(options: argparse.Namespace) -> int:
    """Show the node. Returns 0, or 1 where something could not be read."""
    view = join(read_node(Places(options.results, options.store)))
    status = _PARTLY if view.problems else _OK
    files = [(path, make) for path, make in ((options.svg, draw), (options.html, page)) if path is not None]
    for path, make in files:
        try:
            path.write_text(make(view), encoding="utf-8")
        except OSError as error:
            print(f"pycni: {path} cannot be written: {error.strerror}", file=sys.stderr)
            return _PARTLY
    if files:
        for problem in view.problems:
            print(f"pycni: {problem}", file=sys.stderr)
        return status
    text = json.dumps(document_of(view), indent=2) + "\n" if options.json else render(view, everything=options.all)
    sys.stdout.buffer.write(text.encode(errors="replace"))  # whatever the locale is
    return status
