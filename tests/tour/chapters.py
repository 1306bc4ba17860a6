"""Which chapters the tour has, and what kinds of blocks stand in them. Nothing is run here."""

from tests.conftest import ROOT
from tests.kit.pages import code_blocks

INDEX = ROOT / "docs/tour.md"
CHAPTERS = sorted((ROOT / "docs/tour").glob("*.md"))
OUTPUT = ("text", "json")  # languages of blocks that show what the commands above print; a drawing has no language
MARK = "END OF OUTPUT"
IN_A_CLUSTER = [page for page in CHAPTERS if "kubectl" in page.read_text("utf-8")]
BY_HAND = [page for page in CHAPTERS if page not in IN_A_CLUSTER]


def script_of(text: str) -> str:
    """The commands of a page, with a mark where a block of output ends."""
    blocks = [(language, body) for language, body in code_blocks(text) if language in ("sh", *OUTPUT)]
    return "".join(body if language == "sh" else f"echo {MARK}\n" for language, body in blocks)
