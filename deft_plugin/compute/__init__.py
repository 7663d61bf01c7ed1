"""What computes, and where: number formats, the processes of a run, checkpoints."""
