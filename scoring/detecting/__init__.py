"""What the detector is made of: checkpoints, canvases, phrases, the families of models, and the objects they find."""
