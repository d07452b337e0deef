"""
docs/topologies.md: what it says of options, figures, files and connections is so.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
import yaml

from dcm_ws.app.options import BY_NAME
from tests.contrib.files import CONTRIB, ROOT, argument, options_of
from tests.contrib.test_kubernetes import FOUND, OLDEST

DOCS = ROOT / "docs"
PAGE = (DOCS / "topologies.md").read_text()
PICTURES = sorted((DOCS / "images").glob("topology-*.svg"))
SVG = "{http://www.w3.org/2000/svg}"


def section(heading: str) -> str:
    """
    The text under a heading.
    """
    return PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def rows(heading: str) -> list[list[str]]:
    """
    The cells of the first table under a heading, without its head.
    """
    table = re.search(r"(?:^\|.*\n)+", section(heading), re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


def figures(text: str) -> list[str]:
    """
    The numbers in a text.
    """
    return re.findall(r"\d[\d,.]*\d|\d", re.sub(r"\]\([^)]*\)", "", text))


def test_options_exist() -> None:
    """
    Each option that the page names is one of the service, or of a command that the page shows.
    """
    known = {f"--{name}" for name in BY_NAME} | options_of("init-db")
    # of docker, kubectl and openssl
    others = {"--from-literal", "--from-file", "--for", "--timeout"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE)) <= known | others


def test_figures_are_those_that_were_measured() -> None:
    """
    The figures for the choice and for the processor time are in the pages that they are said to be from.
    """
    measured = (DOCS / "performance.md").read_text() + (DOCS / "workers.md").read_text()
    found = [cell for row in rows("Which one do I need") for cell in figures(row[2])]
    # rounded there: a ping takes 7.89 µs
    found += [row[1].split()[0] for row in rows("Processor time") if row[1] != "8 µs"]
    assert len(found) > 15
    assert [
        figure for figure in found if not re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d.,]*\d)", measured)
    ] == []


def test_example_is_right() -> None:
    """
    The example of processor time is computed from the table.
    """
    (clients, rate, total, percent) = re.search(  # type: ignore[union-attr]
        r"For example, ([\d,]+) clients that all get (\d+) events.* take ([\d,]+) deliveries.* which is (\d+) %",
        section("Processor time"),
    ).groups()
    deliveries = int(clients.replace(",", "")) * int(rate)
    assert deliveries == int(total.replace(",", ""))
    assert round(deliveries * 5.6e-6 * 100) == int(percent)


def test_sums_of_connections() -> None:
    """
    The columns add up, and so do the examples.
    """
    *names, total = rows("Connections to PostgreSQL")
    sums = [sum(int(row[column].split()[0]) for row in names if row[column]) for column in (1, 2, 3)]
    assert sums == [int(cell) for cell in total[1:]]
    # of all nodes, one leads
    momentary = sum("for a moment" in name for name, *_ in names)
    for nodes, most, lasting in ((3, 31, 19), (12, 121, 73)):
        assert (sums[1] - 1) * nodes + 1 == most
        assert (sums[1] - momentary - 1) * nodes + 1 == lasting
        assert re.search(rf" {most}\b.* {lasting}\b", section("Connections to PostgreSQL"))
    operations = (DOCS / "operations.md").read_text()
    assert {name.split("`")[1] for name, *_ in names} == set(
        re.findall(r"^\| `(dcm-ws \w+)` \|", operations, re.MULTILINE)
    )


def test_limits_of_memory() -> None:
    """
    The limits of memory have the defaults of the options, their sum is right, and a pod may have more.
    """
    sizes = []
    for _, names, size in rows("Memory"):
        found = re.search(r"--([a-z-]+)", names)
        if found is not None:
            assert int(size.split()[0]) << 20 == BY_NAME[found[1]].default
        sizes.append(int(size.split()[0]) * (1.25 if "quarter" in names else 1))
    total = sum(sizes[:7])
    assert f"the first seven, {total:g} MiB" in section("Memory")
    (node,) = FOUND["Deployment", "dcm-ws"]["spec"]["template"]["spec"]["containers"]
    assert yaml.safe_load(node["resources"]["limits"]["memory"].removesuffix("Gi")) << 10 > total


def test_files() -> None:
    """
    The services and the manifests that the page describes are there, with these ports and versions.
    """
    services = {name for row in rows("Docker Compose") for name in re.findall(r"`([\w-]+)`", row[0])}
    assert services == set(yaml.safe_load((CONTRIB / "compose.yaml").read_text())["services"])
    assert {row[0].strip("`") for row in rows("Kubernetes")} == {
        path.name for path in (CONTRIB / "kubernetes").glob("*.yaml")
    }
    assert f"Kubernetes {OLDEST} or newer" in PAGE
    (node,) = FOUND["Deployment", "dcm-ws"]["spec"]["template"]["spec"]["containers"]
    assert f"docker build -f contrib/Dockerfile -t {node['image']} ." in PAGE
    assert argument("STOPSIGNAL") in PAGE


def test_all_pictures_are_shown() -> None:
    """
    Each picture is on the page.
    """
    assert len(PICTURES) == 5
    assert sorted(re.findall(r"\]\(images/(topology-.*\.svg)\)", PAGE)) == [path.name for path in PICTURES]


@pytest.mark.parametrize("name", [path.name for path in PICTURES])
def test_picture(name: str) -> None:
    """
    A picture has a title, a description, colours for dark pages, and nothing from elsewhere; all text is in its frame.
    """
    text = (DOCS / "images" / name).read_text()
    picture = ElementTree.fromstring(text)
    _, _, width, height = map(float, picture.attrib["viewBox"].split())
    assert picture.find(f"{SVG}title") is not None and picture.find(f"{SVG}desc") is not None
    style = picture.findtext(f"{SVG}style") or ""
    light, _, dark = style.partition("@media (prefers-color-scheme: dark)")
    classes = {one for element in picture.iter() for one in element.attrib.get("class", "").split()} - {"left", "small"}
    assert all(f".{one} " in light or f".{one}," in light for one in classes)
    assert all(f".{one} " in dark or f".{one}," in dark for one in classes)
    assert "href" not in text and "<script" not in text
    for one in picture.iter(f"{SVG}text"):
        assert 0 < float(one.attrib["x"]) < width and 0 < float(one.attrib["y"]) < height
