"""The triptych command: doctor, status, image and more."""
