"""Visual questions: VQA-RAD, SLAKE, PathVQA and tables of one's own, with splits that say what they leak."""
