"""The one place of the version number; setup.py and the compiled extension read it."""

__version__ = "0.1.0"
