"""Reading what users have: folders, Hugging Face and torch data sets, images, labels.

What others may use of this room stands in ``__init__.pyi``, and is loaded when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
