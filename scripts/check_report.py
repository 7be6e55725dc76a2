"""Makes a report of a place with data and opens it in headless Chromium. Called by scripts/check-report.

It checks, light and dark: nothing is said on the console, nothing is asked of any server, no script is there, also none that a tenant's or a
table's name would be, and axe-core finds nothing that keeps people from reading it. At the width of a phone nothing is cut off and nothing scrolls
sideways but tables in boxes of their own. On paper it is light, and nothing is cut off.
"""

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

TENANT = "<script>alert(1)</script>"
TABLE = 'a"><img src=x onerror=1>'
DAY = 86_400_000_000  # microseconds

# What reaches out of the window, and stands in no box that scrolls by itself. `.skip` waits outside until it has the focus.
OVERFLOWING = """() => {
  const root = document.documentElement;
  const boxed = (e) => e.closest('.scroll, .skip') && !e.matches('.scroll');
  const out = [...document.querySelectorAll('body *')].filter((e) => !boxed(e) && !e.matches('.skip')
    && (e.getBoundingClientRect().right > root.clientWidth + 1 || e.getBoundingClientRect().left < -1)
    && getComputedStyle(e).position !== 'absolute' && !e.closest('.stack thead'));
  const page = root.scrollWidth > root.clientWidth ? [`the page is ${root.scrollWidth} px wide in a window of ${root.clientWidth}`] : [];
  return page.concat(out.map((e) => `${e.tagName} ${e.className} ${e.textContent.slice(0, 40)}`));
}"""

SCRIPTS = """() => [...document.querySelectorAll('*')].filter((e) => ['SCRIPT', 'IMG', 'IFRAME', 'OBJECT', 'EMBED'].includes(e.tagName.toUpperCase())
  || [...e.attributes].some((a) => a.name.startsWith('on') || /^\\s*javascript:/i.test(a.value))).map((e) => e.outerHTML.slice(0, 80))"""

# Axe does not judge text in pictures and in boxes that scroll.
CONTRAST = """() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, at) => sum + c * [.2126, .7152, .0722][at], 0);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] === 1) return c; } };
  const pale = {};
  for (const e of document.querySelectorAll('body *')) {
    if (e.tagName.toLowerCase() === 'title' || e.tagName.toLowerCase() === 'desc') continue;
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    const style = getComputedStyle(e), [a, b] = [parse(e instanceof SVGElement ? style.fill : style.color), ground(e)].map(light);
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) pale[`${e.tagName} .${e.getAttribute('class')}`] = ratio.toFixed(2);
  }
  return Object.entries(pale).map(([e, ratio]) => `${e}: ${ratio}`);
}"""

DARK = "() => { const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number); return r + g + b < 384; }"


def run(*command):
    """Runs the program and returns its stdout."""
    return subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def make_report(binaries, folder):
    """Keeps the quickstart's data, ages it, adds what tries to break the page, and writes the report."""
    run(binaries / "examples/quickstart", "--keep", folder)
    config = folder / "encx.toml"
    encx = [binaries / "encx", "--config", config]
    for tenant in [TENANT, "hooli", "umbrella"]:
        run(*encx, "keys", "create", "-c", f"tenantId={tenant}", "-c", "purpose=pii")
    made = json.loads(run(*encx, "keys", "create", "-c", f"tenantId={TENANT}", "-c", "purpose=logs", "--format", "json"))
    run(*encx, "keys", "suspend", made["id"], "--yes", "--because", TENANT)
    run(*encx, "keys", "destroy", made["id"], "--with-data", f"asked by {TABLE}", "--yes")
    # Literal strings of TOML have no escapes.
    with config.open("a") as file:
        file.write(
            f"\n[[column]]\ntable = '{TABLE}'\ncolumn = 'note'\nid = {{ column = 'id', kind = 'integer' }}\n"
            "context = { tenantId = { column = 'tenant' }, purpose = 'pii' }\n"
        )
    with sqlite3.connect(folder / "service.db") as database:
        keys = [row[0] for row in database.execute("SELECT id FROM encx_data_keys WHERE state = 'active' ORDER BY id")]
        for number, key in enumerate(keys):
            database.execute("UPDATE encx_data_keys SET activated_at = activated_at - ? WHERE id = ?", (number * 47 * DAY, key))
        today = database.execute("SELECT max(day) FROM encx_daily_counts").fetchone()[0]
        for back in range(1, 24):
            for what, count in [("encrypts", 900 + 37 * back), ("decrypts", 7000 - 100 * back), ("kms_calls.unwrap_key", 40 + back * back % 17),
                                ("kms_failures.unwrap_key", back % 6 // 5 * 7)]:
                database.execute("INSERT INTO encx_daily_counts (day, what, count) VALUES (?, ?, ?)", (today - back, what, count))
    # The quickstart has moved and copied values: these rows do not open.
    verify = [*encx, "verify", "--all", "--column", "customers.email", "--column", "customers.ssn"]
    assert subprocess.run([str(part) for part in verify], stdout=subprocess.DEVNULL).returncode == 3
    page = folder / "report.html"
    run(*encx, "report", "--html", page, "--census")
    return page


class Checks:
    def __init__(self, browser, page, args):
        self.browser, self.url, self.axe, self.keep, self.failures = browser, page.as_uri(), args.axe, args.keep, []

    def expect(self, what, wrong):
        """Notes a failure unless there is nothing wrong."""
        if wrong:
            self.failures.append(f"{what}: {wrong}")

    def open(self, what, width, scheme, **options):
        context = self.browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        page = context.new_page()
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(self.url, wait_until="load")
        self.expect(f"{what}: the console says", said)
        self.expect(f"{what}: asked for", [url for url in asked if url != self.url])
        return page

    def screen(self, what, width, scheme):
        page = self.open(what, width, scheme)
        self.expect(f"{what}: scripts and images", page.evaluate(SCRIPTS))
        self.expect(f"{what}: cut off", page.evaluate(OVERFLOWING))
        self.expect(f"{what}: is not {scheme}", page.evaluate(DARK) != (scheme == "dark"))
        self.expect(f"{what}: contrast", page.evaluate(CONTRAST))
        text = page.inner_text("body")
        self.expect(f"{what}: names that are not shown as they are", [name for name in [TENANT, TABLE] if name not in text])
        if self.keep:
            page.screenshot(path=self.keep / f"{what}.png", full_page=True)
        page.context.close()

    def accessible(self, what, width, scheme):
        page = self.open(what, width, scheme, bypass_csp=True)
        page.add_script_tag(path=self.axe)
        found = page.evaluate("() => axe.run()")
        self.expect(f"{what}: axe passed too few rules", len(found["passes"]) < 20 and len(found["passes"]))
        for violation in found["violations"]:
            places = [node["html"][:120] for node in violation["nodes"][:3]]
            self.expect(f"{what}: axe", f"{violation['id']}: {violation['help']}: {places}")
        unsure = [f"{one['id']}: {node['html'][:120]}" for one in found["incomplete"] if one["id"] != "color-contrast" for node in one["nodes"]]
        self.expect(f"{what}: axe is not sure", unsure)
        page.context.close()

    def printed(self):
        page = self.open("print", 1280, "dark")
        page.emulate_media(media="print", color_scheme="dark")
        self.expect("print: is dark", page.evaluate(DARK))
        page.set_viewport_size({"width": 690, "height": 1000})  # A4 without its margins
        self.expect("print: cut off", page.evaluate("""() => [...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth + 1)
            .map((e) => `${e.getAttribute('aria-label')} (${e.scrollWidth} in ${e.clientWidth})`)"""))
        pdf = page.pdf(prefer_css_page_size=True)
        pages = pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ")
        self.expect("print: pages", not 3 <= pages <= 30 and pages)
        if self.keep:
            (self.keep / "print.pdf").write_bytes(pdf)
        page.context.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binaries", type=Path)
    parser.add_argument("--chromium", required=True)
    parser.add_argument("--axe", required=True)
    parser.add_argument("--keep", type=Path, help="a folder for the page, pictures of it and the printed PDF")
    args = parser.parse_args()
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = make_report(args.binaries, Path(folder).resolve())
        if args.keep:
            (args.keep / "report.html").write_bytes(page.read_bytes())
        browser = playwright.chromium.launch(executable_path=args.chromium)
        checks = Checks(browser, page, args)
        for what, width, scheme in [("light", 1280, "light"), ("dark", 1280, "dark"), ("phone", 360, "light"), ("phone-dark", 360, "dark")]:
            checks.screen(what, width, scheme)
            checks.accessible(what, width, scheme)
        checks.printed()
        browser.close()
    for failure in checks.failures:
        print(failure, file=sys.stderr)
    if checks.failures:
        sys.exit(1)
    print("the report is light and dark, fits a phone and paper, has no script, asks for nothing, and axe finds nothing")


main()
