"""Find wrong labels in image data sets with a vision-language model (DeFT, Wei et al., NeurIPS 2024).

For everybody
    `detect` and `find_label_issues` judge labels; a `Detection` is what was found, its `CleanMask` filters data sets.
    `RunSettings`, `FinetuneSettings` and `FrozenSettings` say how; `InputError` says what cannot be used.
For data that come later
    `Deft` is the method as an object, a `Detector` what it has trained.
For plugins
    `hookimpl` marks a hook. A `Selector` is handed a `Run` and gives a `Selection`; `Backbone` and `NoiseModel` are the
    other things to register, `SelectorTraits` and `NoiseTraits` what is said of them, `EpochEnd` what listeners are
    told. `read_image_data` reads what users have into an `ImageData`; `load_plugins` finds all that is installed.

Names are loaded when they are first used, so that ``import deft_plugin`` does not import torch; ``__init__.pyi`` says
where from.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
