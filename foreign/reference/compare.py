"""Compares Evenkeel's answers with the real kube-apiserver's.

scripts/compare-reference.sh starts both servers and runs this. Each difference is printed once, and
counted; one that the list of known differences does not have fails the run.
"""

import argparse
import os
import sys
import time

import create
import discovery
import openapi
import sequences
import update
from client import Pair
from differences import Differences, known
from objects import Catalogue, Sample

# Discovery first: what the others leave behind would be found as first objects.
PARTS = {each.NAME: each for each in (discovery, openapi, create, update, sequences)}
SERVICE_RANGE = "10.200.0.0/16"


def main():
    """Runs the parts, prints what differs; the exit code says whether any of it is news."""
    options = arguments()
    started = time.monotonic()
    pair = Pair(*options.servers)
    wait(pair)
    check(pair)
    prepare(pair)
    catalogue = Catalogue(pair.reference, pair.space)
    differences = Differences()
    for name in options.part or PARTS:
        begun = time.monotonic()
        PARTS[name].run(pair, differences, catalogue, Sample(options.share, options.seed))
        print(f"{name}: done in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    if options.write_known:
        write_known(options, differences)
    expected = known(options.known)
    for line, group in differences.groups.items():
        if options.all or line not in expected:
            print(f"{group['count']:5}x {line}")
    if options.report:
        report(options.report, differences)
    news = summary(differences, expected, options)
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    return 1 if news else 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="*", choices=[[], *PARTS], metavar="PART",
                        help=f"one of {', '.join(PARTS)}; all without")
    parser.add_argument("--servers", nargs=3, required=True,
                        metavar=("EVENKEEL_URL", "REFERENCE_URL", "KUBECONFIG"),
                        help="both servers, and a kubeconfig whose certificate both take")
    parser.add_argument("--known", help="differences that are no news, one a line",
                        default=os.path.join(os.path.dirname(__file__), "known.txt"))
    parser.add_argument("--write-known", action="store_true",
                        help="make what differs now the list of known differences")
    parser.add_argument("--all", action="store_true", help="print the known ones too")
    parser.add_argument("--report", help="write the first case of each difference here, uncut")
    parser.add_argument("--share", type=float, default=1,
                        help="send this share of the made objects alone, such as 0.1")
    parser.add_argument("--seed", type=int, default=137, help="which ones those are")
    return parser.parse_args()


def wait(pair):
    """Waits for both servers to be ready."""
    for _ in range(600):
        answers = pair.ask("GET", "/readyz")
        if all(each.status == 200 for each in answers):
            return
        time.sleep(0.2)
    sys.exit("not ready: " + "; ".join(f"{each.status} {each.body}" for each in answers))


def check(pair):
    """Two servers with different ranges would differ for that reason alone."""
    answers = pair.ask("GET", "/apis/networking.k8s.io/v1/servicecidrs/kubernetes")
    for server, answer in zip(("Evenkeel", "the reference"), answers):
        if answer.status not in (200, 404):
            sys.exit(f"{server}: {answer.status} {answer.body}")
        cidrs = answer.field("spec", "cidrs")
        # A server that lacks the object says so in part `discovery`.
        if answer.status == 200 and cidrs != [SERVICE_RANGE]:
            sys.exit(f"{server}: services must be in {SERVICE_RANGE}, not {cidrs}")


def prepare(pair):
    """The run's namespace, with the service account that a loop makes and the reference lacks."""
    for space in ("default", pair.space):
        pair.ask("POST", "/api/v1/namespaces", {"metadata": {"name": space}})
        account = {"metadata": {"name": "default"}}
        pair.ask("POST", f"/api/v1/namespaces/{space}/serviceaccounts", account)
    # Quotas and limits of a new namespace are known to neither server at once.
    time.sleep(1)


def write_known(options, differences):
    """Writes the list anew; the lines of parts that were not run stay."""
    left = {line for line in known(options.known)
            if line.split(" ", 1)[0] not in (options.part or PARTS)}
    with open(options.known, encoding="utf-8") as file:
        comments = [line for line in file if line.startswith("#")]
    with open(options.known, "w", encoding="utf-8") as file:
        file.writelines(comments)
        file.writelines(f"{line}\n" for line in sorted(left | set(differences.groups)))


def report(path, differences):
    """Writes how each difference was met first, with both answers in full."""
    with open(path, "w", encoding="utf-8") as file:
        for line, group in differences.groups.items():
            case, evenkeel, reference = group["first"]
            file.write(f"{line}\n  case {case!r}\n  E    {evenkeel}\n  K    {reference}\n")


def summary(differences, expected, options):
    """Prints the counts for each part; yields how many groups are not known."""
    print(f"{'part':12} {'requests':>9} {'differing':>10} {'groups':>7} {'not known':>10}")
    news = 0
    for name in options.part or PARTS:
        groups = {line: each for line, each in differences.groups.items()
                  if each["part"] == name}
        fresh = sum(line not in expected for line in groups)
        news += fresh
        cases = sum(each["count"] for each in groups.values())
        print(f"{name:12} {differences.requests.get(name, 0):9} {cases:10} {len(groups):7} "
              f"{fresh:10}")
        if options.share >= 1:
            gone = [line for line in expected
                    if line.startswith(f"{name} ") and line not in groups]
            for line in sorted(gone):
                print(f"no longer differs, strike it from the list: {line}")
    return news


if __name__ == "__main__":
    sys.exit(main())
