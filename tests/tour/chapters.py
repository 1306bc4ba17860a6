"""Which chapters the tour has, and what kinds of blocks stand in them. Nothing is run here."""

from tests.conftest import ROOT

INDEX = ROOT / "docs/tour.md"
CHAPTERS = sorted((ROOT / "docs/tour").glob("*.md"))
OUTPUT = ("text", "json")  # languages of blocks that show what the commands above print; a drawing has no language
IN_A_CLUSTER = [page for page in CHAPTERS if "scripts/kubernetes" in page.read_text("utf-8")]
BY_HAND = [page for page in CHAPTERS if page not in IN_A_CLUSTER]
