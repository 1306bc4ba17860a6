"""resolv.conf(5) text to the DNS part of a result. Pure."""

from cni_protocol.result import DNS


def parse_resolv_conf(text: str) -> DNS:
    """Parse the nameservers, domain, search list and options of a resolv.conf.

    This follows the resolver: of several `domain` or `search` lines the last one counts, `nameserver` and `options`
    lines add up, lines that begin with ';' or '#' are comments, unknown keywords are ignored.
    """
    nameservers: list[str] = []
    options: list[str] = []
    search: list[str] = []
    domain = ""
    for line in text.splitlines():
        keyword, *values = line.split() or [""]
        if not values or keyword[0] in ";#":
            continue
        if keyword == "nameserver":
            nameservers.append(values[0])
        elif keyword == "domain":
            domain = values[0]
        elif keyword == "search":
            search = values
        elif keyword == "options":
            options += values
    return DNS(tuple(nameservers), domain, tuple(search), tuple(options))
