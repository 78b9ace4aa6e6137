"""The readable text of an HTML page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_UNREAD = {"script", "style", "nav", "footer", "svg", "template", "noscript", "button", "select"}
_UNREAD_CLASSES = {"headerlink", "sphinxsidebar", "related", "docnav", "navheader", "navfooter", "footer"}
_PARAGRAPHS = {
    *("p", "div", "section", "article", "main", "header", "blockquote", "pre", "table", "ul", "ol", "dl", "hr"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "figure", "form", "body"),
}
_LINES = {"br", "li", "dt", "dd", "tr", "option", "caption"}
_CELLS = {"td", "th"}
# Elements that have no end tag.
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._skipped = ""
        self._depth = 0
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._skipped:
            # Only like elements are counted: what is inside may be left unclosed.
            self._depth += tag == self._skipped
            return
        values = dict(attrs)
        classes = set((values.get("class") or "").split())
        unread = tag in _UNREAD or values.get("role") == "navigation" or classes & _UNREAD_CLASSES
        if unread and tag not in _VOID:
            self._skipped, self._depth = tag, 1
            return
        self._break(tag)
        self._pre += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if self._skipped:
            self._depth -= tag == self._skipped
            if not self._depth:
                self._skipped = ""
            return
        if tag == "pre":
            self._pre = max(0, self._pre - 1)
        if tag == "head":
            # The title repeats the first heading.
            self.parts.clear()
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self.parts.append(data if self._pre else re.sub(r"\s+", " ", data))

    def _break(self, tag: str) -> None:
        if tag in _PARAGRAPHS:
            self.parts.append("\n\n")
        elif tag in _LINES:
            self.parts.append("\n")
        elif tag in _CELLS:
            self.parts.append(" ")


def html_to_text(page: str) -> str:
    """Paragraphs of a page with a blank line between them; head, scripts and navigation are left out.

    Preformatted text keeps its line breaks and indentation; elsewhere a run of white space is one space. Broken
    HTML is read as far as it goes.

    Example:
        >>> html_to_text("<title>T</title></head><h1>Gap</h1><p>Two   <b>values</b> apart.<script>x()</script>")
        'Gap\\n\\nTwo values apart.'
    """
    reader = _Reader()
    reader.feed(page)
    reader.close()
    text = "".join(reader.parts)
    text = re.sub(r"[ \t]+\n", "\n", text)
    # One space at the beginning of a line is a gap between elements, not an indentation.
    text = re.sub(r"\n (?! )", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()
