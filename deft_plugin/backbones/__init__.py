"""Vision-language models that DeFT can prompt."""
