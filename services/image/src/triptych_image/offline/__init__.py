"""Images without a pull: load, save, push, and proof of what is stored."""
