"""resolv.conf(5) as the DNS part of a result."""

import pytest

from cni_ipam.resolvconf import parse_resolv_conf
from cni_protocol.result import DNS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", DNS()),
        ("\n \n\t\n", DNS()),
        ("nameserver 10.1.0.1\n", DNS(("10.1.0.1",))),
        ("nameserver 10.1.0.1", DNS(("10.1.0.1",))),
        ("nameserver 10.1.0.1\r\nnameserver ::1\r\n", DNS(("10.1.0.1", "::1"))),
        ("\tnameserver \t 10.1.0.1  trailing\n", DNS(("10.1.0.1",))),
        ("nameserver 10.1.0.1\nnameserver 2001:db8::1\n", DNS(("10.1.0.1", "2001:db8::1"))),
        ("domain a.example\ndomain b.example\n", DNS(domain="b.example")),
        ("search a.example b.example\n", DNS(search=("a.example", "b.example"))),
        ("search a.example\nsearch b.example c.example\n", DNS(search=("b.example", "c.example"))),
        ("options ndots:5 rotate\noptions timeout:1\n", DNS(options=("ndots:5", "rotate", "timeout:1"))),
        ("# nameserver 1.1.1.1\n; nameserver 1.1.1.1\n#nameserver 1.1.1.1\n", DNS()),
        ("nameserver\ndomain\nsearch\noptions\n", DNS()),
        ("sortlist 10.0.0.0\nnameservers 10.1.0.1\nNAMESERVER 10.1.0.1\n", DNS()),
    ],
    ids=[
        "empty",
        "blank",
        "nameserver",
        "no-newline",
        "crlf",
        "white-space",
        "in-order",
        "last-domain",
        "search",
        "last-search",
        "options-add-up",
        "comments",
        "no-values",
        "unknown",
    ],
)
def test_a_resolv_conf_is_read_as_the_resolver_does(text: str, expected: DNS) -> None:
    assert parse_resolv_conf(text) == expected


def test_all_keywords_together() -> None:
    text = "# made by hand\nsearch a.example\nnameserver 10.1.0.1\noptions edns0\ndomain example\n"
    assert parse_resolv_conf(text) == DNS(("10.1.0.1",), "example", ("a.example",), ("edns0",))
