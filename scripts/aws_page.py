"""Runs the shell commands of docs/aws.md against moto, in sequence, as a new user copies them.

    aws_page.py PAGE FOLDER

FOLDER holds a copy of terraform/, and receives the files that the commands write. Needs the environment of terraform_apply.py, and the example
programs that Cargo has built: `cargo run -p encx-aws --example NAME -- ..` in the page runs one of them.

A comment before a block may say `<!-- not run: why -->`, or `<!-- dry run: why -->`: then the AWS CLI only checks its arguments. Every other
block runs, all in one shell. A text block shows the output of the block before it: its lines are compared, without ids and numbers. The error
texts that the page explains must be in the code of encx-aws, except those of AWS.
"""

import os
import pathlib
import re
import subprocess
import sys
import time

PRELUDE = r"""
set -euo pipefail
dry=
aws() {
  if [ -n "$dry" ]; then
    $AWS_CLI "$@" --generate-cli-skeleton output >/dev/null
  else
    $AWS_CLI "$@"
  fi
}
cargo() {
  if [[ "$*" =~ ^run\ -q\ -p\ encx-aws\ --example\ ([a-z_]+)\ --\ (.*)$ ]]; then
    local name=${BASH_REMATCH[1]}
    shift 7
    "$EXAMPLES/$name" "$@"
  else
    echo "this page has another command of Cargo: cargo $*" >&2
    return 1
  fi
}
"""
BLOCK = re.compile(r"^(?:<!-- (not|dry) run: ([^\n]+) -->\n)?```(\w*)\n(.*?)^```$", re.M | re.S)


# Texts of AWS that encx passes on.
OF_AWS = {"KeyRotationEnabled: false", "explicit deny", "no identity-based policy allows", "no resource-based policy allows"}


def unknown_errors(text):
    """Finds error texts in the page's table that encx-aws does not have."""
    code = "\n".join(path.read_text() for path in sorted(pathlib.Path("providers/aws/src").rglob("*.rs")))
    code = re.sub(r"\\\n\s*", "", code)
    table = text[text.index("| text | cause | do |") :].partition("\n\n")[0]
    said = [it for line in table.splitlines()[2:] for it in re.findall(r"`([^`]+)`", line.split("|")[1])]
    parts = [part.strip() for it in said for part in it.split("…")]
    return [part for part in parts if part not in code and part not in OF_AWS and part != "alias/"], len(parts)


def blank(line):
    """Returns a line without the parts that differ between runs."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+", "…", line.strip())


def main():
    page, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    text = page.read_text()
    unknown, known = unknown_errors(text)
    if unknown or not known:
        sys.exit(f"{page}: encx-aws says nothing of this: {unknown}")
    script, shown, ran, left = [PRELUDE], {}, 0, []
    for block in BLOCK.finditer(text):
        how, why, language, body = block.groups()
        line = text.count("\n", 0, block.start()) + 1
        if language == "text":
            shown[last] = body.splitlines()
        if language != "sh":
            continue
        last = line
        if how == "not":
            left.append(f"line {line} is not run: {why}")
            continue
        if how == "dry":
            left.append(f"line {line} is checked, and not run: {why}")
            script += [f"echo '## {line}'", f"dry=1\n{body}dry="]
            continue
        ran += 1
        script += [f"echo '## {line}'", body]
    environment = os.environ | {"EXAMPLES": str(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"), "debug", "examples").resolve())}
    began = time.monotonic()
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=folder,
        env=environment,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=900,
    )
    output = done.stdout
    if done.returncode != 0:
        at = re.findall(r"^## (\d+)$", output, re.M)
        sys.exit(f"{output}\n{page}:{at[-1] if at else 1}: the commands of this block failed")
    parts = dict(zip(*[iter(re.split(r"^## (\d+)\n", output, flags=re.M)[1:])] * 2))
    for line, wanted in shown.items():
        printed = [blank(it) for it in parts[str(line)].splitlines()]
        for it in wanted:
            if blank(it) not in printed:
                sys.exit(f"{parts[str(line)]}\n{page}:{line}: the page says that this prints: {it}")
    print("\n".join(left))
    print(f"{page}: {ran} blocks ran, in {time.monotonic() - began:.0f} s")
    if not ran or not shown:
        sys.exit("nothing was run or compared")


main()
