"""The selectors that DeFT is compared with: one paper, one file."""
