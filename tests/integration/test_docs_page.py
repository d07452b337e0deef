"""
C{/docs}: the description of the HTTP calls, in a browser.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from dcm_ws.http.api_calls import CALLS
from tests.integration.browser import chromium
from tests.integration.running import service

pytestmark = pytest.mark.integration

WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation",
    (event) => violations.push(`${event.violatedDirective} ${event.blockedURI.slice(0, 60)}`));
"""


def test_docs() -> None:
    """
    The page lists all calls, tries one out, loads nothing from elsewhere, and violates no policy with its scripts.
    """
    with service() as running, chromium("localhost") as page:
        page.call("Page.enable")
        page.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        page.call("Page.navigate", url=f"http://localhost:{running.port}/docs")
        page.wait_for(f"document.querySelectorAll('.opblock').length === {len(CALLS)}")
        page.evaluate("document.querySelector('#operations-publishing-publish button').click()")
        page.wait_for("!!document.querySelector('#operations-publishing-publish .try-out button')")
        if folder := os.environ.get("DCM_WS_TEST_PICTURES"):
            page.call("Emulation.setDeviceMetricsOverride", width=1200, height=1600, deviceScaleFactor=1, mobile=False)
            shot = page.call("Page.captureScreenshot")["data"]
            (Path(folder) / "docs.png").write_bytes(base64.b64decode(shot))
        page.evaluate("document.querySelector('#operations-publishing-publish .try-out button').click()")
        page.wait_for("!!document.querySelector('#operations-publishing-publish .execute')")
        page.evaluate("document.querySelector('#operations-publishing-publish .execute').click()")
        page.wait_for("document.querySelector('.live-responses-table tbody')?.innerText.includes('200')")
        places = page.evaluate("performance.getEntriesByType('resource').map((entry) => new URL(entry.name).host)")
        # images in its style sheet have no host
        assert set(places) - {""} == {f"localhost:{running.port}"}
        violations = page.evaluate("violations")
        # only the arrows in its menus are missing
        assert [one for one in violations if one != "img-src data"] == []
