"""Visual question answering: how right answers are, how sure that is, and what is reached without looking at an image."""
