"""What the commands of the main job do; `cli` says how they are called."""
