"""HTML that needs no other file and no network: what comes from a pool is escaped, and nothing but own scripts runs."""

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from chaffinch.jobs.pages import theme


def read_part(package: str, name: str) -> str:
    """The text of a file that lies in a package."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def environment(package: str) -> Environment:
    """Templates of a package, which escape whatever they are given."""
    return Environment(
        loader=FunctionLoader(lambda name: read_part(package, name)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def policy(scripts: Sequence[str]) -> str:
    """A content security policy under which nothing is loaded and no script runs but these."""
    digests = [hashlib.sha256(inside_script(script).encode()).digest() for script in scripts]
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"


def inside_script(script: str) -> Markup:
    """A script that cannot end its own element."""
    return Markup(script.replace("</script", "<\\/script").strip())


def inside_json(content: Any) -> Markup:
    """Plain values as JSON that is safe inside a script element."""
    text = json.dumps(content, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def coloured(style: str) -> Markup:
    """A style sheet with the colours by role before it, for light screens and dark ones."""
    light, dark = theme.variables(theme.LIGHT), theme.variables(theme.DARK)
    scheme = f"@media screen and (prefers-color-scheme: dark){{:root{{color-scheme:dark;{dark}}}}}"
    return Markup(f":root{{color-scheme:light;{light}}}\n{scheme}\n{style}")


def pool_name(inputs: str | list[str]) -> str:
    """A pool by the last parts of its paths, which stay when it is moved or copied."""
    places = [inputs] if isinstance(inputs, str) else inputs
    fixed = [place.partition("*")[0] if "*" in place else place for place in places]
    return ", ".join(dict.fromkeys(place.rstrip("/").rpartition("/")[2] or place for place in fixed))
