from .tunings import ENCODER_TUNINGS, EncoderTuning, pick_tuning, tuned

__all__ = ["ENCODER_TUNINGS", "EncoderTuning", "pick_tuning", "tuned"]
