"""The command line: verbs only, no logic. Exit status: 0 success, 1 a run failed, 2 bad input, 130 interrupted."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignarena.arguments import Parser, names, seeds, setting
from alignarena.core.errors import AlignArenaError, BadInput
from alignarena.core.files import UNWRITABLE, dump_json
from alignarena.core.imports import import_once
from alignarena.listing import LISTS, print_table

if TYPE_CHECKING:
    from alignarena.results.frame import Results

_INTERRUPTED = 130
_JUDGES = "longer, first, random, local:MODEL, api:MODEL, replay:FILE, human:FILE; of a run also gold, reward_model"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; an error the user can act on is one line on stderr.

    ``ALIGNARENA_DEBUG=1`` shows the traceback as well.
    """
    try:
        args = _parser().parse_args(argv)
        status: int = args.call(args)
        sys.stdout.flush()
        return status
    except AlignArenaError as error:
        return _fail(str(error), error.exit_status)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on from what was computed", _INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno in UNWRITABLE:
            return _fail(f"{error}; name a folder of your own (--out for a run, ALIGNARENA_CACHE for the cache)", 2)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return _fail(f"{error}; free some space, then run the same command again (what was computed is kept)", 1)


def _fail(message: str, status: int) -> int:
    if os.environ.get("ALIGNARENA_DEBUG") == "1":
        traceback.print_exc()
    print("alignarena:", " ".join(message.split()), file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="alignarena", description="Head-to-head comparisons of LLM alignment methods.")
    verbs = parser.add_subparsers(metavar="VERB", dest="verb", required=True)

    def add(name: str, verb: Callable[[argparse.Namespace], int], about: str, example: str) -> argparse.ArgumentParser:
        one = verbs.add_parser(
            name,
            help=about,
            description=about[0].upper() + about[1:] + ".",
            epilog=f"example:\n  alignarena {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.set_defaults(call=verb)
        return one

    one = add("list", _list, "list what is known by name", "list methods --json")
    one.add_argument("kind", choices=sorted(LISTS), metavar="|".join(LISTS))
    one.add_argument("--json", action="store_true", help="print JSON instead of a table")

    one = add("run", _run, "run a suite, or go on with it, and write its report", "run quickstart --methods sft,dpo")
    one.add_argument(
        "suite", help="a built-in name (alignarena list suites) or the path of a .yaml file; STUDY/VARIANT for a part"
    )
    one.add_argument("--out", metavar="DIR", help="run folder (default: runs/SUITE)")
    one.add_argument("--methods", type=names, metavar="A,B", help="only these: names, or paths of method files")
    one.add_argument("--seeds", type=seeds, metavar="0,1", help="instead of the suite's seeds")
    one.add_argument(
        "--set", nargs="+", action="extend", default=[], type=setting, metavar="KEY=VALUE",
        help="override the suite: method.dpo.beta=0.3, sft.learning_rate=1e-4",
    )  # fmt: skip
    one.add_argument(
        "--jobs", type=int, metavar="N",
        help="cells at a time, sharing the cores; default: one a GPU, or one for 8 cores (for the suite's threads)",
    )  # fmt: skip
    one.add_argument("--dry-run", action="store_true", help="print the resolved plan and its cost; compute nothing")

    one = add("score", _score, "score stored completions again; never samples", "score runs/quickstart")
    one.add_argument("run_dir", metavar="RUN_DIR")
    one.add_argument("--evaluators", type=names, metavar="A,B", help="instead of the suite's evaluators")
    one.add_argument("--judge", metavar="JUDGE", help=f"let a judge compare with SFT's completions: {_JUDGES}")
    _add_judge_settings(one)

    one = add(
        "judge", _judge, "let people judge a run's completions, blind, on a local page",
        "judge runs/quickstart --judge ann",
    )  # fmt: skip
    one.add_argument("run_dir", metavar="RUN_DIR")
    one.add_argument("--judge", metavar="NAME", help="whose verdicts they are (default: your login name)")
    one.add_argument("--methods", type=names, metavar="A,B", help="only these, each against SFT (default: all)")
    one.add_argument("--port", type=int, default=0, metavar="N", help="where to listen on 127.0.0.1 (default: any)")
    one.add_argument("--no-open", action="store_true", help="print the address without opening a browser")

    one = add("report", _report, "write the report of one or more runs", "report runs/a runs/b --out report")
    one.add_argument("run_dirs", nargs="+", metavar="RUN_DIR")
    one.add_argument("--out", metavar="DIR", help="report folder (default: RUN_DIR/report)")

    one = add("watch", _watch, "show how far a run is until it has ended", "watch runs/quickstart")
    one.add_argument("run_dir", metavar="RUN_DIR")
    one.add_argument("--once", action="store_true", help="print how far it is now, and end")

    one = add(
        "export", _export, "write a policy as a folder for transformers or peft",
        "export runs/quickstart dpo 0 --to my-dpo --merge",
    )  # fmt: skip
    one.add_argument("run_dir", metavar="RUN_DIR")
    one.add_argument("method", metavar="METHOD")
    one.add_argument("seed", metavar="SEED", type=int)
    one.add_argument("--to", required=True, metavar="DIR", help="the folder to write; empty or not there yet")
    one.add_argument("--merge", action="store_true", help="a whole model rather than a peft adapter on its base")
    one.add_argument("--push-to-hub", metavar="OWNER/NAME", help="upload it as well; a private repository if it is new")

    one = add(
        "export-results", _export_results, "write completions and scores as other tools read them",
        "export-results runs/quickstart alpaca_eval --to outputs",
    )  # fmt: skip
    one.add_argument("run_dir", metavar="RUN_DIR")
    one.add_argument("format", metavar="FORMAT", help="alpaca_eval, arena_hard, mt_bench or lm_eval")
    one.add_argument("--to", required=True, metavar="DIR", help="the folder to write into")

    one = add("compare", _compare, "compare two methods of a run, prompt by prompt", "compare runs/quickstart dpo sft")
    one.add_argument("run_dir", metavar="RUN_DIR")
    one.add_argument("a", metavar="A")
    one.add_argument("b", metavar="B")
    one.add_argument("--metric", help="any scored metric (default: gold, else the win rate)")
    one.add_argument("--json", action="store_true", help="print JSON instead of a sentence")

    one = add(
        "validate-judge", _validate_judge, "compare a judge with people on labelled pairs",
        "validate-judge longer pandalm.json --json",
    )  # fmt: skip
    one.add_argument("judge", metavar="JUDGE", help=_JUDGES)
    one.add_argument("file", metavar="FILE", help="JSON, JSONL or CSV: prompt, response1, response2, annotator1, ...")
    one.add_argument("--json", action="store_true", help="print JSON instead of a table")
    _add_judge_settings(one)

    one = add("new-method", _new_method, "write a method file and its test, which run as written", "new-method mine")
    one.add_argument("name", metavar="NAME")
    one.add_argument("--dir", default=".", metavar="DIR", help="where to write (default: here)")

    add("doctor", _doctor, "show the machine, versions, precision, and what is missing", "doctor")
    return parser


def _add_judge_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], type=setting, metavar="KEY=VALUE",
        help="a field of the judge: base_url=http://127.0.0.1:8000/v1, max_cost=2, pointwise=true",
    )  # fmt: skip


def _list(args: argparse.Namespace) -> int:
    rows = list(LISTS[args.kind]())
    if args.json:
        print(dump_json(rows, indent=2))
    else:
        print_table(rows)
    return 0


def _run(args: argparse.Namespace) -> int:
    import_once("alignarena.benchmarks.study")
    from alignarena import run
    from alignarena.benchmarks.jobs import processes
    from alignarena.core.registry import load_file

    methods, files = args.methods, [name for name in args.methods or () if name.endswith(".py")]
    if methods is not None:
        methods = [one for name in methods for one in (load_file(name) if name in files else (name,))]
    given: dict[str, Any] = {"methods": methods, "seeds": args.seeds, "set": dict(args.set), "method_files": files}
    if args.dry_run:
        from alignarena.benchmarks.study import dry_run

        print(dry_run(args.suite, **given))
        return 0
    results = run(args.suite, out=args.out, jobs=args.jobs, **given)
    return _show(results) if processes().is_main_process else 0


def _score(args: argparse.Namespace) -> int:
    from alignarena.benchmarks.judging import judge
    from alignarena.benchmarks.study import score
    from alignarena.reports.page import write_report
    from alignarena.results.frame import load_results

    if args.set and not args.judge:
        raise BadInput("--set is for the fields of a judge; name one with --judge")
    if args.evaluators or not args.judge:
        score(args.run_dir, evaluators=args.evaluators)
    if args.judge:
        judge(args.run_dir, args.judge, dict(args.set))
    write_report([args.run_dir])
    return _show(load_results(args.run_dir))


def _judge(args: argparse.Namespace) -> int:
    from alignarena.judge_session import serve

    serve(args.run_dir, args.judge, args.methods, args.port, show=not args.no_open)

    from alignarena.benchmarks.people import count  # only now: the page must open at once
    from alignarena.reports.page import write_report

    tables = count(args.run_dir)
    for table in tables:
        print(f"\n{table['title']}")
        print_table([dict(zip(table["columns"], row, strict=True)) for row in table["rows"]])
    if tables:
        print(f"report: {write_report([args.run_dir])}")
    return 0


def _report(args: argparse.Namespace) -> int:
    from alignarena.reports.page import write_report

    print(write_report([Path(folder) for folder in args.run_dirs], Path(args.out) if args.out else None))
    return 0


def _watch(args: argparse.Namespace) -> int:
    from alignarena.reports.watch import watch

    return watch(args.run_dir, once=args.once)


def _export(args: argparse.Namespace) -> int:
    from alignarena.benchmarks.export import export

    print(export(args.run_dir, args.method, args.seed, args.to, args.merge, args.push_to_hub))
    return 0


def _export_results(args: argparse.Namespace) -> int:
    from alignarena.results.exchange import export_results

    print(*export_results(args.run_dir, args.format, args.to), sep="\n")
    return 0


def _compare(args: argparse.Namespace) -> int:
    from alignarena.results.frame import load_results

    results = load_results(args.run_dir)
    found = results.compare(args.a, args.b, metric=args.metric or results.primary_metric(args.a) or "gold")
    if args.json:
        print(dump_json(found.to_dict(), indent=2))
        return 0
    print(f"{found.a} - {found.b}: {found.metric} {found.difference:+.3f}, 95 % [{found.low:+.3f}, {found.high:+.3f}]")
    print(f"{found.test}: p = {found.p_value:.3g} ({found.unit}; {found.prompts} prompts)")
    print(f"verdict: {found.winner}")
    return 0


def _validate_judge(args: argparse.Namespace) -> int:
    from alignarena.evaluators.judges.registry import find_judge
    from alignarena.evaluators.judges.validate import as_rows, validate

    found = validate(find_judge(args.judge, dict(args.set)), args.file)
    if args.json:
        print(dump_json(found, indent=2))
    else:
        print_table(as_rows(found))
    return 0


def _new_method(args: argparse.Namespace) -> int:
    from alignarena.scaffold import new_method

    method_path, test_path = new_method(args.name, args.dir)
    print(f"{method_path}\n{test_path}\nnext: pytest {test_path}")
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from alignarena.doctor import diagnose

    print_table([{"what": name, "found": value} for name, value in diagnose()])
    return 0


def _show(results: Results) -> int:
    from alignarena.reports.terminal import print_results

    print_results(results)
    for folder in results.given:
        print(f"report: {folder / 'report' / 'index.html'}")
    return 0
