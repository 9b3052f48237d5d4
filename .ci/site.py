"""Holds the built site to what it promises: `python .ci/site.py build/site`.

Every link leads to a file, and to an anchor in it; nothing that a page shows is loaded from elsewhere.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The anchors of a page, the links in it, and what a browser loads to show it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and given.get("rel") in ("canonical", "next", "prev", "search", "index"):
            return
        if tag in ("link", "script", "img", "iframe", "source", "video", "object"):
            self.loaded += [given[name] for name in ("href", "src", "data") if name in given]


def faults(site: Path) -> list[str]:
    """Return a line for each link that leads nowhere and each thing that is loaded from another host."""
    files = sorted(site.rglob("*.html"))
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in files}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        found += [f"{name}: loads {one}" for one in page.loaded if urlsplit(one).netloc]
        found += [
            f"{name}: no {one}"
            for one in [*page.links, *page.loaded]
            if not _elsewhere(one) and not _leads(path, one, pages)
        ]
    for path in sorted(site.rglob("*.css")):
        text = path.read_text(encoding="utf-8")
        found += [
            f"{path.relative_to(site)}: loads {host}" for host in ("url(http", "url(//", "@import") if host in text
        ]
    return found


def _elsewhere(link: str) -> bool:
    parts = urlsplit(link)
    return bool(parts.scheme or parts.netloc)


def _leads(path: Path, link: str, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if parts.fragment and target in pages:
        return unquote(parts.fragment) in pages[target].anchors
    return target.is_file()


def main() -> int:
    """Check the site in the folder that the call names."""
    site = Path(sys.argv[1])
    if not (site / "index.html").is_file():
        print(f"{site} holds no site")
        return 1
    found = faults(site)
    print(
        "\n".join(found)
        or f"{len(list(site.rglob('*.html')))} pages: every link leads somewhere, nothing is loaded from elsewhere"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
