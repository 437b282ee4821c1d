"""Self-contained HTML pages with inline style and scripts. The only module that imports jinja2."""

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any


def render_page(
    package: str, template_name: str, style: str, scripts: Mapping[str, str], context: Mapping[str, Any]
) -> str:
    """Render the file `template_name` of a package's templates folder, with HTML-escaped values of `context`.

    The template gets `scripts` (name -> source) and the source `style`, both unescaped, and `hashes`, the scripts'
    hashes for a content security policy under which no other script runs. Its filter `tojson` writes no spaces."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    loader = FunctionLoader(lambda name: read_template(package, name))
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    sources = {"style": style, **scripts}
    hashes = " ".join(f"'sha256-{_sha256_base64(source)}'" for source in scripts.values())
    inline = {key: _mark_safe(source) for key, source in sources.items()}
    return environment.get_template(template_name).render(**inline, hashes=hashes, **context)


def read_template(package: str, name: str) -> str:
    """Return the text of a file in a package's templates folder."""
    return (files(package) / "templates" / name).read_text(encoding="utf-8")


def _mark_safe(source: str) -> Any:
    """Mark a script or style of this project or plotly, so that jinja2 does not escape it."""
    from markupsafe import Markup

    return Markup(source)


def _sha256_base64(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()
