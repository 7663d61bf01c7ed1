"""What all HTML pages have in common: escaped templates, styles that are part of the page, and who vouches for them."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


def read_template(package: str, name: str) -> jinja2.Template:
    """Read a template of a package's folder ``templates``; what is put into it is escaped.

    Parameters
    ----------
    package : str
    name : str
        Of the file.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def read_asset(package: str, name: str) -> str:
    """Read a style or script of a package's folder ``templates``.

    Parameters
    ----------
    package : str
    name : str
        Of the file.
    """
    return (importlib.resources.files(package) / "templates" / name).read_text(encoding="utf-8")


def csp_hash(text: str) -> str:
    """Name a style or script in a content security policy.

    Examples
    --------
    >>> csp_hash("")
    'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='
    """
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
