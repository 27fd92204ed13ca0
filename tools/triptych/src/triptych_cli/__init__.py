"""The triptych command: doctor, status, image and more."""

__version__ = "0.1.0"
