"""A node as one page for a browser: the picture, and tables that can be searched. It fetches nothing. Pure.

Must not: put a name into the text that is not escaped, or leave anything out.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence

from cni_node.inspect.svg import draw, escape
from cni_node.inspect.text import describe_port, summary_of
from cni_node.inspect.values import Attached, View

_STYLE = """
body { font: 15px/1.45 system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; color: #1f2933; background: #f7f8fa;
  margin: 0 auto; padding: 24px; max-width: 1320px }
h1 { font-size: 24px; margin: 0 0 4px } h2 { font-size: 17px; margin: 28px 0 8px } p { margin: 4px 0; color: #52606d }
svg { width: 100%; height: auto; display: block } .wide { overflow-x: auto; background: #fff; border: 1px solid #d5dbe1;
  border-radius: 8px } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: 6px 12px; border-bottom: 1px solid #e8ebef }
th { font-size: 12px; color: #52606d; font-weight: 600 } tr:last-child td { border-bottom: 0 }
td { overflow-wrap: anywhere } .wrong { color: #b42318; font-weight: 600 } [hidden] { display: none }
input { font: inherit; padding: 6px 10px; width: 400px; max-width: 100%; border: 1px solid #9aa5b1; border-radius: 6px }
"""
_SCRIPT = """
const field = document.getElementById('search'), rows = [...document.querySelectorAll('tbody tr')];
function search() {
  const words = field.value.toLowerCase().split(' ').filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
    shown += !row.hidden;
  }
  document.getElementById('count').textContent = words.length ? shown + ' of ' + rows.length + ' rows' : '';
}
field.value = decodeURIComponent(location.hash.slice(1));
field.addEventListener('input', search);
search();
"""
_POD_COLUMNS = ("pod", "interface", "addresses", "host end", "bridge", "mtu", "host ports", "rules", "container", "")


def page(view: View) -> str:
    """The page as text."""
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    name = escape(view.node)
    lines = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>node {name}</title><style>{_STYLE}</style></head><body>",
        f"<h1>The pod network of {name}</h1><p>{escape(summary_of(view))}</p>",
        f'<div class="wide">{draw(view)}</div>',
        '<h2><label for="search">Search</label></h2>',
        '<input id="search" type="search" placeholder="a pod, an address, an interface, a port">',
        '<span id="count"></span>',
        *_tables(view),
        f"<script>{_SCRIPT}</script></body></html>",
    ]
    return "\n".join(lines) + "\n"


def _tables(view: View) -> Iterator[str]:
    yield from _table("Pods", _POD_COLUMNS, map(_pod, view.attached))
    bridges = (
        (
            b.link.name,
            _lines(b.addresses),
            str(b.link.mtu),
            str(len(b.owners)),
            _lines(b.others),
            "" if b.link.up else "down",
        )
        for b in view.bridges
    )
    yield from _table("Bridges", ("bridge", "addresses", "mtu", "pods", "other ports", ""), bridges)
    ways = [
        (way["name"], way["gateway"], _lines(way["addresses"]), str(way["mtu"]), "" if way["up"] else "down")
        for way in view.uplinks
    ]
    ways += [(link.name, "overlay", "", str(link.mtu), "" if link.up else "down") for link in view.overlay]
    yield from _table("Ways out", ("interface", "gateway", "addresses", "mtu", ""), ways)
    peers = ((p.name or "?", p.pods, p.via, p.device, p.node, p.lacks) for p in view.peers)
    yield from _table("Peers", ("peer", "pods", "via", "device", "delivered to", ""), peers)
    networks = ((n.name, _lines(n.bridges), str(n.attachments), str(n.reservations)) for n in view.networks)
    yield from _table("Networks", ("network", "bridges", "interfaces", "reserved addresses"), networks)
    yield from _table("Packet filter", ("what", "number"), _filter(view))
    title = "Left over" if view.sure else "Left over, or not: what tells could not all be read"
    yield from _table(title, ("kind", "what", "why"), view.leftovers)
    yield from _table("Could not be read", ("",), ((problem,) for problem in view.problems))


def _pod(one: Attached) -> Sequence[str]:
    host = one.host
    return (
        one.label,
        one.ifname,
        _lines(one.addresses) or one.unaddressed,
        host.name if host is not None else "",
        one.bridge,
        str(host.mtu) if host is not None else "",
        _lines(map(describe_port, one.ports)),
        _lines(one.rules),
        f"{one.container_id}\n{one.network}",
        _lines(one.state),
    )


def _filter(view: View) -> Iterator[tuple[str, str]]:
    if view.exempt is not None:
        yield "networks that are not masqueraded towards", str(view.exempt)
    if view.policies is not None:
        yield "addresses that policies isolate", str(view.policies.pods)
        yield from ((f"packets denied: {why}", str(number)) for why, number in view.policies.denied.items())


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(texts)


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table, unless it is empty. A column without a name says what is wrong."""
    body = list(rows)
    if not body:
        return
    yield f'<h2>{escape(title)}</h2><div class="wide"><table><thead><tr>'
    yield "".join(f"<th>{escape(column)}</th>" for column in columns) + "</tr></thead><tbody>"
    for row in body:
        yield "<tr>" + "".join(_cell(text, column) for text, column in zip(row, columns, strict=True)) + "</tr>"
    yield "</tbody></table></div>"


def _cell(text: str, column: str) -> str:
    kind = "" if column else ' class="wrong"'
    return f"<td{kind}>{'<br>'.join(map(escape, text.split(chr(10))))}</td>"
