"""The end of the demo: a table of the scores, the relations of the example, and where to look further."""

import json
import sys
from pathlib import Path

SCORES = ("span", "entity", "relation", "relation_exact")


def table(out: Path) -> None:
    """Mean F1 on test over the seeds: the baseline, and ENPAR."""
    results = {}
    for title, name in (("BERT baseline", "bert"), ("ENPAR", "enpar-model")):
        results[title] = json.loads((out / name / "manifest.json").read_text(encoding="utf-8"))["result"]
    seeds = len(results["ENPAR"]["runs"])
    print(f"\nF1 on test, mean of {seeds} seeds")
    print("| " + " | ".join(["", *results]) + " |")
    print("|---|" + "---:|" * len(results))
    for score in SCORES:
        cells = (f"{100 * result['test'][score]['f1']:.1f}" for result in results.values())
        print(f"| {score} | " + " | ".join(cells) + " |")


def relations(file: Path) -> None:
    """The relations that were found, a line each."""
    print(f"\nRelations in {file.parent.parent / 'example.txt'}")
    for line in file.read_text(encoding="utf-8").splitlines():
        sentence = json.loads(line)
        texts = [entity["text"] for entity in sentence["entities"]]
        for relation in sentence["relations"]:
            score = f"{relation['score']:.2f}"
            print(f"  {texts[relation['head']]} --{relation['type']}--> {texts[relation['tail']]}  ({score})")


def main() -> None:
    """Print all of it for the demo's folder."""
    out = Path(sys.argv[1])
    table(out)
    relations(out / "relations" / "sentences.jsonl")
    print(f"\nReport: {(out / 'report' / 'report.html').resolve()}")
    print(f"Runs:   mlflow ui --backend-store-uri sqlite:///{(out / 'mlflow.db').resolve()}")


if __name__ == "__main__":
    main()
