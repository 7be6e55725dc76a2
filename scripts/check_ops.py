"""Prints a rules file with every query of ops/dashboard.json and docs/operations.md, so that promtool can parse them."""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Values for Grafana's variables.
VARIABLES = {"$__rate_interval": "5m", "$job": "shop"}


def of_dashboard():
    for panel in json.loads((ROOT / "ops/dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def of_page():
    """The queries in the last column of the page's tables, and in its blocks of PromQL."""
    page = (ROOT / "docs/operations.md").read_text()
    for row in re.findall(r"^\| `(encx_\w+)` .* \| `(.*)` \|$", page, re.MULTILINE):
        yield row
    for block in re.findall(r"^```promql\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        yield "block", block


def main():
    queries = [*of_dashboard(), *of_page()]
    if len(queries) < 40:
        sys.exit(f"only {len(queries)} queries were found")
    rules = []
    for number, (_, query) in enumerate(queries):
        for variable, value in VARIABLES.items():
            query = query.replace(variable, value)
        rules.append({"record": f"query:{number}", "expr": query.replace("\\|", "|")})
    # JSON is YAML.
    print(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))


main()
