"""Training: the step that both stages share, the engines that take it, checkpoints, and the launch on Ray Train."""
