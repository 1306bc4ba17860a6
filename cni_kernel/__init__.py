"""Linux as both plugins' and the node's side need it: netlink, links, routes, nftables, sysctls, namespaces."""
