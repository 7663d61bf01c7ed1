"""The selectors that DeFT is compared with, and bridges to other tools."""
