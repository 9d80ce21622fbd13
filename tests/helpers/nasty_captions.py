"""Strings that tokenizers and cleaners of text have failed on."""

NASTY = [
    "",
    " \t\n ",
    "word",
    "&lt;i&gt;p&lt;/i&gt; &amp;amp; &nbsp;0.05",  # entities, once and twice
    "p < 0.05 &amp;amp; q &amp;lt; 1",  # beside a bare "<" ftfy leaves entities alone
    "schÃ¶n, Â±3 Âµm",  # UTF-8 read as Latin-1
    "\u201ccurly\u201d quotes \u2014 it\u2019s H&E\u2026",
    "\u80ba\u764c CT \u56fe\u50cf",  # Chinese is cut into characters
    "na\u00efve caf\u00e9 \u0130stanbul \u00df \ufb01bre",
    "emoji \U0001f9e0\U0001fac1 and \u200bzero\u200d-width\ufeff",
    "[CLS] a literal [SEP] or [MASK] [PAD] in a caption [UNK]",
    "a\x00b\x07c\ud7ff",
    "x" * 500,
    "lymph node metastasis " * 400,
    "1,234.56e-7 (n=12; p<0.001) 5\u2032-ATG-3\u2032 CD4+/CD8\u207a \u03b1-SMA 10\u207b\u00b3 \u00d7200",
    "UPPER lower MiXeD under_score hyphen-ated a.b.c http://x.org/?q=1#f",
]
