"""The page: in a real browser it shows the picture and every row, searches, and asks the network for nothing."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cni_node.inspect.html import page
from cni_node.inspect.join import join
from cni_node.inspect.values import HostPort, Leftover, Peer, Rule, View
from tests.cni_node.inspect.nodes import reading
from tests.kit.host import Host

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
BOUND = 100  # seconds; it takes one or two


def view_of(pods: int = 12) -> View:
    """A node with something of everything."""
    peers = [Peer(f"node{n}", f"10.{n}.0.0/24", f"192.0.2.{n}", "", f"192.0.2.{n}", "") for n in range(2, 5)]
    rules = [Rule("mynet,c1,eth0", "host port", HostPort("", 8080, "tcp", "10.1.0.1:80"))]
    made = reading(pods, peers=peers, rules=rules, exempt=3)
    view = join(made._replace(problems=["the store cannot be read"]))
    return view._replace(leftovers=[Leftover("interface", "veth9 of nobody", "no result")])


def rows(view: View) -> int:
    """The rows of all tables."""
    return page(view).count("<tr>") - page(view).count("<thead>")


def test_the_page_is_well_formed_and_names_nothing_elsewhere() -> None:
    text = page(view_of())
    assert not re.search(r"(src|href|action)\s*=|url\(|@import", text)
    links = set(re.findall(r"https?://[^\"' ]+", text))
    assert links == {"http://www.w3.org/2000/svg"}  # a name, which nobody fetches
    assert "default-src 'none'" in text


@pytest.mark.parametrize("name", ["</td><script>alert(1)</script>", 'a"b&c', "a\x00\x1bb"])
def test_no_name_becomes_a_part_of_the_page(name: str) -> None:
    made = reading(1, node=name)
    text = page(join(made._replace(remembered=[made.remembered[0]._replace(pod=name)])))
    assert (text.count("<script>"), text.count("</script>")) == (1, 1)
    assert name not in text
    table = text[text.index("<tbody>") : text.index("</tbody>")] + "</tbody>"
    assert len(ElementTree.fromstring(table.replace("<br>", "<br/>"))) == 1


def browse(host: Host, directory: Path, url: str, *flags: str) -> str:
    """What Chromium prints, on a host without any network."""
    profile = f"--user-data-dir={directory}/profile"
    command = ("chromium", *FLAGS, profile, *flags, url)
    return host.run(*command, timeout=BOUND).stdout


@pytest.mark.slow
@pytest.mark.kernel
def test_a_browser_shows_every_row_and_finds_what_is_searched_for(host: Host, tmp_path: Path) -> None:
    view = view_of()
    (tmp_path / "node.html").write_text(page(view), encoding="utf-8")
    url = f"file://{tmp_path}/node.html"
    found = browse(host, tmp_path, f"{url}#shop/web-3", "--dump-dom")
    shown = re.findall(r"<tr(| hidden=\"\")><td", found)
    assert (len(shown), shown.count("")) == (rows(view), 1)
    assert f"1 of {rows(view)} rows" in found
    everything = browse(host, tmp_path, url, "--dump-dom", f"--screenshot={tmp_path}/node.png")
    assert 'hidden=""' not in everything
    assert (tmp_path / "node.png").read_bytes().startswith(b"\x89PNG")
