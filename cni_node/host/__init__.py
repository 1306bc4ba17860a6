"""What the agent keeps in the kernel of its node: links, sysctls, routes to peers, exemptions from masquerading."""
