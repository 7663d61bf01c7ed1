from .augment import augment_image
from .batches import epoch_batches, keyed_generator, minibatch_size
from .loop import Batch, Trainee, TrainingLoop
from .losses import cross_entropies, symmetric_cross_entropy
from .views import Views

__all__ = [
    "Batch",
    "Trainee",
    "TrainingLoop",
    "Views",
    "augment_image",
    "cross_entropies",
    "epoch_batches",
    "keyed_generator",
    "minibatch_size",
    "symmetric_cross_entropy",
]
