from .files import check_file_can_be_written, check_folder_can_be_written, write_bytes, write_json, write_text
from .precision import autocast, compute_dtype, pick_device, use_precision
from .workers import Workers, this_process

__all__ = [
    "Workers",
    "autocast",
    "check_file_can_be_written",
    "check_folder_can_be_written",
    "compute_dtype",
    "pick_device",
    "this_process",
    "use_precision",
    "write_bytes",
    "write_json",
    "write_text",
]
