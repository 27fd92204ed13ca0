"""Putting a node together from a checkout or from wheels, and taking it apart again."""

from triptych_dev.node.install import InstallOptions, install
from triptych_dev.node.places import CHECKOUT, DEBIAN, Places
from triptych_dev.node.uninstall import UninstallOptions, uninstall

__all__ = ["CHECKOUT", "DEBIAN", "InstallOptions", "Places", "UninstallOptions", "install", "uninstall"]
