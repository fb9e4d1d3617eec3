"""The rendered world: scenes, their captions and planted noise, so that a pool's truth is known."""
