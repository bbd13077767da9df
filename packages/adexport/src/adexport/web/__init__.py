"""The pages of Ad Export: server-rendered, each with a JSON twin, working under any root path and without scripts."""

from adexport.web.install import install_pages

__all__ = ["install_pages"]
