"""What training leaves: a folder of data, and the object that scores with it."""

from gpupipe.bundle.scoring import Bundle, load

__all__ = ["Bundle", "load"]
