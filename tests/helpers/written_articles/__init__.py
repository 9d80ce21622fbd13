"""Nine articles that tests write: each structure of figures that publishers and PubMed Central use, in words made up here.

PMC99000001.1   <fig-group> with figure supplements; supplementary files in captions; mentions in a table's foot; a decision
                letter; JATS 1.1; an old package of it
PMC99000002.2   an author's response with a figure of its own; the licence's address in a link
PMC99000003.3   CC0; inline elements in one another; supplementary files in all captions
PMC99000004.2   four groups; MathML and TeX in captions; mentions in an appendix; a figure that is never mentioned; JATS 1.1
PMC99000005.1   PNG; tables and formulas that are images; JATS Publishing 1.1d3; a licence in words only
PMC99000006.1   names without extension; several paragraphs in a caption; line breaks everywhere; figures in the back matter;
                no DTD; an old package of it that adds .jpg
PMC99000007.1   no picture came with it; JATS Publishing 1.2
PMC99000008.1   NLM 2.3 in ISO-8859-1 and a wrapper, entities, figures without id, several graphics, <alternatives>, a licence
                of a figure's own, oddly named files
PMC99000009.1   JATS 1.3 with a namespace and prefix; <floats-group>, nested figures, a group with a caption, <response>
"""

from helpers.written_articles.formulas import SWIM
from helpers.written_articles.image_tables import ALGAE
from helpers.written_articles.inline_markup import GENE
from helpers.written_articles.oddities import CASE, SKIN, TREES
from helpers.written_articles.preprint import FLUX
from helpers.written_articles.supplements import FEVER, GROWTH

ARTICLES = (GROWTH, FEVER, GENE, SWIM, ALGAE, FLUX, TREES, CASE, SKIN)
