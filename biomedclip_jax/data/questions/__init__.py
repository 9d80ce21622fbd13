"""Visual questions: VQA-RAD, SLAKE, PathVQA and tables of image, question and answer, with splits that say what they leak."""
