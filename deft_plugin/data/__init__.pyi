from .class_names import names_are_numbers
from .columns import find_image_column, find_label_column, read_column
from .digests import image_digest
from .images import read_image, to_rgb
from .judged import check_same_count, check_same_images, check_same_labels, read_digests
from .labels import check_labels, check_pred_probs, label_index, label_indices
from .reading import ImageData, own_class_names, read_image_data
from .sources import ImageSource, SelectedImages, describe
from .stored import holds_dataset, read_dataset

__all__ = [
    "ImageData",
    "ImageSource",
    "SelectedImages",
    "check_labels",
    "check_pred_probs",
    "check_same_count",
    "check_same_images",
    "check_same_labels",
    "describe",
    "find_image_column",
    "find_label_column",
    "holds_dataset",
    "image_digest",
    "label_index",
    "label_indices",
    "names_are_numbers",
    "own_class_names",
    "read_column",
    "read_dataset",
    "read_digests",
    "read_image",
    "read_image_data",
    "to_rgb",
]
