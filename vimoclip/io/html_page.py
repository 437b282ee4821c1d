"""Pages that need no network: one HTML file with its style and scripts in it. The only user of jinja2."""

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any


def render(package: str, name: str, style: str, scripts: Mapping[str, str], content: Mapping[str, Any]) -> str:
    """The page from `<package>/templates/<name>`, which gets `content`, the text of the file `style`, the `scripts`
    by their names, and `hashes` for its policy, by which no other script runs, whatever a name holds.

    What users named is escaped, by jinja2."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    loader = FunctionLoader(lambda asked: template(package, asked))
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    own = {"style": template(package, style), **scripts}
    hashes = " ".join(f"'sha256-{_digest(text)}'" for text in scripts.values())
    inline = {key: _inline(text) for key, text in own.items()}
    return environment.get_template(name).render(**inline, hashes=hashes, **content)


def template(package: str, name: str) -> str:
    """The text of a file in a package's folder of templates."""
    return (files(package) / "templates" / name).read_text(encoding="utf-8")


def _inline(text: str) -> Any:
    """A script or style of this project's or plotly's own, to stand in the page as it is."""
    from markupsafe import Markup

    return Markup(text)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()
