"""DeFT, the method: prompts, losses, training, the selector and the detector that it trains."""
