"""python -m helpers.new churn --data path.csv --target churned [--kind table] [--folder …]"""

import argparse
import sys

from helpers.errors import HelpersError
from helpers.new.project import new


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m helpers.new")
    parser.add_argument("name")
    parser.add_argument("--data", required=True, help="a CSV file; a folder or zip of pictures")
    parser.add_argument("--target", default="", help="the column to predict")
    parser.add_argument("--kind", default="table", help="table, image, text or series")
    parser.add_argument("--folder", default=".", help="where the project's folder goes")
    asked = parser.parse_args(arguments)
    try:
        new(asked.name, asked.data, asked.target, folder=asked.folder, kind=asked.kind)
    except HelpersError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
