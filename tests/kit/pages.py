"""Pages whose commands are run as they are written: the blocks in them, and what may differ from run to run.

Nothing is run here but what looks at the machine.
"""

import re
import subprocess

# What differs from run to run: the directory, MACs, the code's directory, times.
RANDOM = (
    (r"/\S*/tmp\.\w+", "DIR"),
    (r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", "MAC"),
    (r"lib/[0-9a-f]{16}", "lib/CODE"),
    (r"(?<![\d.])\d+\.\d{3}(?=[/ ])", "TIME"),  # and no part of an address
    (r"[ \t]+$", ""),
)


def code_blocks(text: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page: language, which may be empty, and body."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def normalized(text: str) -> str:
    """A text without what differs from run to run."""
    for pattern, replacement in RANDOM:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text.strip()


def machine_network() -> list[str]:
    """What must be the same before and after: interfaces, addresses, routes, rules, named namespaces."""
    commands = (
        ["ip", "-o", "link"],
        ["ip", "-o", "address"],
        ["ip", "route", "show", "table", "all"],
        ["nft", "list", "ruleset"],
        ["ip", "netns", "list"],
    )
    outputs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in commands]
    return [re.sub(r"(valid_lft|preferred_lft|expires) \w+", "", text) for text in outputs]
