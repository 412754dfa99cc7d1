"""`python -m prox_hpc.report.flops paper`: published figures of ProX beside ours, as JSON (`prox_hpc.report.paper`)."""

import argparse
import json


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m prox_hpc.report.flops",
        description="Recompute the published figures of ProX (arXiv 2409.17115v2) with this package's formulas.",
    )
    parser.add_argument("what", choices=["paper"], help="paper: the published figures beside ours")
    parser.parse_args(arguments)
    from prox_hpc.report.paper import figures

    print(json.dumps([figure.to_json() for figure in figures()], indent=1))


if __name__ == "__main__":
    main()
