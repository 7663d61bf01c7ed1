"""The commands ``deft demo`` and ``deft bench``."""
