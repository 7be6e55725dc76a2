"""Writes the tables of inputs and outputs into the READMEs of the Terraform modules, and finds what no test covers.

    terraform_docs.py write MODULE..    writes the tables
    terraform_docs.py check MODULE..    fails if a table differs from the code
    terraform_docs.py untested MODULE.. fails if a variable or an output appears in no run of the module's tests, or a
                                        variable, check or precondition has fewer runs that expect its refusal than it has conditions
    terraform_docs.py refusals MODULE.. fails if a validation refuses nothing in the module's tests; runs Terraform

Reads the output format of `terraform fmt`: blocks begin and end at the first column.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

BEGIN, END = "<!-- begin of what scripts/terraform_docs.py writes -->", "<!-- end -->"


def blocks(folder, kind):
    """Returns the text of each top-level block of a kind, by its last label."""
    found = {}
    for path in sorted(folder.glob("*.tf")):
        pattern = rf'^{kind} ((?:"[^"]+" ?)+)\{{(.*?)^\}}|^{kind} ((?:"[^"]+" ?)+)\{{\}}'
        for match in re.finditer(pattern, path.read_text(), re.M | re.S):
            labels = re.findall(r'"([^"]+)"', match.group(1) or match.group(3))
            found[".".join(labels)] = match.group(2) or ""
    return found


def attribute(block, name):
    """Returns the value of an attribute of a block as written, on one line; None if there is none."""
    match = re.search(rf"^  {name}\s+= (.*(?:\n(?:   .*|  [\]}})].*))*)", block, re.M)
    if match is None:
        return None
    lines = re.sub(r" +", " ", match.group(1)).split("\n")
    value = ""
    for line in (line.strip() for line in lines):
        # Joining separate lines into one requires commas.
        between = "" if not value else " " if value[-1] in "{[(," or line[:1] in "}])" else ", "
        value += between + line
    return value


def text(block):
    value = attribute(block, "description")
    if value is None:
        sys.exit(f"no description: {block}")
    return value[1:-1].replace('\\"', '"').replace("|", "\\|")


def table(folder):
    lines = ["### Inputs", "", "| name | what it is | type | default |", "| --- | --- | --- | --- |"]
    for name, block in sorted(blocks(folder, "variable").items()):
        default = attribute(block, "default")
        shown = "required" if default is None else f"`{default}`"
        kind = attribute(block, "type").replace("|", "\\|")
        lines.append(f"| `{name}` | {text(block)} | `{kind}` | {shown} |")
    lines += ["", "### Outputs", "", "| name | what it is |", "| --- | --- |"]
    for name, block in sorted(blocks(folder, "output").items()):
        lines.append(f"| `{name}` | {text(block)} |")
    return "\n".join(lines)


def readme(folder):
    path = folder / "README.md"
    now = path.read_text()
    before, begin, rest = now.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{path}: the marks {BEGIN} and {END} are missing")
    return path, now, f"{before}{BEGIN}\n\n{table(folder)}\n\n{END}{after}"


def write(folder):
    path, now, new = readme(folder)
    if new != now:
        path.write_text(new)
    return []


def check(folder):
    path, now, new = readme(folder)
    return [] if new == now else [f"{path}: the tables are not what the code says; run scripts/terraform_docs.py write {folder}"]


def untested(folder):
    tests = "\n".join(path.read_text() for path in sorted(folder.glob("tests/*.tftest.hcl")))
    # Comments cover nothing.
    tests = re.sub(r"^\s*#.*$", "", tests, flags=re.M)
    expected = re.findall(r"expect_failures\s*=\s*\[([^\]]*)\]", tests)
    expected = [name.strip() for names in expected for name in names.split(",")]
    problems = []
    for name, block in blocks(folder, "variable").items():
        if not re.search(rf"^\s+{name}\s+= ", tests, re.M):
            problems.append(f"{folder}: no test sets the variable {name}")
        conditions, runs = block.count("  validation {"), expected.count(f"var.{name}")
        if runs < conditions:
            problems.append(f"{folder}: the variable {name} has {conditions} validations, and {runs} runs expect a refusal")
    for name in blocks(folder, "output"):
        if not re.search(rf"\boutput\.{name}\b", tests):
            problems.append(f"{folder}: no test reads the output {name}")
    for name in blocks(folder, "check"):
        if f"check.{name}" not in expected:
            problems.append(f"{folder}: no test expects the check {name} to fail")
    for name, block in blocks(folder, "resource").items():
        if "  precondition {" in block and name not in expected:
            problems.append(f"{folder}: no test expects a precondition of {name} to fail")
    return problems


def refusals(folder):
    """Runs every test that expects the refusal of a variable again, and finds which of its validations refused.

    Without resources, and so without a provider: validations look at variables, and at locals of one line.
    """
    problems, hit = [], set()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        shutil.copy(folder / "variables.tf", scratch)
        variables = (folder / "variables.tf").read_text()
        source = "\n".join(path.read_text() for path in sorted(folder.glob("*.tf")))
        needed = sorted(set(re.findall(r"\blocal\.(\w+)", variables)))
        lines = [re.search(rf"^  {name}\s+= .*$", source, re.M).group(0) for name in needed]
        (scratch / "locals.tf").write_text("\n".join(["locals {", *lines, "}", ""]))
        (scratch / "tests").mkdir()
        expected = {}
        for path in sorted(folder.glob("tests/*.tftest.hcl")):
            text = path.read_text()
            shared = re.search(r"^variables \{.*?^\}\n", text, re.M | re.S)
            for name, run in re.findall(r'^run "([^"]+)" (\{.*?^\})', text, re.M | re.S):
                refused = re.search(r"^  expect_failures = \[var\.(\w+)\]\n", run, re.M)
                if refused is None:
                    continue
                expected[name] = refused.group(1)
                # A separate file for each: after a failed run, Terraform skips the rest of its file.
                test = f'{shared.group(0) if shared else ""}run "{name}" {run.replace(refused.group(0), "")}\n'
                (scratch / "tests" / f"{name}.tftest.hcl").write_text(test)
        subprocess.run(["terraform", "init", "-input=false"], cwd=scratch, check=True, stdout=subprocess.DEVNULL)
        done = subprocess.run(["terraform", "test", "-json"], cwd=scratch, stdout=subprocess.PIPE, text=True)
    found = {}
    for message in map(json.loads, done.stdout.splitlines()):
        if message["type"] == "diagnostic":
            detail = message["diagnostic"].get("detail", "")
            for line in re.findall(r"validation rule at variables\.tf:(\d+),", detail):
                found.setdefault(message.get("@testrun"), set()).add(int(line))
    starts = {}
    variable = None
    for number, line in enumerate(variables.splitlines(), 1):
        if match := re.match(r'variable "(\w+)"', line):
            variable = match.group(1)
        elif line == "  validation {":
            starts[number] = variable
    for name, variable in expected.items():
        lines = {line for line in found.get(name, ()) if starts.get(line) == variable}
        if not lines:
            problems.append(f"{folder}: the run {name} was to be refused by a validation of {variable}, and was not")
        hit |= lines
    for line in sorted(starts.keys() - hit):
        problems.append(f"{folder}/variables.tf:{line}: no test is refused by this validation of {starts[line]}")
    print(f"{folder.name}: {len(expected)} refusals, {len(hit)} of {len(starts)} validations")
    return problems


def main():
    actions = {"write": write, "check": check, "untested": untested, "refusals": refusals}
    if len(sys.argv) < 3 or sys.argv[1] not in actions:
        sys.exit(__doc__)
    problems = [problem for folder in sys.argv[2:] for problem in actions[sys.argv[1]](pathlib.Path(folder))]
    print("\n".join(problems), end="\n" if problems else "")
    sys.exit(bool(problems))


main()
