from .augment import augment_image

__all__ = ["augment_image"]
