"""`biomedclip plan`: what a training run needs on machines that are not there, from compiling its step for them."""
